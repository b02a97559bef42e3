"""The errors that gpnas raises for its callers: one class per boundary.

Every message is one line that states the rule, the value that broke it, and what to do.
"""


class GpnasError(Exception):
    """Any failure that the caller can understand and mend; the command line prints it as one line."""


class SpaceError(GpnasError):
    """A space file, or a search space built in Python, breaks a rule."""


class TrialError(GpnasError):
    """Trials cannot be started, or a training cannot go on."""


class JournalError(GpnasError):
    """A run folder's journal is missing, damaged, in use, or belongs to another search."""


class DataError(GpnasError):
    """Photographs or LR/HR pairs cannot be used."""


class BundleError(GpnasError):
    """A bundle cannot be written, or what was read is not a bundle that can be trusted."""
