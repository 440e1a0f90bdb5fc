"""The error of a run that cannot start or go on."""


class TrainError(ValueError):
    """One line for the user: what is wrong, where, and what to do about it."""
