"""Before a run: will it fit, how fast may it be, what would make it better. Arithmetic alone, no torch."""
