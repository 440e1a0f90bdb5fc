"""The error of a benchmark."""


class BenchmarkError(ValueError):
    """One line about a benchmark that cannot run: what, and what to do."""
