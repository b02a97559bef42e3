"""The trained networks of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpnas.bundle import StoredWeights
from gpnas.errors import TrialError
from gpnas.records import Candidate
from gpnas.run.layout import NETWORK_FILE, candidate_folder
from gpnas.run.storage import Storage

if TYPE_CHECKING:
    from torch import nn


class NetworkError(TrialError):
    """A trained network that cannot be used."""

    def __init__(self, storage: Storage, candidate: Candidate, reason: object) -> None:
        super().__init__(
            f"{storage.uri}/{_name(candidate)}: a trained network's weights {reason}; train it again, as "
            f"with `gpnas train --architecture {candidate.architecture}`"
        )
        self.candidate = candidate


def trained_weights(storage: Storage, candidate: Candidate) -> StoredWeights:
    """The state dictionary that a candidate's trial left behind.

    Raises:
        NetworkError: it is missing or damaged, or its numbers are not finite.
    """
    try:
        return StoredWeights(storage.read(_name(candidate)))
    except OSError as error:
        raise NetworkError(storage, candidate, f"must be readable, but {error}") from None
    except ValueError as error:
        raise NetworkError(storage, candidate, error) from None


def trained_network(storage: Storage, candidate: Candidate, scale: int) -> nn.Module:
    """The network that a candidate's trial left behind, on the CPU, ready for inference.

    Raises:
        NetworkError: as `trained_weights`, or the weights do not fit the architecture.
    """
    from gpnas.ensemble import loaded

    weights = trained_weights(storage, candidate)
    try:
        return loaded(candidate.architecture, scale, weights)
    except ValueError as error:
        raise NetworkError(storage, candidate, f"must fit their architecture, but {error}") from None


def _name(candidate: Candidate) -> str:
    return f"{candidate_folder(candidate)}/{NETWORK_FILE}"
