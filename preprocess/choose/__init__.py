"""Which songs are taken, and which are set aside for evaluation."""
