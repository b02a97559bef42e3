"""The error of everything that reads images."""


class PairsError(ValueError):
    """An image or a set of pairs cannot be used; one line: the file, the rule, the value."""
