"""The exceptions that `python -m train` prints as one line."""


class TrainError(ValueError):
    """A run cannot start or continue. One line: what is wrong, where, and what to do about it."""


class NoSplit(TrainError):
    """The data has no such split: it is not divided, or in a way that is not recognised."""
