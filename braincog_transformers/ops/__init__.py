"""Pure functions on tensors: the definitions of neurons, surrogate gradients and spiking attention.

What computes the same faster is in `kernels`.
"""
