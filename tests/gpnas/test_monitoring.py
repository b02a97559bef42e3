"""What Ray's dashboard and Prometheus are told of a search, on real Ray."""

import ast
import os
import re
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from prometheus_client.parser import text_string_to_metric_families
from ray.util.state import list_actors

from gpnas import Architecture, Candidate, Engine, Fidelity, Observation, SearchSpace
from gpnas.dispatch.cluster import Cluster, connected
from gpnas.dispatch.metrics import METRICS
from gpnas.dispatch.monitoring import ACTOR, Monitor, monitored, namespace
from gpnas.journal import Header, Journal, status
from gpnas.records import Progress
from gpnas.run.setup import PSNR
from gpnas.space import Family, IntegerAxis

pytestmark = pytest.mark.ray

SPACE = SearchSpace([Family("net", (IntegerAxis("size", tuple(range(1, 31))),))])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        with connected(None, 1) as cluster:
            started = [each.process for all in _node().all_processes.values() for each in all]
            yield cluster
        for process in started:
            process.wait(timeout=60)  # Ray leaves that to chance


def _node() -> Any:
    return ray._private.worker._global_node


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Five candidates: two observed, one failed, one running, one that nothing is known of."""
    with Journal.create_or_open(tmp_path / "sizes", Header(12, PSNR)) as journal:
        candidates = [
            Candidate(f"c{n:04d}", Architecture("net", {"size": 3 * n + 1}), Fidelity(100), n)
            for n in range(5)
        ]
        journal.commit_candidates(candidates)
        for candidate, value in zip(candidates, (31.25, 33.5, None), strict=False):
            journal.start_attempt(candidate.id)
            failure = None if value else "out of memory; a smaller batch fits"
            journal.commit_observation(Observation(candidate, value, failure, 5.0))
        number = journal.start_attempt("c0003")
        for step in (20, 40):
            progress = Progress(number, step, 30.0, {"ssim": 0.9, "loss": 0.1}, step * 0.125)
            journal.record_progress("c0003", progress)
        yield journal


def scraped(run: str) -> dict[tuple[str, str | None], float]:
    """Every metric of a run on the nodes' Prometheus endpoints, by name and own tag."""
    found = {}
    for node in ray.nodes():
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address, timeout=5) as answer:
            page = answer.read().decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.labels.get("Run") == run:
                    found[sample.name, sample.labels.get("State")] = sample.value
    return found


def test_prometheus_is_told_what_the_journal_says(cluster: Cluster, journal: Journal, tmp_path: Path) -> None:
    run = tmp_path / "sizes"
    Monitor(run, 12, lambda: 0.375).look()
    expected = {
        ("ray_gpnas_best_psnr", None): 33.5,
        ("ray_gpnas_trials", "observed"): 2,
        ("ray_gpnas_trials", "failed"): 1,
        ("ray_gpnas_trials", "stopped"): 0,
        ("ray_gpnas_trials", "running"): 1,
        ("ray_gpnas_trials", "pending"): 1,
        ("ray_gpnas_trials_left", None): 7,
        ("ray_gpnas_uncertainty_left", None): 0.375,
        ("ray_gpnas_seconds_per_step", None): 0.125,
    }
    names = {name for name, _ in expected} | {"ray_gpnas_gpu_memory_bytes"}  # where there is a GPU
    assert names == {f"ray_{name}" for name in METRICS}
    deadline = time.monotonic() + 60
    while scraped("sizes") != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert scraped("sizes") == expected


def test_an_actor_holds_the_document_of_gpnas_status(
    cluster: Cluster, journal: Journal, tmp_path: Path
) -> None:
    run = tmp_path / "sizes"
    with monitored(run, 12, lambda: None):
        document = wait_for_document(run, {})
        assert document == status(run)
        candidate = journal.candidates()[3]
        journal.commit_observation(Observation(candidate, 34.0, None, 12.5))
        assert wait_for_document(run, document) == status(run)
        address = ray.get_runtime_context().gcs_address  # there may be other Rays on this machine
        resources = list_actors(address, filters=[("name", "=", ACTOR)], detail=True)
        assert [row.required_resources for row in resources if str(tmp_path) in row.ray_namespace] == [{}]


def wait_for_document(run: Path, before: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            actor = ray.get_actor(ACTOR, namespace=namespace(run))
        except ValueError:  # the thread has not started it yet
            time.sleep(0.1)
            continue
        document: dict[str, Any] = ray.get(actor.document.remote())
        if document != before:
            return document
        time.sleep(0.1)
    raise AssertionError("nothing new was told in a minute")


def test_another_program_reads_the_document_as_the_documentation_has_it(
    cluster: Cluster, journal: Journal
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
    (snippet,) = re.findall(r"```python\n(  import ray\n.*?)```", text, re.DOTALL)
    (variable,) = re.findall(r"`(RAY_\w+=0)`, too", text)
    snippet = textwrap.dedent(snippet).replace("ADDRESS", cluster.address)
    snippet, count = re.subn(r'(?<=namespace=")[^"]*', namespace(journal.run), snippet)
    assert count == 1
    name, value = variable.split("=")
    environment = os.environ | {"RAY_AUTH_MODE": "token", name: value}
    monitor = Monitor(journal.run, 12, lambda: None)  # its actor lives as long as it does
    monitor.look()
    done = subprocess.run(
        [sys.executable, "-c", snippet], env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == status(journal.run)


def test_nothing_that_goes_wrong_in_watching_ends_a_search(tmp_path: Path) -> None:
    with monitored(tmp_path / "nowhere", 12, lambda: None):
        time.sleep(0.2)


def test_uncertainty_left_is_that_of_the_best_untrained() -> None:
    """It is that of brute force over the posterior of the whole space; and it costs no fit."""
    engine = Engine(SPACE, seed=3, trials=8)
    for candidate in engine.suggest(5):
        size = candidate.architecture.axes["size"]
        assert isinstance(size, int)
        engine.observe(Observation(candidate, 30 + size / 10, None, 1.0))
    assert engine.uncertainty() is None
    mean, stddev = engine.belief().mean, engine.belief().stddev
    taken = {SPACE.index(row.architecture) for row in engine.recommend()}
    free = [index for index in range(len(SPACE)) if index not in taken]
    best = sorted(free, key=lambda index: -float(mean[index]))[:10]
    assert engine.uncertainty() == pytest.approx(float(stddev[torch.tensor(best)].mean()), rel=1e-9)
