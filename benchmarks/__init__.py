"""Measurements beside other libraries and of our own cost; each module is a command, `benchmarks.all` runs them all."""

import braincog_transformers as braincog_transformers  # first: it makes braincog importable, quietly
