"""Weights that a final training begins with: those of a search, of another run, or of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from gpnas.bundle import read_bundle
from gpnas.errors import TrialError
from gpnas.journal import Journal
from gpnas.records import Candidate
from gpnas.results.networks import trained_weights
from gpnas.run.layout import INITIAL_FILE, candidate_folder
from gpnas.run.storage import Storage, storage_in, storage_of

FRESH, SEARCH = "none", "search"
"""Weights drawn anew; those that the candidate's own trial in the search ended with."""

Find = Callable[[Candidate], Mapping[str, Tensor] | None]


def finder(warm_start: str, search: Path | None) -> Find:
    """A function that returns the weights that a candidate begins with, or None where there are none.

    Args:
        warm_start: `search`, or the path of a run folder or a bundle. There, the best network of the same
            architecture is taken; at another scale all of it fits but the upsampler.
        search: the run folder of the search that chose the candidates.

    Raises:
        TrialError, BundleError, JournalError: there are no such weights at all.
    """
    if warm_start == SEARCH:
        if search is None:
            raise TrialError(
                "only networks of a search can start from its weights, but these were named by "
                "--architecture; name a run or a bundle, or leave --start-from out"
            )
        storage = storage_in(search)
        return lambda candidate: trained_weights(storage, candidate)
    source = Path(warm_start)
    if source.is_dir() and Journal.exists(source):
        return _of_run(source)
    members = read_bundle(source).members
    return lambda candidate: next(
        (member.state for member in members if member.architecture == candidate.architecture), None
    )


def _of_run(run: Path) -> Find:
    runs = [each for each in (run / "final", run) if Journal.exists(each)]

    def find(candidate: Candidate) -> Mapping[str, Tensor] | None:
        for each in runs:
            with Journal.read(each) as journal:
                finished = [
                    (observation.value, observation.candidate)
                    for observation in journal.observations()
                    if observation.finished and observation.candidate.architecture == candidate.architecture
                ]
                storage = storage_of(journal)
            if finished:
                return trained_weights(storage, max(finished, key=lambda pair: pair[0] or 0.0)[1])
        return None

    return find


def lay_out(storage: Storage, candidate: Candidate, find: Find) -> bool:
    """Puts the weights that a candidate begins with into its folder, once; returns whether there are any."""
    name = f"{candidate_folder(candidate)}/{INITIAL_FILE}"
    if storage.exists(name):
        return True
    found = find(candidate)
    if found is None:
        return False
    storage.write(name, save({name: value.contiguous() for name, value in found.items()}))
    return True
