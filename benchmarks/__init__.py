"""Benchmarks of the engines, the data pipeline and the kernels."""
