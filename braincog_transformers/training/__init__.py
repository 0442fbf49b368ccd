"""Training: assembly of a run, the loop, losses, ranks, checkpoints that resume bit for bit.

This file imports nothing, so that the command line can name the outcomes of a run without loading torch.
"""
