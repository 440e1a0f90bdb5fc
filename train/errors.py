"""The error of a run that cannot start or go on."""


class TrainError(ValueError):
    """One line for the user: what is wrong, where, and what to do about it."""


class NoSplit(TrainError):
    """The data has no such part: it is not divided, or in a way that is not known here."""
