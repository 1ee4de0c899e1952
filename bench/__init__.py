"""Benchmarks: one program a question. `python -m bench` lists them, `python -m bench NAME` runs one."""
