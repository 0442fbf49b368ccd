"""Measure a network: recorded spikes, firing rates, operations and energy, memory; `pictures` draws them."""
