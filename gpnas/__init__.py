"""gpnas: Gaussian-process architecture search and heterogeneous ensembles for super-resolution.

Importing this package loads neither Ray nor GPyTorch, since every Ray worker pays for it;
`Engine` is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gpnas.config import load_space as load_space
from gpnas.errors import BundleError as BundleError
from gpnas.errors import DataError as DataError
from gpnas.errors import GpnasError as GpnasError
from gpnas.errors import JournalError as JournalError
from gpnas.errors import SpaceError as SpaceError
from gpnas.errors import TrialError as TrialError
from gpnas.records import Architecture as Architecture
from gpnas.records import Candidate as Candidate
from gpnas.records import Fidelity as Fidelity
from gpnas.records import Observation as Observation
from gpnas.records import Portfolio as Portfolio
from gpnas.space import SearchSpace as SearchSpace

if TYPE_CHECKING:
    from gpnas.engine import Engine as Engine

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Engine":
        return import_module("gpnas.engine").Engine
    raise AttributeError(f"module 'gpnas' has no attribute {name!r}")
