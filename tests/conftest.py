"""What every test shares: the package is imported before braincog, and workers side by side use one thread each."""

import os

import torch

import braincog_transformers  # noqa: F401 - makes braincog importable on every Python

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
