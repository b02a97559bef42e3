"""What is refused before the first trial, rule by rule; `test_cluster` looks at a real node."""

from dataclasses import replace
from pathlib import Path

import pytest

from gpnas.dispatch.preflight import LEAST_FREE, Sight, complaints
from gpnas.run.provenance import versions

RUN = Path("/shared/run")
GOOD = Sight("token", None, (), LEAST_FREE, versions(), None)


def said(sight: Sight, arrived: bool = True) -> list[str]:
    return complaints("node 10.0.0.7", sight, run=RUN, token="token", arrived=arrived, expected=versions())


def test_a_node_that_lacks_nothing_is_taken() -> None:
    assert said(GOOD) == []


@pytest.mark.parametrize(
    ("sight", "arrived", "line"),
    [
        (replace(GOOD, marker=None), True, "its marker is missing: there is none; mount the same storage"),
        (replace(GOOD, marker="other"), True, "its marker is missing: another one lies there; mount"),
        (replace(GOOD, written="Permission denied"), False, "must be able to write to /shared/run, but Perm"),
        (GOOD, False, "what it writes to /shared/run must reach the driver, but did not; mount"),
        (replace(GOOD, free=LEAST_FREE - 10**8), True, "1 GB must be free in /shared/run, but 0.90 GB are;"),
        (
            replace(GOOD, versions={**versions(), "torch": "2.1.0"}),
            True,
            f"torch must be {versions()['torch']} as on the driver, but is 2.1.0; install the same on every",
        ),
        (
            replace(GOOD, versions={**versions(), "gpnas": "not installed"}),
            True,
            f"gpnas must be {versions()['gpnas']} as on the driver, but is not installed; install the same",
        ),
        (replace(GOOD, gpus=0), True, "it offers GPUs to Ray, but PyTorch there sees none; install PyTorch"),
    ],
)
def test_each_refusal_is_a_line_that_names_node_rule_value_and_remedy(
    sight: Sight, arrived: bool, line: str
) -> None:
    (found,) = said(sight, arrived)
    assert found.startswith("node 10.0.0.7: ")
    assert line in found
    assert "\n" not in found
