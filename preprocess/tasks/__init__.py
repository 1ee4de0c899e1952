"""Questions about songs and their answers."""
