"""Gets raw files, unpacks archives, and reads tables with errors that name file, line and column."""
