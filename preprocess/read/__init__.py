"""Songs in: files and data sets of any known shape, one row at a time."""
