"""Benchmarks: one program a question."""
