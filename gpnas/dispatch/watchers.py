"""What a trial writes of its training for a person to read, beside what it reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from gpnas.errors import TrialError
from gpnas_trainers.train import Watcher

LINES_FILE = "training.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Raises a `TrialError` where TensorBoard's package is missing: here, not in every worker."""
    if find_spec("tensorboard") is None:
        raise TrialError(
            "TensorBoard files need the package tensorboard, which is not installed; "
            "pip install 'gpnas[tensorboard]'"
        )


def watchers(folder: Path, wanted: Sequence[str]) -> Iterator[Watcher]:
    """Who watches a training on behalf of a trial.

    Args:
        folder: the candidate's.
        wanted: any of `json` (a line per evaluation in `training.jsonl`) and `tensorboard` (event files in
            `tensorboard/`).
    """
    # loaded by who wants them: every worker would pay
    if "json" in wanted:
        from gpnas_trainers.watching import JsonLines

        yield JsonLines(folder / LINES_FILE)
    if "tensorboard" in wanted:
        from gpnas_trainers.watching import TensorBoard

        yield TensorBoard(folder / TENSORBOARD_FOLDER)
