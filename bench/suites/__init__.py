"""Named lists of runs, and how they become specs."""
