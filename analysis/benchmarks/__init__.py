"""Benchmarks, each a module to run: `python -m analysis.benchmarks.step`."""
