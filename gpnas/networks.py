"""Networks that a bundle names and does not carry: from sources that its user names.

A bundle may come from anyone, so nothing that it says is ever imported: only what the user names is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gpnas.bundle import Bundle, NetworkSource
from gpnas.errors import BundleError
from gpnas_trainers.families import FAMILIES, declare, is_known
from gpnas_trainers.own import Code, OwnError, entry_of, own_family, read_named


def declare_networks(
    bundle: Bundle, sources: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> None:
    """Makes the networks of a bundle that are its authors' own known, each by the source that has it.

    Args:
        bundle: names families and their sources.
        sources: files such as `nets.py`, or modules such as `package.module`.
        say: gets a line for each source that is not the one that the networks were trained with.

    Raises:
        BundleError: a source is not named, cannot be read, or has no such network.
    """
    for family, needed in bundle.manifest.networks.items():
        place, _, entry = needed.network.rpartition(":")
        codes = [_read(source, entry) for source in sources]
        same = [code for code in codes if code.sha256 == needed.sha256]
        named = [code for code in codes if code.file == Path(place).name]
        found = next(iter([*same, *named, *codes]), None)
        if found is None:
            raise _missing(family, needed)
        try:
            if family in FAMILIES:
                raise OwnError("a bundle must name networks of its own as no built-in family is named")
            entry_of(found)
        except OwnError as error:
            raise BundleError(f"{family}: {error}") from None
        if found.sha256 != needed.sha256:
            say(
                f"{found.file} is not the source that {family} was trained with (SHA-256 "
                f"{needed.sha256[:12]}…, here {found.sha256[:12]}…); its networks are used if the weights fit"
            )
        declare(own_family(family, found))


def check_named(bundle: Bundle) -> None:
    """Raises a `BundleError` where nobody has named the source of networks in a bundle."""
    for family, needed in bundle.manifest.networks.items():
        if not is_known(family):
            raise _missing(family, needed)


def _missing(family: str, needed: NetworkSource) -> BundleError:
    place = needed.network.rpartition(":")[0]
    return BundleError(
        f"{family}: networks of someone's own need their source, which no bundle carries; name {place} by "
        f"--networks {place} (SHA-256 {needed.sha256})"
    )


def _read(source: str, entry: str) -> Code:
    try:
        return read_named(f"{source}:{entry}")
    except OwnError as error:
        raise BundleError(f"--networks {source}: {error}") from None
