"""A search over real nodes that fail, as the experiment has it; needs root and iproute2."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "network_nodes.py"


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_over_nodes_that_fail_observes_every_candidate_or_is_refused() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("skipped"):
        pytest.skip(done.stdout.strip())
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [
        "nothing",
        "node killed",
        "link cut",
        "all nodes killed, one back after a minute",
        "storage missing on one worker",
    ]
    assert [row[1] for row in rows] == ["6 of 6"] * 4 + ["0 of 6"]
    assert all(0 < float(row[3]) < 200 for row in rows[1:4])
    assert re.match(r"error: node 10\.77\.0\.12: the run folder \S+ must be the driver's", rows[4][-1])
