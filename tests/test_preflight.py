"""What is refused before the first trial: on real nodes where one can be had, else rule by rule."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpnas.dispatch.preflight import LEAST_FREE, Sight, complaints
from gpnas.dispatch.provenance import versions

RUN = Path("/shared/run")
GOOD = Sight("token", None, (), LEAST_FREE, versions(), None)

DRIVER = """
import sys, time
from pathlib import Path
from gpnas.dispatch.cluster import connected
from gpnas.dispatch import preflight
from gpnas.errors import GpnasError
run, reading = Path(sys.argv[1]), Path(sys.argv[2])
with connected(None, 1):
    preflight.preflight(run, [reading])
    print("good", sorted(path.name for path in run.iterdir()), flush=True)
    preflight.LEAST_FREE = 10**18
    try:
        preflight.preflight(run, [reading, reading / "missing"])
    except GpnasError as error:
        print(error)
    print(sorted(path.name for path in run.iterdir()))
"""


def said(sight: Sight, arrived: bool = True) -> list[str]:
    return complaints("node 10.0.0.7", sight, run=RUN, token="token", arrived=arrived, expected=versions())


def test_a_real_node_is_looked_at_and_left_clean(tmp_path: Path) -> None:
    run, reading = tmp_path / "run", tmp_path / "pairs"
    run.mkdir()
    reading.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(run), str(reading)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    good, missing, disk, left = done.stdout.splitlines()
    assert (good, left) == ("good []", "[]")
    assert missing == (
        f"node 127.0.0.1: trials read {reading}/missing, but it is not there; set GPNAS_CACHE to a folder "
        "that every node has"
    )
    assert re.fullmatch(
        rf"node 127\.0\.0\.1: 1e\+09 GB must be free in {run}, but [\d.]+ GB are; make room or choose "
        "another run folder",
        disk,
    )


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
