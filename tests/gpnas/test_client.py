"""The client and the worker, against a service that is a process of its own and dies on the way."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gpnas.cli import main
from gpnas.client import AsyncClient, Client, FinishedError, LeaseLostError, Lent, Point, RefusedError, Told
from gpnas.client.calls import pauses
from gpnas.errors import TrialError
from gpnas.journal import Journal
from gpnas.records import Architecture
from gpnas.worker import Job, Trial, load, work
from tests.gpnas.served import Service

SPACE = {
    "scale": 2,
    "families": {"net": {"width": {"low": 4, "high": 20, "step": 4}, "depth": {"low": 1, "high": 4}}},
}
TRAIN = """
import os, pathlib, time

def train(trial):
    width, depth = trial.axes["width"], trial.axes["depth"]
    (trial.folder / "checkpoint").write_text(str(depth))
    for step in range(1, 4):
        trial.report(step, width + depth + step / 10, errors=[[step, depth]], loss=1.0)
        while pathlib.Path("hold").exists():
            trial.report(step)
            time.sleep(0.02)
    if depth == 4:
        raise ValueError("depth\\nfour")
    return width + depth

def odd(trial):
    return {1: float("nan"), 2: "text", 3: None, 4: True}[trial.axes["depth"]]

def quits(trial):
    raise SystemExit(3)
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("runs"))
    service.start()
    yield service
    service.end()


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path / "train.py"


def lent(client: Client, search: str) -> Lent:
    for _ in range(600):
        found, pause = client.ask(search, "desk")
        if found:
            return found[0]
        assert pause >= 1
        time.sleep(0.05)
    raise AssertionError("nothing came")


def test_a_worker_trains_a_whole_search(service: Service, train: Path) -> None:
    lines: list[str] = []
    with service.client() as client:
        client.begin("whole", SPACE, trials=7, strategy="random")
        job = Job("whole", "desk", Path("work"))
        tally = work(client, job, load("train.py:train"), lines.append)
        told = client.look("whole", "status")["candidates"]
    assert tally.all == len(told) == 7
    for row in told:
        axes = row["architecture"]["axes"]
        assert row["value"] == (axes["width"] + axes["depth"] if axes["depth"] < 4 else None)
    assert tally.failed == sum(row["state"] == "failed" for row in told)
    with Journal.read(service.runs / "whole") as journal:
        for observation in journal.observations():
            if observation.failure:
                assert observation.failure is not None
                assert observation.failure.startswith(
                    "failed: train.py:13: ValueError: depth four; more in work/"
                )
        finished = next(each for each in journal.observations() if not each.failed)
        curve = journal.progress(finished.candidate.id)
    assert [(row.step, row.metrics) for row in curve] == [(step, {"loss": 1.0}) for step in (1, 2, 3)]
    assert any("nothing more to train" in line for line in lines)
    (kept,) = Path("work").rglob(f"{finished.candidate.id}/errors.npy")
    assert np.load(kept).tolist() == [[3, finished.candidate.architecture.axes["depth"]]]


def test_values_that_are_none_are_failures(service: Service, train: Path) -> None:
    with service.client() as client:
        client.begin("odd", SPACE, trials=20, strategy="random")
        work(client, Job("odd", "desk", Path("work")), load("train.py:odd"), lambda line: None)
    with Journal.read(service.runs / "odd") as journal:
        told = {each.candidate.architecture.axes["depth"]: each.failure for each in journal.observations()}
    rule = "train.py:16: what odd(trial) returns must be a finite number, but got"
    for depth, (kind, value) in {
        1: ("diverged", "nan"),
        2: ("failed", "'text'"),
        3: ("failed", "None"),
    }.items():
        assert str(told[depth]).startswith(f"{kind}: {rule} {value}")
    assert str(told[4]).startswith(f"failed: {rule} True")


BODIES = {
    1: ("import torch\n    return torch.tensor(1.0)", r"failed: train.py:4: what .* but is a Tensor"),
    2: ("sys.exit(3)", r"failed: train.py:6: it called sys.exit\(3\)"),
    3: ("os._exit(4)", r"failed: train.py: it ended its process with exit code 4"),
    4: ("if os.fork() == 0: time.sleep(99)\n    return None", r"failed: train.py:4: .* but got None"),
    5: ("while True: time.sleep(0.1)", r"failed: train.py:6: a training must end within --trial-hours"),
    6: ("bytearray(1 << 60)", r"out of memory: out of memory; a smaller batch fits"),
    7: ("os.kill(os.getpid(), 9)", r"failed: .* ended by signal 9, as at 2 attempts before"),
    8: (
        "print('heard by nobody')\n    raise ValueError('a\\nb')",
        r"failed: train.py:7: ValueError: a b; more",
    ),
}


@pytest.mark.parametrize("number", BODIES)
def test_whatever_a_training_does_the_worker_goes_on(
    service: Service, train: Path, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    body, told = BODIES[number]
    source = f"import os, sys, time\n\n\ndef bad(trial):\n    trial.report(1, 2.0)\n    {body}\n"
    train.write_text(source)
    name, arguments = (
        f"bad{number}",
        ["--train", "train.py:bad", "--json", "--trial-hours", "0.002" if number == 5 else "1"],
    )
    with service.client() as client:
        client.begin(name, SPACE, trials=1, strategy="random")
    os.environ["GPNAS_TOKEN"] = service.token
    try:
        assert main(["worker", service.url, "--search", name, *arguments]) == 0
    finally:
        del os.environ["GPNAS_TOKEN"]
    document = json.loads(capfd.readouterr().out)
    assert document["told"] == 0
    with Journal.read(service.runs / name) as journal:
        (observation,) = journal.observations()
    assert observation.failure is not None
    assert re.match(told, observation.failure), observation.failure
    log = Path("work", name, "c0000.log")
    assert number == 7 or str(log) in observation.failure
    assert "--- attempt 1" in log.read_text()


def test_a_training_with_other_arguments_is_a_failure_with_its_line(service: Service, train: Path) -> None:
    train.write_text("def train():\n    return 1\n")
    with service.client() as client:
        client.begin("arguments", SPACE, trials=1, strategy="random")
        tally = work(
            client, Job("arguments", "desk", Path("work")), load("train.py:train"), lambda line: None
        )
    assert tally.failed == 1
    with Journal.read(service.runs / "arguments") as journal:
        (observation,) = journal.observations()
    assert observation.failure is not None
    assert observation.failure.startswith("failed: train.py")


def test_a_worker_that_is_told_to_end_gives_its_candidate_back(service: Service, train: Path) -> None:
    (train.parent / "hold").write_text("")
    with service.client() as client:
        client.begin("ended", SPACE, trials=2, strategy="random")
        command = [sys.executable, "-m", "gpnas.cli", "worker", service.url, "--search", "ended"]
        process = subprocess.Popen(
            [*command, "--train", "train.py:train", "--json"],
            cwd=train.parent,
            env={**os.environ, "GPNAS_TOKEN": service.token},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(600):
            rows = client.look("ended", "status")["candidates"]
            if rows and rows[0]["value"] is not None:
                break
            time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 143
        assert "given back" in said
        assert service.token not in said
        again = lent(client, "ended")
    assert (again.candidate, again.attempt) == ("c0000", 2)
    assert again.checkpoint is not None
    assert (train.parent / again.checkpoint / "checkpoint").exists()


def test_a_search_that_is_stopped_ends_its_trainings(service: Service, train: Path) -> None:
    def training(trial: Trial) -> float:
        for step in range(1, 10_000):
            trial.report(step, float(step))
            if step == 2:
                client.look("halted")
                httpx.post(
                    f"{service.url}/v1/searches/halted/stop",
                    headers={"Authorization": f"Bearer {service.token}"},
                )
            time.sleep(0.01)
        return 0.0

    with service.client() as client:
        client.begin("halted", SPACE, trials=2, strategy="random")
        tally = work(client, Job("halted", "desk", Path("work")), training, lambda line: None)
        assert (tally.stopped, tally.all) == (1, 1)
        assert client.look("halted")["counts"] == {"pending": 1}


def test_what_dies_loses_nothing(service: Service) -> None:
    client = service.client()
    client.begin("dying", SPACE, trials=3, strategy="random")
    first, second = lent(client, "dying"), lent(client, "dying")
    assert client.tell(first.lease, Told(value=1.0))
    service.end(signal.SIGKILL)
    with pytest.raises(RefusedError, match="must be reached"), service.client(0.5) as hasty:
        hasty.look("dying")
    service.start()
    assert client.heartbeat(second.lease, [Point(1, 0.5)]).word == "continue"
    assert client.tell(second.lease, Told(value=2.0))
    with pytest.raises(LeaseLostError) as caught:
        client.tell(second.lease, Told(value=3.0))
    assert caught.value.counted is False
    assert client.tell(lent(client, "dying").lease, Told(failure="infeasible", reason="too wide"))
    with pytest.raises(FinishedError, match="nothing more to train"):
        client.ask("dying", "desk")
    rows = client.look("dying", "status")["candidates"]
    assert [row["value"] for row in rows] == [1.0, 2.0, None]
    kinds = [row["kind"] for row in client.journal("dying")]
    assert kinds.count("observation") == 3
    client.close()


def test_the_asynchronous_twin_does_the_same(service: Service) -> None:
    async def whole() -> tuple[list[Any], dict[str, Any]]:
        async with AsyncClient(service.url, service.token) as client:
            await client.begin("twin", SPACE, trials=2, strategy="random")
            done: list[bool] = []
            while len(done) < 2:
                found, _ = await client.ask("twin", "desk")
                for each in found:
                    assert not (await client.heartbeat(each.lease, [Point(1, 1.0)])).stop
                    done.append(await client.tell(each.lease, Told(value=1.0)))
                await asyncio.sleep(0.05)
            with pytest.raises(RefusedError, match="space") as caught:
                await client.veto("twin", Architecture("net", {"width": 5, "depth": 1}))
            assert caught.value.status == 422
            await client.veto("twin", Architecture("net", {"width": 4, "depth": 1}))
            rows = [row async for row in client.journal("twin")]
            assert "vetoed" in json.dumps(rows)
            return done, await client.look("twin")

    done, told = asyncio.run(whole())
    assert done == [True, True]
    assert told["counts"] == {"observed": 2}


def test_tls_is_spoken_and_a_stranger_is_not_trusted(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl, which makes a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(
                openssl,
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    service = Service(tmp_path / "runs", "--certificate", str(certificate), "--key", str(key))
    service.start()
    try:
        url = f"https://localhost:{service.port}"
        with Client(url, service.token, certificates=str(certificate)) as client:
            assert client.searches() == []
        with Client(url, service.token, patience=0.1) as client, pytest.raises(RefusedError, match="CERT"):
            client.searches()
        plain = f"http://localhost:{service.port}"
        with Client(plain, service.token, patience=0.1) as client, pytest.raises(RefusedError):
            client.searches()
    finally:
        service.end()


def test_a_request_is_sent_again_under_its_key() -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("lost")
        if len(keys) == 2:
            return httpx.Response(503, headers={"Retry-After": "0"})
        return httpx.Response(200, json={"candidate": "c0000", "counted": True})

    with Client("http://localhost", "token", transport=httpx.MockTransport(answer)) as client:
        assert client.tell("s:1", Told(value=1.0))
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_service_that_is_not_there_is_told_once_and_no_url_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url, lines = f"http://127.0.0.1:{port}", list[str]()
    unreached = pytest.raises(RefusedError, match=r"must be reached, but .*refused; look")
    with Client(url, "token", patience=0.6, say=lines.append) as client, unreached:
        client.searches()
    (line,) = lines
    assert line.startswith(f"{url}: no service answers (")
    for wrong in ("127.0.0.1:8750", "localhost", "ftp://host", "http://", "http://host:port"):
        with pytest.raises(RefusedError, match="a service must have a whole URL"):
            Client(wrong, "token")


def test_pauses_double_up_to_the_patience() -> None:
    waits = list(pauses(100.0))
    assert sum(waits[:-1]) < 100.0 <= sum(waits)
    for number, wait in enumerate(waits):
        assert min(0.25 * 2**number, 30.0) * 0.74 < wait < min(0.25 * 2**number, 30.0) * 1.26
    assert list(pauses(0.0)) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train", "train.py:train"),
        ("train.py:none", "train.py: must have a class or function `none`"),
        ("none.py:train", "none.py: a trainer's file must be readable"),
        ("math:pi", "must be a module in Python"),
    ],
)
def test_what_is_no_training_is_told(train: Path, name: str, words: str) -> None:
    with pytest.raises(TrialError, match=re.escape(words)):
        load(name)
