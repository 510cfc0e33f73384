"""Loss and gradient balancing, one file each; the file name is the name."""
