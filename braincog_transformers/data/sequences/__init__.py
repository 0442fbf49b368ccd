"""Sequences (T, channels): spikes of channels without a place, and pictures read pixel by pixel."""
