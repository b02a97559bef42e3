"""Ray, started the safe way: seen from the kernel, from a stranger and from the dashboard."""

import importlib
import json
import os
import pickle
import re
import socket
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from gpnas.dispatch.cluster import _reason, asks_for_token, connected, token_file
from gpnas.errors import TrialError
from gpnas_trainers.checkpoint import TrainingError, read_checkpoint

pytestmark = pytest.mark.ray

psutil = importlib.import_module("psutil")  # Ray brings its own


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What a driver of its own sees: Ray is started once in a process."""
    run = tmp_path_factory.mktemp("run")
    script = """
import json, os, sys
import ray  # before anything of gpnas could say that it is to ask for a token
from pathlib import Path
os.environ |= {"AWS_SECRET_ACCESS_KEY": "s3cr3t", "HF_TOKEN": "s3cr3t"}
os.environ.pop("RAY_AUTH_MODE", None)
from gpnas.dispatch.cluster import connected
from ray.tune.execution.class_cache import _ActorClassCache
from gpnas.dispatch.trial import Trial
from gpnas.dispatch import preflight
from gpnas.run.storage import open_storage
run = Path(sys.argv[1])
def looked(*reading):
    try:
        preflight.preflight(open_storage(str(run)), reading)
    except preflight.TrialError as error:
        return str(error)
with connected(None, 1) as cluster:
    actor = _ActorClassCache().get(Trial)
    good = looked(run)
    preflight.LEAST_FREE = 10**18
    bad = looked(run, run / "missing")
    print(json.dumps({"run": str(run), "good": good, "bad": bad, "left": len(list(run.iterdir())),
        "url": cluster.dashboard, "token": cluster.token, "pid": os.getpid(),
        "address": cluster.address, "session": str(cluster.session),
        "environment": actor._default_options["runtime_env"]["env_vars"]}), flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    family = psutil.Process(told["pid"]).children(recursive=True)
    yield told
    process.communicate("", timeout=60)
    # nothing of it is left: no process, no socket, no log
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert not Path(told["session"]).exists()


DYING = """
import os, signal, sys, threading
from importlib import import_module
from gpnas.dispatch.cluster import StartError, connected
psutil = import_module("psutil")

def strike(name):
    while True:
        for each in psutil.Process().children(recursive=True):
            try:
                if each.name() == name and each.status() != psutil.STATUS_ZOMBIE:
                    os.kill(each.pid, signal.SIGKILL)
                    return
            except psutil.Error:
                continue

for name in sys.argv[1:]:
    threading.Thread(target=strike, args=(name,)).start()
    try:
        with connected(None, 1):
            pass
    except StartError as error:
        print(error)
    left = {each.name() for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE}
    assert not left & {"raylet", "gcs_server"}, left
with connected(None, 1) as cluster:
    print(cluster.cpus)
"""


@pytest.mark.parametrize("names", [["raylet"], pytest.param(["gcs_server"] * 2, marks=pytest.mark.slow)])
def test_a_process_of_ray_that_is_killed_while_ray_starts(names: list[str]) -> None:
    """It is told from a Ray that cannot start, nothing of it is left, and another one starts."""
    done = subprocess.run([sys.executable, "-c", DYING, *names], capture_output=True, text=True, timeout=400)
    said = "Ray must be reachable on this machine, but one of its processes has died while it was starting"
    assert done.stdout.splitlines() == [*[said] * len(names), "1.0"], done.stderr


def test_everything_listens_on_loopback_alone(cluster: dict[str, int]) -> None:
    family = [psutil.Process(cluster["pid"]), *psutil.Process(cluster["pid"]).children(recursive=True)]
    listening = {
        (each.name(), connection.laddr.ip)
        for each in family
        for connection in each.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) >= 4  # GCS, raylet, dashboard, its agent
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, listening


def test_the_dashboard_answers_to_the_token_alone(cluster: dict[str, str]) -> None:
    address = f"{cluster['url']}/api/v0/nodes"
    for header in ({}, {"Authorization": "Bearer " + 64 * "0"}):
        with pytest.raises(urllib.error.HTTPError, match=r"40[13]"):
            urllib.request.urlopen(urllib.request.Request(address, headers=header), timeout=10)
    token = Path(cluster["token"]).read_text().strip()
    right = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(right, timeout=10) as answer:
        assert json.load(answer)["result"] is True


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{port}", "localhost:{port}", "127.0.0.1:http", "none.invalid:6379"]
)
def test_a_head_that_does_not_answer_is_told_at_once(address: str) -> None:
    with socket.socket() as bound:  # to a port where nobody listens
        bound.bind(("", 0))
        address = address.format(port=bound.getsockname()[1])
        with (
            pytest.raises(
                TrialError, match=f"^Ray must be reachable at {address}, but .*ay start --head` tells"
            ),
            connected(address, 1),
        ):
            pass


def test_whoever_would_speak_tls_to_a_cluster_without_it_is_told(
    cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    said = "it does not speak TLS and RAY_USE_TLS is set; set RAY_USE_TLS and the variables"
    with pytest.raises(TrialError, match=said), connected(cluster["address"], 1, on_loopback=True):
        pass


def test_a_cluster_that_answers_everyone_is_told_from_one_that_does_not(cluster: dict[str, str]) -> None:
    class Open(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    assert asks_for_token(cluster["url"])
    with HTTPServer(("127.0.0.1", 0), Open) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert not asks_for_token(f"http://127.0.0.1:{server.server_port}")
        thread.join()


def test_no_secret_enters_an_actors_environment(cluster: dict[str, dict[str, str]]) -> None:
    assert "s3cr3t" not in cluster["environment"].values()
    assert "AWS_SECRET_ACCESS_KEY" not in cluster["environment"]


def test_a_real_node_is_looked_at_before_the_first_trial(cluster: dict[str, str]) -> None:
    """It lacks nothing; then a folder, and more room than any disk has. Nothing is left in the run folder."""
    run = cluster["run"]
    assert not cluster["good"]
    assert not cluster["left"]
    missing, disk = cluster["bad"].split("; node ")
    assert missing == (
        f"node 127.0.0.1: trials read {run}/missing, but it is not there; set GPNAS_CACHE to a folder that "
        "every node has"
    )
    said = rf"127\.0\.0\.1: 1e\+09 GB must be free in {run}, but [\d.]+ GB are; make room or choose .*"
    assert re.fullmatch(said, disk)


def test_a_token_is_made_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    before = os.umask(0)
    try:
        assert token_file() == path
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(path.read_text())) == 32
    path.chmod(0o644)  # as Ray makes it
    kept = path.read_text()
    token_file()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == kept


def test_a_checkpoint_that_someone_else_wrote_runs_nothing(tmp_path: Path) -> None:
    """The one pickle in a run folder is a checkpoint's; PyTorch reads tensors and plain values from it."""
    done = tmp_path / "done"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(done),))

    torch.save({"identity": {}, "network": Bomb()}, tmp_path / "checkpoint.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    for name in ("checkpoint.pt", "plain.pt"):
        with pytest.raises(TrainingError, match="a checkpoint must be whole"):
            read_checkpoint(tmp_path / name, {})
    assert not done.exists()


def test_what_kept_a_process_of_ray_from_starting_is_told() -> None:
    """Ray puts the end of a log beneath a line that names the log; the cause is its last line."""
    log = "The last 20 lines of dashboard.log (it contains the error message from the dashboard):"
    told = _reason(RuntimeError(f"{log}\n  File socket.py\nOSError: AF_UNIX path too long\n"))
    assert told == f"{log} OSError: AF_UNIX path too long"
    assert _reason(RuntimeError("no node\nanswers")) == "no node"
    assert _reason(TimeoutError()) == "TimeoutError"
