"""Finds, loads, trains and caches language models."""
