from setuptools import setup  # what pip reads stands in pyproject.toml

setup()
