"""gpnas: Gaussian-process architecture search and heterogeneous ensembles for super-resolution.

Importing this package loads nothing else: each name is imported when it is first asked for, so that a command
or a worker pays for what it uses alone.
"""

from __future__ import annotations

import sys

if (
    sys.argv[:1] == ["-m"]
    and {"gpnas.cli", "-mgpnas.cli"} & set(sys.orig_argv)
    and not sys.flags.safe_path
    and not __file__.startswith(f"{sys.path[0]}/gpnas/")
):
    # `python -m gpnas.cli` looks for modules where the user is, before anywhere else; `gpnas` does not, and
    # takes no file json.py there for Python's own
    del sys.path[0]

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpnas.config import load_space as load_space
    from gpnas.engine import Engine as Engine
    from gpnas.errors import BundleError as BundleError
    from gpnas.errors import DataError as DataError
    from gpnas.errors import GpnasError as GpnasError
    from gpnas.errors import JournalError as JournalError
    from gpnas.errors import SpaceError as SpaceError
    from gpnas.errors import TrialError as TrialError
    from gpnas.figures.notebook import open_run as open_run
    from gpnas.opening import open_search as open_search
    from gpnas.records import Architecture as Architecture
    from gpnas.records import Candidate as Candidate
    from gpnas.records import Fidelity as Fidelity
    from gpnas.records import Observation as Observation
    from gpnas.records import Portfolio as Portfolio
    from gpnas.space import SearchSpace as SearchSpace

    __version__: str

HOMES = {
    "gpnas.config": ("load_space",),
    "gpnas.engine": ("Engine",),
    "gpnas.errors": (
        *("BundleError", "DataError", "GpnasError", "JournalError", "SpaceError", "TrialError"),
    ),
    "gpnas.figures.notebook": ("open_run",),
    "gpnas.opening": ("open_search",),
    "gpnas.records": ("Architecture", "Candidate", "Fidelity", "Observation", "Portfolio"),
    "gpnas.space": ("SearchSpace",),
}
"""Modules, and what the package offers of each; a test holds it against the imports above."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("gpnas")
    for module, names in HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'gpnas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "__version__", *(name for names in HOMES.values() for name in names)})
