"""Measure and look: recorded spikes, firing rates, pictures."""
