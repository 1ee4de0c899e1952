"""Answers of a causal model: token by token, one at a time or many at once."""
