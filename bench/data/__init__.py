"""Turns raw files into memory-mapped splits."""
