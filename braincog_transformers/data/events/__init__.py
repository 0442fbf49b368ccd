"""Event recordings: which belong to a set, how they become frames, and how frames are kept, varied and mixed."""
