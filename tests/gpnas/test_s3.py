"""A search whose artefacts lie in S3, against moto's server: killed, resumed, delivered; no secret told."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from gpnas.bundle import read_bundle
from gpnas.journal import Journal
from gpnas.run.storage import open_storage
from tests.gpnas.driven import driver, ended, finished, states, until

pytestmark = pytest.mark.ray

SPACE = """\
scale: 2
families:
  drn: {features: [4, 6], blocks: [1, 2], stages: 1}
search: {trials: 4, concurrent: 2, validation_images: 1, early_stopping: false, portfolio: 2}
recipe: {steps: 60, batch_size: 4, hr_patch: 48, evaluate_every: 20, warmup_steps: 5}
"""
SECRET = "hunter2hunter2hunter2"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a bucket on a server of this test's own."""
    pytest.importorskip("moto", reason="moto, the S3 server of the tests, is not installed")
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p0", "-H127.0.0.1"], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    lines: list[str] = []
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", "".join(lines))):
            lines.append(server.stderr.readline())
            assert lines[-1], "".join(lines)
        port = found[1]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"s3://bucket/run?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_a_search_in_s3_is_delivered(address: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE.replace("steps: 60", "steps: 20"))
    run = tmp_path / "run"
    command = ["search", "--space", str(tmp_path / "space.yaml"), "--run", str(run), "--storage", address]
    code, out, err = ended([*command, "--trials", "1", "--concurrent", "1", "--json"])
    assert code == 0, err
    assert len(read_bundle(Path(json.loads(out)["bundle"])).members) == 1
    assert not (run / "candidates").exists()
    found = open_storage(address).names("candidates")
    assert {f"candidates/c0000/{name}.safetensors" for name in ("network", "errors")} <= set(found)
    assert SECRET not in out + err
    assert not any(SECRET.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_search_in_s3_is_killed_resumed_and_delivered(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "space.yaml").write_text(SPACE)
    run = tmp_path / "run"
    command = ["search", "--space", str(tmp_path / "space.yaml"), "--run", str(run), "--json"]
    process = driver([*command, "--storage", address])
    until(process, lambda: {"observed", "running"} <= {*states(run)})
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    code, out, err = ended(command)  # the storage stands in the journal
    assert code == 0, err
    document = json.loads(out)
    assert document["trials"] == {"observed": 4, "failed": 0, "stopped": 0}
    assert len(read_bundle(Path(document["bundle"])).members) in (1, 2)  # at most two, where they help
    assert not (run / "candidates").exists()
    with Journal.read(run) as journal:
        assert journal.header.storage == address
        names = [candidate.id for candidate in journal.candidates()]
        observations = journal.observations()
    storage = open_storage(address)
    found = storage.names("candidates")
    for name in names:
        assert f"candidates/{name}/network.safetensors" in found
        assert f"candidates/{name}/errors.safetensors" in found
    # the copy of the journal serves where the driver's disk is lost
    again = [*command[:3], "--run", str(tmp_path / "other"), "--storage", address, "--json"]
    code, out, err_again = ended(again)
    assert code == 0, err_again
    assert "going on from its copy" in err_again
    assert json.loads(out)["ranking"] == document["ranking"]
    with Journal.read(tmp_path / "other") as journal:
        assert journal.observations() == observations
    # so may a final training, warm-started from there; what cannot be there is refused
    train = ["train", str(run), "--storage", address.replace("run?", "final?"), "--steps", "4"]
    code, _, refused = ended([*train, "--tensorboard"])
    assert code == 1
    assert "--tensorboard writes files that grow, which s3://bucket/final?" in refused
    code, out, err_train = ended([*train, "--json"])
    assert code == 0, err_train
    trained = json.loads(out)
    bundle = read_bundle(Path(trained["bundle"]))
    final = open_storage(address.replace("run?", "final?"))
    for row in trained["ranking"]:
        found = final.names(f"candidates/{row['id']}")
        assert {path.rpartition("/")[2] for path in found} >= {"network.safetensors", "initial.safetensors"}
    assert final.exists("journal.sqlite")
    assert len(bundle.members) in (1, 2)
    assert not (run / "final/candidates").exists()
    # nothing tells the secret: what the search wrote, said, or had Ray write
    assert SECRET not in err + err_again + err_train
    told = [path for root in (run, *_sessions(process.pid, os.getpid())) for path in root.rglob("*")]
    assert any("runtime_env" in path.name for path in told)
    for path in told:
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


OWN = """\
import os, signal, time

from gpnas.run.storage import open_storage


def copies():
    names = open_storage(os.environ["TESTED_STORAGE"]).names("candidates")
    return sum(name.endswith("/own.tar") for name in names)


def train(trial):
    kept = trial.folder / "model" / "step.txt"
    begun = int(kept.read_text()) if kept.exists() else 0
    print("begun at", begun, "in", trial.folder)
    kept.parent.mkdir(exist_ok=True)
    before = copies()
    for step in range(begun + 1, 4):
        kept.write_text(str(step))
        trial.report(step, 10.0 * step, errors=[[1.0, trial.axes["size"]]])
        if trial.axes["size"] == 2 and not begun:
            while copies() == before:
                time.sleep(0.1)
            os.kill(os.getppid(), signal.SIGKILL)  # its worker, and with it this process
            time.sleep(600)
    return begun + trial.axes["size"]
"""
OWN_SPACE = """\
trainer: train.py:train
families: {net: {size: [1, 2]}}
search: {trials: 2, concurrent: 1, early_stopping: false}
"""


@pytest.fixture
def local() -> Iterator[Path]:
    """What nodes have for a while, under a name that is short enough for sockets in it."""
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_the_folder_of_a_training_of_ones_own_outlives_its_worker_in_s3(
    address: str, tmp_path: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setenv("TMPDIR", str(local))
    monkeypatch.setenv("TESTED_STORAGE", address)
    (tmp_path / "train.py").write_text(OWN)
    (tmp_path / "space.yaml").write_text(OWN_SPACE)
    run = tmp_path / "run"
    command = ["search", "--space", str(tmp_path / "space.yaml"), "--run", str(run), "--storage", address]
    document = finished([*command, "--json"])
    found = {row["architecture"]["axes"]["size"]: row for row in document["ranking"]}
    assert (found[1]["value"], found[2]["value"]) == (1.0, 3.0)  # the killed one went on after step 1
    killed = f"candidates/{found[2]['id']}"
    storage = open_storage(address)
    log = storage.read(f"{killed}/trial.log").decode()
    places = re.findall(r"begun at (\d) in (\S+)", log)
    assert [begun for begun, _ in places] == ["0", "1"]
    assert places[0][1] != places[1][1]
    assert all(place.startswith(str(local)) for _, place in places)
    assert f"the folder is that of {killed}/attempt-1/own.tar" in log
    assert not list(local.rglob("step.txt"))  # nothing is left on the node
    assert not (run / "candidates").exists()
    with storage.reading(f"{killed}/errors.npy") as path:
        assert np.load(path).tolist() == [[1.0, 2.0]]
    together = finished(["portfolio", str(run), "--json"])
    assert together["correlation"]["matrix"][0][1] == pytest.approx(3 / math.sqrt(2 * 5))


def test_a_training_of_ones_own_is_not_begun_where_its_folder_cannot_be_kept(
    address: str, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("def train(trial):\n    return 1\n")
    (tmp_path / "space.yaml").write_text(OWN_SPACE)
    storage = address.replace("bucket", "nowhere")
    command = ["search", "--space", str(tmp_path / "space.yaml"), "--run", str(tmp_path / "run")]
    code, _, err = ended([*command, "--storage", storage])
    assert code == 1
    assert "a run's storage must be readable and writable" in err
    assert len(err.splitlines()) == 1


def _sessions(*drivers: int) -> list[Path]:
    """Ray's folders of these drivers, logs included."""
    found = [*Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray").glob("session_2*")]
    return [path for path in found if path.name.rpartition("_")[2] in {str(driver) for driver in drivers}]
