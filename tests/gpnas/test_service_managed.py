"""Searches that a service has Ray train: begun, stopped, gone on with, and never another's."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpnas.journal import Answer, Journal
from gpnas.service.managed import MARK, _is_ours
from gpnas.service.problems import Problem
from gpnas.service.requests import Requests
from tests.gpnas.searched import searched
from tests.gpnas.served import served
from tests.gpnas.test_service import problem

SPACE = """
scale: 2
families:
  drn: {features: [8], blocks: {low: 1, high: 2}, stages: [1]}
search: {trials: 2, concurrent: 1, portfolio: 1}
recipe: {steps: 4000, batch_size: 2, hr_patch: 48, evaluate_every: 100}
"""


def test_what_ray_cannot_train_is_refused_before_it_begins(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        begun: dict[str, Any] = {"id": "a", "kind": "managed"}
        unknown = {**begun, "space": "scale: 2\nfamilies: {mine: {width: [1, 2]}}\n"}
        assert "space:2" in problem(client.post("/v1/searches", json=unknown), 422)
        table = {**begun, "space": "scale: 2\nfamilies: {drn: {table: ../x.csv}}\n"}
        assert "no file" in problem(client.post("/v1/searches", json=table), 422)
        other = {**begun, "space": SPACE, "objective": {"name": "accuracy"}}
        assert "PSNR" in problem(client.post("/v1/searches", json=other), 422)
        assert not (tmp_path / "a").exists()


def test_a_driver_of_someone_else_is_not_ended(tmp_path: Path) -> None:
    searched(tmp_path / "driven", 2, setup={"recipe": {"steps": 1}})
    with Journal.read(tmp_path / "driven") as journal:
        header = journal.header
    with served(tmp_path) as client:
        assert client.post("/v1/searches/driven/stop").json() == {"stopped": True}
        assert "not begun here" in problem(client.post("/v1/searches/driven/go-on"), 409)
        with Journal.create_or_open(tmp_path / "driven", header):
            assert "only its owner ends" in problem(client.post("/v1/searches/driven/stop"), 409)
            assert "driven already" in problem(client.post("/v1/searches/driven/go-on"), 409)


def test_a_driver_is_known_by_its_environment(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    ours = subprocess.Popen(command, env={**os.environ, MARK: str(tmp_path)})
    other = subprocess.Popen(command)
    try:
        for _ in range(200):  # the environment is there once the program has begun
            if _is_ours(ours.pid, tmp_path):
                break
            time.sleep(0.02)
        assert _is_ours(ours.pid, tmp_path)
        assert not _is_ours(other.pid, tmp_path)
        assert not _is_ours(ours.pid, tmp_path / "other")
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_a_request_about_a_driver_is_done_once_also_where_the_service_died(tmp_path: Path) -> None:
    with served(tmp_path):
        pass  # makes its folder
    done: list[bool] = []

    def do(again: bool) -> Answer:
        done.append(again)
        return Answer("", 201, {"number": len(done)})

    def dies(again: bool) -> Answer:
        do(again)
        os._exit(1)

    if (child := os.fork()) == 0:
        Requests(tmp_path).once("key", {"a": 1}, dies)
    os.waitpid(child, 0)
    requests = Requests(tmp_path)
    answers = [requests.once("key", {"a": 1}, do) for _ in range(2)]
    assert done == [True]  # it may have been done by the one that died
    assert [each.body for each in answers] == [{"number": 1}] * 2
    with pytest.raises(Problem, match="came with another"):
        requests.once("key", {"a": 2}, do)

    def fails(again: bool) -> Answer:
        raise Problem(409, "not now")

    with pytest.raises(Problem, match="not now"):
        requests.once("other", {}, fails)
    assert requests.once("other", {}, do).body == {"number": 2}  # what was refused is no answer
    requests.close()


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_is_begun_stopped_and_gone_on_with(tmp_path: Path) -> None:
    def until(condition: Any) -> None:
        for _ in range(1_200):
            if condition():
                return
            time.sleep(0.25)
        raise AssertionError((tmp_path / "m" / "driver.log").read_text()[-2_000:])

    with served(tmp_path) as client:
        answer = client.post("/v1/searches", json={"id": "m", "kind": "managed", "space": SPACE})
        assert answer.status_code == 201, answer.text
        problem(client.post("/v1/searches", json={"id": "m", "kind": "managed", "space": SPACE}), 409)

        def state() -> dict[str, Any]:
            answer = client.get("/v1/searches/m")
            return answer.json() if answer.status_code == 200 else {"state": "", "counts": {}}

        until(lambda: state()["counts"].get("running") == 1)
        assert state()["kind"] == "managed"
        assert client.post("/v1/searches/m/stop").json() == {"stopped": True}
        until(lambda: state()["state"] == "interrupted")
        # its lock is free before Ray has ended
        until(lambda: client.post("/v1/searches/m/go-on").status_code == 200)
        until(lambda: state()["counts"].get("running") == 1)
        client.post("/v1/searches/m/stop")
        until(lambda: state()["state"] == "interrupted")
        with Journal.read(tmp_path / "m") as journal:
            assert len(journal.sessions()) == 2
        assert client.delete("/v1/searches/m").status_code == 204
