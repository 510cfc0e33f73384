"""Raw files: where they come from, archives, and readers that name file, line and column."""
