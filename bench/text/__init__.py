"""Language models: find, load, encode, cache."""
