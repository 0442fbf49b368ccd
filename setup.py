"""Metadata of the distribution, its dependencies and its console script."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """Read the version from its file, without importing the package and so without its dependencies."""
    text = (HERE / "braincog_transformers" / "version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


setup(
    name="braincog_transformers",
    version=read_version(),
    description="Spiking transformers for BrainCog: one registry, exact to their papers, trained by one command.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The braincog_transformers maintainers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["spiking neural networks", "transformers", "neuromorphic", "BrainCog", "PyTorch"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["braincog_transformers", "braincog_transformers.*"]),
    package_data={"braincog_transformers": ["py.typed"], "braincog_transformers.report": ["page.css", "page.js"]},
    py_modules=["braincog_transformers_main"],
    entry_points={"console_scripts": ["braincog-transformers = braincog_transformers_main:main"]},
    install_requires=[
        "braincog>=0.2.7.19",
        "einops>=0.8",
        "filelock>=3.12",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pyyaml>=6.0",
        "safetensors>=0.4.3",
        "scikit-learn>=1.4",
        # thop, which braincog imports, reads distutils.version: setuptools provides it since Python 3.12 dropped it.
        "setuptools>=69",
        "timm>=1.0.15",
        "tonic>=1.5",
        "torch>=2.6",
        "torchvision>=0.21",
        "tqdm>=4.65",
    ],
    extras_require={
        # compressed recordings of CIFAR10-DVS's newer edition; without it .aedat and uncompressed .aedat4 are read
        "aedat4": ["lz4>=4.0", "zstandard>=0.20"],
        # sources of photos: --dataset-source wds/NAME, hfds/NAME and hfids/NAME
        "webdataset": ["webdataset>=0.2"],
        "huggingface": ["datasets>=2.14"],
        # --export FILE.onnx
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.3"],
        "tensorboard": ["tensorboard>=2.14"],
        "test": [
            "aedat>=2.2",
            "lz4>=4.0",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.9",
            "selenium>=4.15",
            "zstandard>=0.20",
        ],
    },
)
