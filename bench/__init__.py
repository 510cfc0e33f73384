"""Reproducible benchmarks of multi-task learning over pretrained language models in recommenders."""

__version__ = "0.1.0"
