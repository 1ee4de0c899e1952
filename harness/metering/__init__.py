"""What a run measures of itself beside the clock: ceilings, shares of them, energy, ranks, time left."""
