"""Pure functions on tensors: spiking neurons, surrogate gradients, spiking attention products. They know nothing of
modules."""
