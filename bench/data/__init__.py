"""From raw files to memory-mapped splits."""
