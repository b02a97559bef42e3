"""The errors that gpnas raises for its callers: one class per boundary.

Every message is one line that states the rule, the value that broke it, and what to do.
"""

LONGEST = 1000
"""Most characters of a message; of a longer one the middle is left out."""


class GpnasError(Exception):
    """Any failure that the caller can understand and mend; the command line prints it as one line.

    Whatever a message quotes, it is one line of at most `LONGEST` printable characters.
    """

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            left_out = len(message) - LONGEST + 40
            message = (
                f"{message[: LONGEST * 2 // 3]} … ({left_out:,} characters) … {message[40 - LONGEST // 3 :]}"
            )
        super().__init__("".join(each if each.isprintable() else ascii(each)[1:-1] for each in message))


class SpaceError(GpnasError):
    """A space file, or a search space built in Python, breaks a rule."""


class TrialError(GpnasError):
    """Trials cannot be started, or a training cannot go on."""


class JournalError(GpnasError):
    """A run folder's journal is missing, damaged, in use, or belongs to another search."""


class LeaseError(JournalError):
    """A lease is no longer its holder's: it ran out, was given back, or its candidate is observed."""


class DataError(GpnasError):
    """Photographs or LR/HR pairs cannot be used."""


class BundleError(GpnasError):
    """A bundle cannot be written, or what was read is not a bundle that can be trusted."""
