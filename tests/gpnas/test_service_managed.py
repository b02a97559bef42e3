"""Searches that a service has Ray train: begun, stopped, gone on with, and never another's."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gpnas.journal import Answer, Journal
from gpnas.service.drivers import MARK, is_ours
from gpnas.service.folder import Runs
from gpnas.service.managed import Managed, Managing
from gpnas.service.problems import Problem
from gpnas.service.requests import Requests
from gpnas_trainers.own import read_code
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
            if is_ours(ours.pid, tmp_path):
                break
            time.sleep(0.02)
        assert is_ours(ours.pid, tmp_path)
        assert not is_ours(other.pid, tmp_path)
        assert not is_ours(ours.pid, tmp_path / "other")
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


OWN = """
scale: 2
trainer: {trainer}
objective: {{name: score}}
families:
  mlp: {{width: {{low: 1, high: 40}}}}
search: {{trials: 8, concurrent: 2, early_stopping: false, strategy: random}}
recipe: {{steps: 1}}
"""
TRAINER = """
import time
def train(trial):
    time.sleep(1.5)
    return float(trial.axes["width"])
"""


def test_a_trainer_is_a_file_that_the_folder_of_trainers_lists(tmp_path: Path) -> None:
    """Neither a path, nor a link, nor a module of a package, whatever its name looks like."""
    folder = tmp_path / "trainers"
    folder.mkdir()
    (tmp_path / "outside.py").write_text(TRAINER)
    (folder / "own.py").write_text(TRAINER)
    (folder / "link.py").symlink_to(tmp_path / "outside.py")
    (folder / "folder.py").mkdir()
    names = ("../outside.py", f"{tmp_path}/outside.py", "link.py", "folder.py", "other.py", "os", "./own.py")
    begun = [{"id": "a", "kind": "managed", "space": OWN.format(trainer=f"{name}:train")} for name in names]
    runs = tmp_path / "runs"
    runs.mkdir()
    with served(runs, managing=Managing(trainers=folder)) as client:
        for each in begun:
            assert "the service allows, own.py" in problem(client.post("/v1/searches", json=each), 422)
        nested = OWN.format(trainer="own.py:train") + "trainers: [{trainer: 1}]\n"
        problem(client.post("/v1/searches", json={**begun[0], "space": nested}), 422)
        external = {**begun[0], "kind": "external", "space": OWN.format(trainer="own.py:train")}
        assert "no code" in problem(client.post("/v1/searches", json=external), 422)
    with served(runs) as client:
        own = {**begun[0], "space": OWN.format(trainer="own.py:train")}
        assert "--trainers" in problem(client.post("/v1/searches", json=own), 422)
    with served(runs, "work", managing=Managing(trainers=folder)) as client:
        problem(client.post("/v1/searches", json=own), 403)
    assert not (runs / "a").exists()


class Idle:
    """Drivers that are never begun."""

    def start(self, name: str, command: Sequence[str], log: Path, variables: Mapping[str, str]) -> None: ...

    def runs(self, name: str) -> bool:
        return False

    def stop(self, name: str, pid: int) -> bool:
        return False


def test_a_trainer_brings_what_it_imports_from_beside_it(tmp_path: Path) -> None:
    """The same text and the same files that `gpnas search` sends to its workers."""
    folder, runs = tmp_path / "trainers", tmp_path / "runs"
    (folder / "parts").mkdir(parents=True)
    runs.mkdir()
    (folder / "own.py").write_text(f"import helper\n{TRAINER}")
    (folder / "helper.py").write_text("from parts.inner import WIDTH\n")
    (folder / "parts/inner.py").write_text("WIDTH = 3\n")
    (folder / "other.py").write_text("raise AssertionError\n")
    managed = Managed(Runs(runs), Idle(), folder)
    managed.begin("a", OWN.format(trainer="own.py:train"), {}, trainer="own.py")
    assert read_code("own.py:train", runs / "a") == read_code("own.py:train", folder)
    found = {path.relative_to(runs / "a").as_posix() for path in (runs / "a").rglob("*.py")}
    assert found == {"own.py", "helper.py", "parts/inner.py"}
    (tmp_path / "secret.py").write_text("TOKEN = 1\n")
    (folder / "helper.py").unlink()
    (folder / "helper.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(Problem, match=r"helper\.py leads out of it"):
        managed.begin("b", OWN.format(trainer="own.py:train"), {}, trainer="own.py")
    (folder / "helper.py").unlink()
    for number in range(33):
        (folder / f"helper{number}.py").write_text("")
    (folder / "own.py").write_text("".join(f"import helper{number}\n" for number in range(33)) + TRAINER)
    with pytest.raises(Problem, match="at most 32 files"):
        managed.begin("b", OWN.format(trainer="own.py:train"), {}, trainer="own.py")
    assert not (runs / "b").exists()


def until(condition: Any, runs: Path) -> None:
    for _ in range(1_200):
        if condition():
            return
        time.sleep(0.25)
    raise AssertionError([path.read_text()[-2_000:] for path in runs.glob("*/driver.log")])


def end_ray(runs: Path) -> None:
    """Ends the Ray that drivers shared, for which nobody waits."""
    place = json.loads((runs / ".service/ray/ray.json").read_text())
    os.kill(place["pid"], signal.SIGTERM)


def most_at_once(*runs: Path) -> int:
    """Most attempts that were under way at one time."""
    steps = []
    for run in runs:
        with Journal.read(run) as journal:
            for each in journal.attempts():
                assert each.ended is not None
                steps += [(each.started, 1), (each.ended, -1)]
    count = most = 0
    for _, step in sorted(steps):
        count += step
        most = max(most, count)
    return most


@pytest.mark.slow
@pytest.mark.ray
def test_two_searches_by_trainers_share_one_ray(tmp_path: Path) -> None:
    """Neither waits for the other's end, and together they run no more trials than there are cores."""
    folder, runs = tmp_path / "trainers", tmp_path / "runs"
    folder.mkdir()
    (folder / "own.py").write_text(f"import beside\n{TRAINER}".replace("1.5", "beside.SECONDS"))
    (folder / "beside.py").write_text("SECONDS = 1.5\n")
    with served(runs, managing=Managing(trainers=folder)) as client:
        for number, name in enumerate("ab"):
            space = {"space": OWN.format(trainer="own.py:train"), "seed": number}
            answer = client.post("/v1/searches", json={"id": name, "kind": "managed", **space})
            assert answer.status_code == 201, answer.text

        def state(name: str) -> str:
            answer = client.get(f"/v1/searches/{name}")
            return str(answer.json()["state"]) if answer.status_code == 200 else ""

        until(lambda: {state("a"), state("b")} == {"finished"}, runs)
        assert client.get("/v1/searches/a").json()["kind"] == "managed"
        assert "of its own" in problem(client.post("/v1/searches/a/ask", json={"worker": "w"}), 409)
        assert most_at_once(runs / "a", runs / "b") <= (os.cpu_count() or 1)
        with Journal.read(runs / "a") as one, Journal.read(runs / "b") as other:
            assert [len(each.observations()) for each in (one, other)] == [8, 8]
            starts = [min(row.started for row in each.attempts()) for each in (one, other)]
            ends = [max(row.ended or "" for row in each.attempts()) for each in (one, other)]
        assert max(starts) < min(ends)
        for name in "ab":
            until(lambda name=name: client.delete(f"/v1/searches/{name}").status_code == 204, runs)
    end_ray(runs)


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_as_a_job_of_a_cluster(tmp_path: Path) -> None:
    folder, runs, ended = tmp_path / "trainers", tmp_path / "runs", tmp_path / "ended"
    folder.mkdir()
    (folder / "own.py").write_text(TRAINER)
    head = (
        "import sys, time; from pathlib import Path\n"
        "from gpnas.dispatch.cluster import connected\n"
        "with connected(None, 2) as cluster:\n"
        "    print(cluster.dashboard, flush=True)\n"
        "    while not Path(sys.argv[1]).exists(): time.sleep(0.2)\n"
    )
    ray = subprocess.Popen(
        [sys.executable, "-c", head, str(ended)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert ray.stdout is not None
        dashboard = ray.stdout.readline().strip()
        with served(runs, managing=Managing(dashboard, folder)) as client:
            space = OWN.format(trainer="own.py:train")
            asked = {"id": "a", "kind": "managed", "space": space}
            # a cluster that has just begun has no agent that takes jobs
            until(lambda: client.post("/v1/searches", json=asked).status_code == 201, runs)

            def summary() -> dict[str, Any]:
                answer = client.get("/v1/searches/a")
                return answer.json() if answer.status_code == 200 else {"state": "", "counts": {}}

            until(lambda: summary()["counts"].get("observed", 0) >= 1, runs)
            assert client.post("/v1/searches/a/stop").json() == {"stopped": True}
            until(lambda: summary()["state"] == "interrupted", runs)
            until(lambda: client.post("/v1/searches/a/extend", json={"trials": 9}).status_code == 200, runs)
            until(lambda: summary()["state"] == "finished", runs)
            assert summary()["counts"] == {"observed": 9}
            until(lambda: client.delete("/v1/searches/a").status_code == 204, runs)
    finally:
        ended.touch()
        ray.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_is_begun_stopped_and_gone_on_with(tmp_path: Path) -> None:
    with served(tmp_path) as client:
        answer = client.post("/v1/searches", json={"id": "m", "kind": "managed", "space": SPACE})
        assert answer.status_code == 201, answer.text
        problem(client.post("/v1/searches", json={"id": "m", "kind": "managed", "space": SPACE}), 409)

        def state() -> dict[str, Any]:
            answer = client.get("/v1/searches/m")
            return answer.json() if answer.status_code == 200 else {"state": "", "counts": {}}

        until(lambda: state()["counts"].get("running") == 1, tmp_path)
        assert state()["kind"] == "managed"
        assert client.post("/v1/searches/m/stop").json() == {"stopped": True}
        until(lambda: state()["state"] == "interrupted", tmp_path)
        # its lock is free before Ray has ended
        until(lambda: client.post("/v1/searches/m/go-on").status_code == 200, tmp_path)
        until(lambda: state()["counts"].get("running") == 1, tmp_path)
        client.post("/v1/searches/m/stop")
        until(lambda: state()["state"] == "interrupted", tmp_path)
        with Journal.read(tmp_path / "m") as journal:
            assert len(journal.sessions()) == 2
        until(lambda: client.delete("/v1/searches/m").status_code == 204, tmp_path)
    end_ray(tmp_path)
