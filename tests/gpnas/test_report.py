"""What a worker reports, through what Ray Tune makes of a result on its way."""

import math
from pathlib import Path

import pytest
from ray.tune.utils import flatten_dict

from gpnas.ask_tell import AskTell
from gpnas.dispatch.conductor import Conductor
from gpnas.dispatch.final import Settled
from gpnas.dispatch.halt import Halt
from gpnas.dispatch.report import TrialReport, report_of, to_result
from gpnas.heterogeneity import CORRELATION
from gpnas.journal import Header, Journal
from gpnas.records import Architecture, Candidate, Fidelity, Progress
from gpnas.run.setup import PSNR

NEWEST = Progress(2, 40, 31.5, {"psnr": 31.5, "ssim": 0.9, "loss": 0.01}, 12.25)
EARLIER = Progress(2, 20, 30.0, {"psnr": 30.0, "ssim": 0.8, "loss": 0.02}, 6.0)
REPORTS = [
    TrialReport("progress", 2, NEWEST, (EARLIER,), ("a note", "ein zweiter – λ")),
    TrialReport("done", 2, NEWEST, correlations={"c0001": 0.5, "c0002/x": -0.25}),
    TrialReport("failed", 1, reason="diverged", common=True),
    TrialReport("stopped", 3),
    TrialReport("aborted", 0, reason="the disk is full"),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.kind)
def test_a_report_crosses_tune_as_it_is(report: TrialReport) -> None:
    """Tune adds fields of its own, and flattens what is nested before a searcher gets it."""
    result = to_result(report) | {"trial_id": "abc", "config": {"axes": {"features": 4}}}
    assert result["done"] is report.last
    assert report_of(flatten_dict(result)) == report


def test_a_loss_that_is_no_number_crosses_it_too() -> None:
    report = TrialReport("progress", 1, Progress(1, 3, None, {"loss": math.nan}, 1.0))
    found = report_of(flatten_dict(to_result(report)))
    assert found is not None
    assert found.progress is not None
    assert math.isnan(found.progress.metrics["loss"])


def test_a_trial_that_ends_without_a_word() -> None:
    assert report_of(None) is None
    assert report_of({}) is None
    assert report_of({"trial_id": "abc", "done": True}) is None


def test_correlations_reach_the_observation(tmp_path: Path) -> None:
    candidate = Candidate("c0000", Architecture("net", {"size": 1}), Fidelity(40), 0)
    with Journal.create_or_open(tmp_path, Header(1, PSNR)) as journal:
        journal.commit_candidates([candidate])
        conductor = Conductor(
            AskTell(Settled(), journal, trials=1),
            Halt(),
            trial_config=lambda candidate: {},
            listen=lambda event: None,
        )
        conductor.suggest("one")
        report = TrialReport("done", 1, NEWEST, correlations={"c0001": 0.5})
        conductor.on_trial_complete("one", flatten_dict(to_result(report)))
        (observation,) = journal.observations()
    assert observation.value == 31.5
    assert observation.metrics == {**NEWEST.metrics, f"{CORRELATION}c0001": 0.5}
