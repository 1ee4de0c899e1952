"""A look into a few steps of a run: torch's traces of every rank, what they add up to, and stacks on demand."""
