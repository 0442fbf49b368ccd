"""Random and changed inputs: each is taken or refused in one line."""
