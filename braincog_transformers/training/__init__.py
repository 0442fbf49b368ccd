"""Training: assembly of a run, the loop, losses, ranks, checkpoints that resume bit for bit."""
