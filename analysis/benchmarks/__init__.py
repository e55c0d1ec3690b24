"""Benchmarks. Each module runs as a command, such as `python -m analysis.benchmarks.step`."""
