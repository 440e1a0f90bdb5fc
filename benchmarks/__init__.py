"""Benchmarks: what the engines cost, side by side in one run."""
