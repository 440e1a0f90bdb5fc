"""The error of a user who asked for a model that cannot be."""


class SpecError(ValueError):
    """One line that says which field is wrong, what it was, what is possible."""
