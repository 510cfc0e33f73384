"""Raw files: where they come from, and what is in archives."""
