"""What a benchmark refuses."""


class BenchmarkError(ValueError):
    """One line about a benchmark that cannot run."""
