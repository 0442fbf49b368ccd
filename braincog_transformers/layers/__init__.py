"""Modules that two or more papers share. They receive the neuron as a constructor and know no model's name."""
