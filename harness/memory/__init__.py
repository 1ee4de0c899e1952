"""Memory of a run on one rank: planned before, profiled during, brought to a target."""
