"""One file for each data set, or for a small family."""
