"""What a journal holds, read once, and after that only what came since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpnas.records import ENTERED, Architecture, Candidate, Observation

if TYPE_CHECKING:
    from gpnas.journal.journal import Journal


@dataclass
class _Known:
    candidates: dict[str, Candidate] = field(default_factory=dict)
    observations: list[Observation] = field(default_factory=list)
    pending: dict[str, Candidate] = field(default_factory=dict)
    taken: set[Architecture] = field(default_factory=set)
    granted: int = 0
    words: list[tuple[str, Architecture]] = field(default_factory=list)
    vetoed: set[Architecture] = field(default_factory=set)
    stopped: bool = False
    events: int = 0
    """Rows of events that were read."""


class Memory:
    """What is known of a journal that several may write; it is as of the last `catch_up`.

    Whatever is undone is forgotten: a transaction that this process takes part in may fail after it was read.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known, self._undone = _Known(), journal.undone

    def catch_up(self) -> bool:
        """Reads what came since the last time.

        Returns:
            False where something was undone meanwhile, so that what was known before was read anew.
        """
        journal, kept = self._journal, self._journal.undone == self._undone
        if not kept:
            self._known, self._undone = _Known(), journal.undone
        known = self._known
        with journal.reading():
            candidates = journal.candidates(len(known.candidates))
            known.candidates |= {each.id: each for each in candidates}
            observations = journal.observations(len(known.observations), known.candidates)
            known.events, said = journal.said(known.events)
        known.observations += observations
        known.pending |= {each.id: each for each in candidates}
        known.taken |= {each.architecture for each in candidates}
        known.granted += sum(each.decision.get("phase") != ENTERED for each in candidates)
        for observation in observations:
            known.pending.pop(observation.candidate.id, None)
        for kind, document in said:
            if kind in ("stopped", "gone on"):
                known.stopped = kind == "stopped"
                continue
            architecture = Architecture.from_json(document)
            known.words.append((kind, architecture))
            (known.vetoed.add if kind == "vetoed" else known.vetoed.discard)(architecture)
        return kept

    @property
    def candidates(self) -> dict[str, Candidate]:
        """Every candidate by its name, in the order of proposal; not to be changed."""
        return self._known.candidates

    @property
    def observations(self) -> list[Observation]:
        """Every observation, in the order they were committed; not to be changed."""
        return self._known.observations

    @property
    def pending(self) -> dict[str, Candidate]:
        """The candidates without an observation by their names, in order; not to be changed."""
        return self._known.pending

    @property
    def taken(self) -> set[Architecture]:
        """Architectures of all candidates; not to be changed."""
        return self._known.taken

    @property
    def granted(self) -> int:
        """How many candidates count as trials: all that were not trained elsewhere."""
        return self._known.granted

    @property
    def words(self) -> list[tuple[str, Architecture]]:
        """What people want to be trained (`wanted`), or not (`vetoed`), in order; not to be changed."""
        return self._known.words

    @property
    def vetoed(self) -> set[Architecture]:
        """What is not to be trained; not to be changed."""
        return self._known.vetoed

    @property
    def stopped(self) -> bool:
        """Whether someone stopped the search and nobody went on."""
        return self._known.stopped
