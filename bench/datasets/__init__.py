"""One file a data set; the file name is the name."""
