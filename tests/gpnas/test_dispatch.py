"""The main job on real Ray, with real photographs: started, killed, resumed, finished."""

import json
import os
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from gpnas.bundle import read_bundle
from gpnas.ensemble import load_networks
from gpnas.evaluation import evaluate, evaluation_pairs
from gpnas.journal import Journal, status
from gpnas.records import Source
from gpnas.results.recall import explain_search
from gpnas_trainers.train import evaluate as evaluate_network
from tests.gpnas.driven import driver, ended, finished, states, until

pytestmark = pytest.mark.ray

SPACE = """\
scale: 2
families:
  drn:
    features: [4, 6, 8]
    blocks: [1, 2]
    stages: 1
search: {trials: 5, concurrent: 2, validation_images: 1, early_stopping: false}
recipe: {steps: 40, batch_size: 4, hr_patch: 48, evaluate_every: 20, warmup_steps: 5}
"""


@pytest.fixture(scope="module")
def home(home: Path) -> Path:
    (home / "space.yaml").write_text(SPACE)
    return home


def search(home: Path, run: str, *options: str) -> list[str]:
    return ["search", "--space", str(home / "space.yaml"), "--run", str(home / run), "--json", *options]


def training(run: Path, observed: int) -> bool:
    """Whether so many candidates are observed and one more is being trained."""
    each = states(run)
    return each.count("observed") >= observed and "running" in each


@pytest.fixture(scope="module")
def killed(home: Path) -> dict[str, Any]:
    """A search whose workers are killed, then its driver, and that is then finished."""
    run = home / "killed"
    process = driver(search(home, "killed"))
    until(process, partial(training, run, 1))
    kill_workers(process)
    until(process, partial(training, run, 2))
    process.kill()
    out, _ = process.communicate(timeout=60)
    assert out == ""
    assert status(run)["state"] == "interrupted"
    with Journal.read(run) as journal:
        before = journal.observations()
    document = finished(search(home, "killed"))
    with Journal.read(run) as journal:
        assert journal.observations()[: len(before)] == before
    return document


def kill_workers(driver: subprocess.Popen[str]) -> None:
    """Kills the processes of Ray in which a driver's trials run."""
    find = ["pgrep", "--session", str(driver.pid), "-f", "ray::(ResourceTrainable|c[0-9])"]
    trials: list[str] = []

    def begun() -> bool:
        trials[:] = subprocess.run(find, capture_output=True, text=True).stdout.split()
        return bool(trials)

    until(driver, begun)
    for pid in trials:
        os.kill(int(pid), signal.SIGKILL)


def test_a_killed_search_is_finished_by_the_same_command(home: Path, killed: dict[str, Any]) -> None:
    """Nothing earned is lost or repeated: one observation per candidate, no step trained twice over."""
    run = home / "killed"
    assert killed["trials"] == {"observed": 5, "failed": 0, "stopped": 0}
    report = status(run)
    assert report["state"] == "finished"
    assert [row["state"] for row in report["candidates"]] == ["observed"] * 5
    with Journal.read(run) as journal:
        new = [c.architecture for c in journal.candidates() if not c.decision.get("replicate")]
        assert len(set(new)) == len(new)
        for candidate in journal.candidates():
            attempts = journal.attempts(candidate.id)
            assert [attempt.number for attempt in attempts] == sorted({a.number for a in attempts})
            assert attempts[-1].outcome == "observed"


def test_a_finished_search_warms_up_the_next(home: Path, killed: dict[str, Any], cluster: str) -> None:
    source = home / "killed"
    command_line = search(home, "warm", "--trials", "2", "--concurrent", "1", "--cost-aware")
    command_line += ["--address", cluster]
    finished([*command_line, "--warm-start", str(source)])
    with Journal.read(home / "warm") as journal, Journal.read(source) as before:
        header, (first, _) = journal.header, journal.candidates()
        trainings = [(each.candidate.architecture, each.value or 0.0) for each in before.observations()]
        told = tuple(zip(*trainings, strict=True))
    assert header.search is not None
    assert header.search.cost_aware
    assert header.search.sources == (Source("killed", *told),)
    assert first.decision["phase"] == "sources"
    finished(command_line)  # what warmed it up is in its journal
    document = explain_search(home / "warm", lambda done, total: None)
    assert [row["differences"] for row in document["candidates"]] == [[]] * 2


def test_what_cannot_warm_up_a_search_is_named(home: Path, killed: dict[str, Any]) -> None:
    bad = search(home, "bad", "--warm-start", str(home))
    code, _, err = ended(bad)
    assert code == 1
    assert len(err.strip().splitlines()[-1:]) == 1
    assert "Traceback" not in err
    assert str(home) in err


def test_a_killed_searchs_choices_are_recomputed(home: Path, killed: dict[str, Any]) -> None:
    """An engine lives through it all in one go, while the search had three drivers."""
    document = explain_search(home / "killed", lambda done, total: None)
    assert [row["id"] for row in document["candidates"]] == [f"c{number:04d}" for number in range(5)]
    assert [row["differences"] for row in document["candidates"]] == [[]] * 5
    assert max(row["value"] for row in document["candidates"]) == killed["best"]["psnr"]
    assert document["diagnostics"] == killed["diagnostics"] == status(home / "killed")["diagnostics"]
    assert "needs at least 8 observations, there are 5" in killed["diagnostics"]["summary"]


def test_the_portfolios_numbers_are_those_of_its_networks(home: Path, killed: dict[str, Any]) -> None:
    """What the residuals' products promise is what the bundle's networks, run anew, reach."""
    bundle = read_bundle(Path(killed["bundle"]))
    pairs = [each.head(1) for each in evaluation_pairs(bundle, None, print)]
    networks = load_networks(bundle)
    lr, hr = (torch.from_numpy(image).float()[None] / 255 for image in pairs[0].image(0))
    with torch.no_grad():
        outputs = [network(lr).clamp(0, 1) for network in networks]
    average = sum(m.weight * output for m, output in zip(bundle.members, outputs, strict=True))
    assert isinstance(average, torch.Tensor)
    psnr = float(-10 * (average - hr).double().square().mean().log10())
    assert psnr == pytest.approx(killed["psnr"]["average"], abs=1e-3)
    for member, network in zip(bundle.members, networks, strict=True):
        assert evaluate_network(network, pairs[0])[0] == pytest.approx(member.metrics["psnr"], abs=1e-4)
    errors = [member.weight * 10 ** (-member.metrics["psnr"] / 10) for member in bundle.members]
    assert 10 ** (-psnr / 10) <= sum(errors) * (1 + 1e-6)  # Jensen: a mean of images errs less than they do
    evaluation = evaluate(bundle, pairs)
    count = len(bundle.members)
    averaged = ("networks",) if count > 1 else ()
    whole = next(row for row in evaluation.rows if len(row.members) == count and row.levels == averaged)
    assert whole.psnr == pytest.approx(psnr, abs=1e-4)
    last = [row for row in evaluation.rows if row.levels == (*averaged, "self_ensemble")][-1]
    assert last.psnr == pytest.approx(killed["psnr"]["ensemble"], abs=1e-4)
    assert evaluation.bicubic.psnr == pytest.approx(killed["psnr"]["bicubic"], abs=1e-9)
    # with and without tiles and self-ensemble: networks, pairs, all
    assert len(evaluation.rows) == 4 * {1: 1, 2: 3, 3: 7}[count]
    assert (
        killed["psnr"]["ensemble"]
        >= max(
            row.psnr for row in evaluation.rows if len(row.members) == 1 and row.levels == ("self_ensemble",)
        )
        - 1e-4
    )  # no average is worse than its best member


def test_a_finished_search_is_not_repeated_and_can_be_extended(
    home: Path, killed: dict[str, Any], cluster: str
) -> None:
    again = finished(search(home, "killed"))
    assert again["ranking"] == killed["ranking"]
    assert again["portfolio"] == killed["portfolio"]
    extended = finished(search(home, "killed", "--trials", "20", "--address", cluster))
    with Journal.read(home / "killed") as journal:
        repeats = [each for each in journal.candidates() if each.decision.get("replicate")]
    # each of the space once, beside what is worth repeating: then the search ends in good order
    assert extended["trials"]["observed"] - len(repeats) == 6
    assert len({str(row["architecture"]) for row in extended["ranking"]}) == 6
    licence = ["--licence", "mit", "--licence-holder", "Ada Lovelace", "--json"]
    exported = finished(["export", str(home / "killed"), "--top", "2", "-o", str(home / "two.zip"), *licence])
    two = read_bundle(home / "two.zip")
    assert 1 <= len(exported["portfolio"]) == len(two.members) <= 2
    assert "Ada Lovelace" in (two.licence or "")


def test_another_space_is_refused_in_a_run_folder(home: Path, killed: dict[str, Any]) -> None:
    code, _, err = ended(search(home, "killed", "--seed", "7"))
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert "`seed` was 0 and is now 7" in err


def test_two_drivers_do_not_share_a_run(home: Path, killed: dict[str, Any]) -> None:
    with Journal.read(home / "killed") as journal:
        header = journal.header
    with Journal.create_or_open(home / "killed", header):
        code, _, err = ended(search(home, "killed"))
    assert code == 1
    assert str(os.getpid()) in err


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(home: Path) -> None:
    """One worker with one seed chooses and trains the same whether or not it was killed."""
    process = driver(search(home, "one", "--concurrent", "1", "--trials", "3"))
    until(process, partial(training, home / "one", 1))
    kill_workers(process)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    first = json.loads(out)
    second = finished(search(home, "two", "--concurrent", "1", "--trials", "3"))
    for key in ("id", "architecture", "psnr", "ssim"):
        assert [row[key] for row in first["ranking"]] == [row[key] for row in second["ranking"]]
    with Journal.read(home / "one") as journal:
        assert max(len(journal.attempts(c.id)) for c in journal.candidates()) == 2


def test_trainings_that_diverge_are_failed_observations(home: Path, cluster: str) -> None:
    (home / "wild.yaml").write_text(
        SPACE.replace("steps: 40", "learning_rate: 1e9, clip_norm: 0, steps: 40").replace(
            "trials: 5, concurrent: 2", "trials: 2, concurrent: 1"
        )
    )
    arguments = search(home, "wild", "--address", cluster)
    arguments[arguments.index(str(home / "space.yaml"))] = str(home / "wild.yaml")
    code, _, err = ended(arguments)
    assert code == 1
    assert "Traceback" not in err
    assert "at least one trial must succeed, but all 2 failed" in err.strip().splitlines()[-1]
    assert [row["state"] for row in status(home / "wild")["candidates"]] == ["failed", "failed"]
