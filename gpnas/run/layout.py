"""Where the files of a candidate lie in a run's storage.

candidates/c0007/attempt-1/checkpoint.pt   one folder per attempt, never shared, since a worker that
                                           was cut off may go on writing after its successor started
candidates/c0007/network.safetensors       the trained weights, once finished
candidates/c0007/errors.safetensors        what products of its residuals with others' need, once finished
candidates/c0007/initial.safetensors       the weights that it began with, where they were not its own
candidates/c0007/training.jsonl            on demand: a line per evaluation
candidates/c0007/tensorboard/              on demand: TensorBoard's files
"""

from __future__ import annotations

from gpnas.records import Candidate
from gpnas.run.storage import Storage

CHECKPOINT_FILE = "checkpoint.pt"
NETWORK_FILE = "network.safetensors"
INITIAL_FILE = "initial.safetensors"


def candidate_folder(candidate: Candidate) -> str:
    """Where in a storage a candidate's checkpoints and results lie."""
    return f"candidates/{candidate.id}"


def claim_attempt(storage: Storage, folder: str) -> int:
    """Begins an attempt, in the first folder of a candidate's that is free, and returns its number."""
    number = 1
    while not storage.claim(f"{folder}/attempt-{number}"):
        number += 1
    return number


def attempts(storage: Storage, candidate: Candidate) -> int:
    """How many attempts at a candidate have begun, whatever became of them."""
    folder, number = candidate_folder(candidate), 0
    while storage.exists(f"{folder}/attempt-{number + 1}"):
        number += 1
    return number
