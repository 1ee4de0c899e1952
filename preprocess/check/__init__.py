"""Looking at a data set and proving that it is what its manifest says."""
