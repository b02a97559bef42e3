"""Whatever is killed, nothing is lost: a short campaign against real processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def test_kills_at_random_lose_nothing_and_change_nothing() -> None:
    """Driver, worker and raylet are killed; the truth is a search that nobody killed."""
    options = ["--json", "--kills", "3", "--trials", "2", "--steps", "300", "--seed", "8"]
    script = [sys.executable, str(EXPERIMENTS / "kill_campaign.py"), *options]
    done = subprocess.run(script, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert set(told["kills"]) == {"driver", "worker", "raylet"}
    assert sum(told["kills"].values()) == 3
    assert told["starts"] == 1 + told["kills"]["driver"]  # the same command survives the others
    assert told["lost"] == told["duplicated"] == told["hung"] == 0
    assert told["equal"]
    assert told["attempts"] <= 2 + 3
    assert max(told["repeated_seconds"]) <= told["interval"] + 1.0  # and what a loaded machine adds
