"""What a journal holds, read once, and after that only what came since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpnas.records import ENTERED, Architecture, Candidate, Observation

if TYPE_CHECKING:
    from gpnas.journal.journal import Journal


class Memory:
    """What is known of a journal that several may write; it is as of the last `catch_up`.

    Others do not change it. Whatever is undone is forgotten: a transaction that this process takes part in
    may fail after it was read.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._forget()

    def _forget(self) -> None:
        self._undone = self.journal.undone
        self._events = 0  # rows of events that were read
        self.candidates: dict[str, Candidate] = {}
        """Every candidate by its name, in the order of proposal."""
        self.observations: list[Observation] = []
        """Every observation, in the order they were committed."""
        self.pending: dict[str, Candidate] = {}
        """The candidates without an observation by their names, in order."""
        self.taken: set[Architecture] = set()
        """Architectures of all candidates."""
        self.granted = 0
        """How many candidates count as trials: all that were not trained elsewhere."""
        self.words: list[tuple[str, Architecture]] = []
        """What people want to be trained (`wanted`), or not (`vetoed`), in order."""
        self.vetoed: set[Architecture] = set()
        """What is not to be trained."""
        self.stopped = False
        """Whether someone stopped the search and nobody went on."""

    def catch_up(self) -> bool:
        """Reads what came since the last time.

        Returns:
            False where something was undone meanwhile, so that what was known before was read anew.
        """
        journal, kept = self.journal, self.journal.undone == self._undone
        if not kept:
            self._forget()
        with journal.reading():
            candidates = journal.candidates(len(self.candidates))
            self.candidates |= {each.id: each for each in candidates}
            observations = journal.observations(len(self.observations), self.candidates)
            self._events, said = journal.said(self._events)
        self.observations += observations
        self.pending |= {each.id: each for each in candidates}
        self.taken |= {each.architecture for each in candidates}
        self.granted += sum(each.decision.get("phase") != ENTERED for each in candidates)
        for observation in observations:
            self.pending.pop(observation.candidate.id, None)
        for kind, document in said:
            if kind in ("stopped", "gone on"):
                self.stopped = kind == "stopped"
                continue
            architecture = Architecture.from_json(document)
            self.words.append((kind, architecture))
            (self.vetoed.add if kind == "vetoed" else self.vetoed.discard)(architecture)
        return kept
