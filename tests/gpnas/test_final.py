"""Final training: on real Ray, ended and gone on with, and beside a plain loop."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gpnas.bundle import read_bundle
from gpnas.cli import main
from gpnas.dispatch.cluster import Cluster
from gpnas.dispatch.conductor import Event
from gpnas.dispatch.final import FinalRequest, _enter, architecture_of, plan_final, run_final
from gpnas.dispatch.request import Means, Request
from gpnas.dispatch.search import plan
from gpnas.dispatch.together import check_devices
from gpnas.dispatch.trial import Trial
from gpnas.engine import engine_for
from gpnas.errors import SpaceError, TrialError
from gpnas.journal import Journal, status
from gpnas.records import Observation, Progress
from gpnas.results.delivery import deliver, restore_errors
from gpnas.run.products import products_of
from gpnas.run.residuals import residual_products
from gpnas.run.setup import Setup
from gpnas.run.storage import storage_in
from gpnas_trainers import build
from gpnas_trainers.cost import gmacs
from gpnas_trainers.pairs import open_pairs
from gpnas_trainers.train import Recipe, evaluate, train
from tests.gpnas.driven import driver, ended, finished, until
from tests.gpnas.test_journal_tampering import ODD, changed, places, tampered

pytestmark = pytest.mark.ray

SPACE = """\
scale: 2
families:
  drn:
    features: [4, 6]
    blocks: [1, 2]
    stages: 1
search:
  {trials: 3, concurrent: 2, validation_images: 1, portfolio: 2, early_stopping: false, defaults_first: false}
recipe: {steps: 6, batch_size: 2, hr_patch: 48, evaluate_every: 3, warmup_steps: 2}
"""
OVERRIDES = ["--steps", "400", "--batch-size", "3", "--ema-decay", "0.9", "--start-from", "search"]
RECIPE = Recipe(steps=400, batch_size=3, evaluate_every=200, warmup_steps=2, ema_decay=0.9)


@pytest.fixture(scope="module")
def home(home: Path) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as trials have it
    yield home
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def search(home: Path) -> Path:
    """A finished search, its trials run one by one without Ray."""
    (home / "space.yaml").write_text(SPACE)
    work = plan(Request(str(home / "space.yaml"), run=home / "run"), print)
    with Journal.create_or_open(work.run, work.header) as journal:
        engine = engine_for(work.space, work.header)
        for _ in range(work.header.trials):
            (candidate,) = engine.suggest(1)
            journal.commit_candidates([candidate])
            point = trained(asdict(work.task(candidate)))
            observation = Observation(candidate, point.value, None, point.seconds, point.metrics)
            journal.commit_observation(observation)
            engine.observe(observation)
        validation = work.pairs.validation.head(1)
        deliver(work.run, journal, validation, 2, time.monotonic(), engine=engine)
    return work.run


def trained(config: dict[str, Any]) -> Progress:
    trial = Trial(config)
    while not (report := trial.advance()).last:
        pass
    assert report.progress is not None, report
    return report.progress


def test_a_search_goes_on_with_no_journal_that_somebody_has_changed(
    home: Path, search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands in a document, with a checksum that fits, is taken or named in one line; an architecture
    outside the space is always named."""
    with closing(sqlite3.connect(search / "journal.sqlite")) as connection:
        documents = [
            (table, row, json.loads(text))
            for table in ("header", "sessions", "candidates", "progress", "observations")
            for row, text in connection.execute(f"SELECT rowid, document FROM {table}").fetchall()[-1:]
        ]
    cases = [
        (table, row, document, path, ODD[(number + len(table)) % len(ODD)])
        for table, row, document in documents
        for number, path in enumerate(places(document))
    ][::9]
    (candidate,) = [each for each in documents if each[0] == "candidates"]
    for case in (*cases, (*candidate, ("axes", "stages"), -1e308)):
        table, row, document, path, odd = case
        new = json.dumps(changed(document, path, odd))
        update = f"UPDATE {table} SET document = ?, crc32 = ? WHERE rowid = ?"
        run = tampered(search, tmp_path / "run", update, new, zlib.crc32(new.encode()), row)
        (run / "journal.backup.sqlite").unlink(missing_ok=True)
        code = main(
            ["search", "--space", str(home / "space.yaml"), "--run", str(run), "--budget-hours", "1e-9"]
        )
        told = capsys.readouterr().err
        assert "Traceback" not in told
        assert code in (0, 1), (case, told)
        lines = [line for line in told.splitlines() if line.startswith("error: ")]
        assert [str(run) in line and len(line) < 1200 for line in lines] == [True] * code, (case, told)
    assert "candidates must be of its space" in lines[0]


@pytest.fixture(scope="module")
def final(search: Path, cluster: str) -> dict[str, Any]:
    """The portfolio, trained by two commands: the first is told to end in between."""
    arguments = ["train", str(search), *OVERRIDES, "--concurrent", "1", "--json"]
    process = driver(arguments)

    def underway() -> bool:
        if not (search / "final" / "journal.sqlite").exists():
            return False
        with Journal.read(search / "final") as journal:
            steps = [row.step for each in journal.candidates() for row in journal.progress(each.id)]
        return any(0 < step < 400 for step in steps)

    until(process, underway)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert out == ""
    assert "the same command goes on" in err
    return finished([*arguments, "--address", cluster])


def test_an_interrupted_final_training_equals_a_plain_loop(search: Path, final: dict[str, Any]) -> None:
    """Weights to the last bit, from the search's; on all validation images."""
    assert final["trials"] == {"observed": 2, "failed": 0, "stopped": 0}
    assert status(search / "final")["state"] == "finished"
    with Journal.read(search) as journal, Journal.read(search / "final") as own:
        pairs = plan(Request(str(search.parent / "space.yaml"), run=search), print).pairs.folder
        assert Setup.of(own).recipe == RECIPE.to_json()
        assert Setup.of(own).data.fingerprint == Setup.of(journal).data.fingerprint
        assert {each.id for each in own.candidates()} < {each.id for each in journal.candidates()}
        interrupted = sum(len(own.attempts(each.id)) for each in own.candidates())
        candidates = own.candidates()
    assert interrupted > 2
    validation = open_pairs(pairs, "validation")
    assert final["images"] == len(validation) == 2
    for candidate in candidates:
        network = build("drn", 2, **candidate.architecture.axes)
        initial = load_file(search / "candidates" / candidate.id / "network.safetensors")
        folder = search / "final" / "candidates" / candidate.id
        progress = train(
            network, open_pairs(pairs, "train"), validation, RECIPE, seed=candidate.seed, initial=initial
        )
        found = load_file(folder / "network.safetensors")
        for name, value in network.state_dict().items():
            assert torch.equal(value, found[name]), name
        (row,) = [row for row in final["ranking"] if row["id"] == candidate.id]
        assert row["psnr"] == progress.psnr
        lines = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [200, 400]
        assert lines[-1]["psnr"] == progress.psnr


def test_the_gram_matrix_and_the_bundle_are_those_of_the_networks(
    search: Path, final: dict[str, Any]
) -> None:
    """Errors of the networks in the bundle, by hand."""
    bundle = read_bundle(Path(final["bundle"]))
    pairs = plan(Request(str(search.parent / "space.yaml"), run=search), print).pairs.folder
    validation = open_pairs(pairs, "validation")
    shares = {member.candidate: member.weight for member in bundle.members}
    assert shares == pytest.approx(final["shares"])
    rows_of = {row["id"]: row for row in final["ranking"]}
    networks, errors = [], []
    for name in final["candidates"]:
        network = build("drn", 2, **rows_of[name]["architecture"]["axes"])
        network.load_state_dict(load_file(search / "final/candidates" / name / "network.safetensors"))
        assert rows_of[name]["psnr"] == pytest.approx(evaluate(network, validation)[0], abs=1e-5)
        networks.append(network)
    gram = torch.zeros(2, 2, dtype=torch.float64)
    for index in range(2):
        lr, hr = (torch.from_numpy(each).float()[None] / 255 for each in validation.image(index))
        with torch.no_grad():
            rows = torch.stack([(network(lr).clamp(0, 1) - hr).flatten() for network in networks]).double()
        gram += rows @ rows.T / rows.shape[1] / 2
        weights = torch.tensor([shares.get(each, 0.0) for each in final["candidates"]], dtype=torch.float64)
        errors.append(float(-10 * (weights @ rows).square().mean().log10()))
    told = torch.tensor(final["gram"], dtype=torch.float64)
    torch.testing.assert_close(told, gram, rtol=1e-5, atol=0)
    assert final["psnr"]["average"] == pytest.approx(sum(errors) / 2, abs=1e-4)
    root = gram.diagonal().sqrt()
    assert final["correlation"][0][1] == pytest.approx(float(gram[0, 1] / root[0] / root[1]), abs=1e-5)


def test_a_finished_training_is_not_repeated(
    search: Path, final: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(search), *OVERRIDES, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["ranking"] == final["ranking"]
    assert main(["train", str(search), *OVERRIDES, "--learning-rate", "1e-3"]) == 1
    assert "`recipe.learning_rate` was 0.002 and is now 0.001" in capsys.readouterr().err


def test_sigterm_while_its_bundle_is_written(
    search: Path, final: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The signal comes as soon as the first network's weights are opened."""
    before = read_bundle(Path(final["bundle"])).manifest
    weights = search / "final" / "candidates" / final["ranking"][0]["id"] / "network.safetensors"
    ended: list[str] = []

    def end(event: str, arguments: tuple[Any, ...]) -> None:
        if not ended and event == "open" and str(arguments[0]) == str(weights):
            ended.append(event)
            os.kill(os.getpid(), signal.SIGTERM)

    sys.addaudithook(end)
    try:
        assert main(["train", str(search), *OVERRIDES, "--json"]) == 128 + signal.SIGTERM
        assert ended
    finally:
        ended.append("the test is over")
    told = capsys.readouterr()
    assert told.out == ""
    rest = f"2 of 2 trials observed in {search / 'final'}; the same command goes on"
    assert told.err.splitlines()[-1] == f"interrupted: {rest}"
    assert [path.name for path in (search / "final").glob(".*")] == []
    assert read_bundle(Path(final["bundle"])).manifest == before


def test_given_networks_begin_with_those_of_a_bundle_at_another_scale(
    home: Path, final: dict[str, Any], cluster: str
) -> None:
    """And whoever finds no counterpart there begins afresh, and says so."""
    best = final["best"]["architecture"]["axes"]
    like = "drn:" + ",".join(f"{name}={value}" for name, value in best.items())
    arguments = ["--architecture", like, "--architecture", "rcan:features=16,groups=1,blocks=1"]
    arguments += ["--scale", "3", "--run", str(home / "given"), "--start-from", final["bundle"]]
    arguments += [
        "--steps",
        "2",
        "--batch-size",
        "1",
        "--tensorboard",
        "--concurrent",
        "1",
        "--address",
        cluster,
    ]
    code, out, err = ended(["train", *arguments, "--json"])
    assert code == 0, err
    assert "c0001 begins with fresh weights" in err
    assert err.count("c0000  warm start: ") == 1  # a note of the training reaches the terminal
    document = json.loads(out)
    assert read_bundle(Path(document["bundle"])).scale == 3
    notes = json.loads((home / "given/candidates/c0000/training.jsonl").read_text())["notes"]
    assert notes[0].startswith("warm start: ")
    assert "fresh: " in notes[0]
    assert list((home / "given/candidates/c0001/tensorboard").glob("events.out.tfevents.*"))
    assert not (home / "given/candidates/c0001/initial.safetensors").exists()


def test_the_products_are_kept_and_extended(search: Path, tmp_path: Path) -> None:
    """One file, equal to what all residuals give at once; what is damaged or gone is computed again."""
    run = tmp_path / "run"
    shutil.copytree(search / "candidates", run / "candidates")
    with Journal.read(search) as journal:
        candidates = journal.candidates()
    files = [run / "candidates" / each.id / "errors.safetensors" for each in candidates]
    expected = residual_products(files)
    two = products_of(run, candidates[1:])
    np.testing.assert_allclose(two, expected[:, 1:, 1:], rtol=1e-12)
    np.testing.assert_allclose(products_of(run, candidates), expected, rtol=1e-12)
    files[1].unlink()  # no longer needed
    turned = products_of(run, candidates[::-1])
    np.testing.assert_allclose(turned, expected[:, ::-1, ::-1], rtol=1e-12)
    (run / "products.safetensors").write_bytes(b"torn")
    with pytest.raises(TrialError, match=f"{files[1]}: a trained network's residuals"):
        products_of(run, candidates)
    np.testing.assert_allclose(products_of(run, candidates[::2]), expected[:, ::2, ::2], rtol=1e-12)


def test_errors_that_are_missing_are_made_anew(home: Path, search: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(search, run)
    with Journal.read(run) as journal:
        candidates = journal.candidates()
    file = run / "candidates" / candidates[1].id / "errors.safetensors"
    before = file.read_bytes()
    file.unlink()
    pairs = open_pairs(plan(Request(str(home / "space.yaml"), run=search), print).pairs.folder, "validation")
    restore_errors(storage_in(run), candidates[1], pairs.head(1))
    assert file.read_bytes() == before


def test_the_command_tells_frontier_and_what_is_untrained(
    search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["portfolio", str(search), "--top", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    with Journal.read(search) as journal:
        psnr = {each.candidate.id: each.value for each in journal.observations()}
        candidates = {each.id: each for each in journal.candidates()}
    rows = document["frontier"]
    assert [row["psnr"] for row in rows] == sorted(row["psnr"] for row in rows)
    for row in rows:
        members = [candidates[name].architecture for name in row["members"]]
        assert row["gmacs"] == pytest.approx(sum(gmacs(m.family, 2, 120, 120, **m.axes) for m in members))
        assert row["parameters"] == sum(
            tensor.numel() for m in members for tensor in build(m.family, 2, **m.axes).state_dict().values()
        )
        if len(members) == 1:
            assert row["psnr"] == pytest.approx(psnr[row["members"][0]], abs=1e-4)
    ways = {row["way"]: row for row in document["compared"]}
    assert ways["chosen"]["psnr"] >= ways["best by PSNR"]["psnr"] - 0.1
    untrained = document["untrained"]
    trained = [each.architecture for each in candidates.values()]
    assert untrained["architectures"] == 4 - len(set(trained))
    assert all(row["architecture"] not in [each.to_json() for each in trained] for row in untrained["rows"])
    assert untrained["leave_one_out"]["networks"] == 3
    cheapest = rows[0]["gmacs"]
    limit = ["--max-gmacs", str(cheapest * 1.001)]
    assert main(["portfolio", str(search), "--top", "1", *limit, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["choice"]["gmacs"] == pytest.approx(cheapest)
    assert main(["portfolio", str(search), "--top", "2", *limit, "--json"]) == 0  # at most two
    assert json.loads(capsys.readouterr().out)["choice"]["gmacs"] == pytest.approx(cheapest)
    assert main(["portfolio", str(search), "--max-gmacs", str(cheapest * 0.999)]) == 1
    assert "no network keeps the limits by itself" in capsys.readouterr().err
    assert main(["portfolio", str(search)]) == 0
    assert "left out once" in capsys.readouterr().out


class Slow:
    """A listener that takes long to hear of progress."""

    def say(self, line: str) -> None: ...
    def preparing(self, what: str, done: int, total: int) -> None: ...
    def started(self, run: Path, trials: int, observed: int, cluster: Cluster) -> None: ...
    def event(self, event: Event) -> None:
        time.sleep(2 if event.kind == "progress" else 0)


@pytest.mark.slow
def test_two_processes_go_on_with_what_one_began(home: Path, cluster: str) -> None:
    """Ray Train with gloo on CPUs, from the checkpoint of a single process, beside a plain loop; they have
    ended long before what they told is heard."""
    network = "drn:features=4,blocks=1,stages=1"
    settings = {"steps": 40, "batch_size": 3, "evaluate_every": 20}
    request = FinalRequest(
        architectures=(network,), run=home / "two", recipe=settings, means=Means(devices=2, address=cluster)
    )
    work = plan_final(request, print)
    with Journal.create_or_open(work.run, work.header) as journal:
        (candidate,) = _enter(work, journal)
    trial = Trial(asdict(work.task(candidate)))
    point = trial.advance().progress
    assert point is not None
    begun = point.step
    assert 0 < begun < 40
    trial.cleanup()
    run_final(request, Slow())
    with torch.random.fork_rng():
        torch.manual_seed(candidate.seed)
        plain = build("drn", 2, features=4, blocks=1, stages=1)
    pairs = work.pairs.training, work.pairs.validation
    progress = train(plain, *pairs, work.recipe, seed=candidate.seed)
    found = load_file(work.run / "candidates" / candidate.id / "network.safetensors")
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=2e-4, rtol=1e-3)
    with Journal.read(work.run) as journal:
        rows = journal.progress(candidate.id)
        (observation,) = journal.observations()
    assert observation.value == pytest.approx(progress.psnr, abs=1e-3)
    assert {row.attempt for row in rows} == {2}
    assert begun <= rows[0].step < rows[-1].step == 40


@pytest.mark.slow
def test_two_processes_that_are_stopped_lose_nothing(home: Path) -> None:
    run = home / "stopped"
    arguments = ["--architecture", "drn:features=4,blocks=1,stages=1", "--run", str(run), "--devices", "2"]
    arguments += ["--steps", "100000", "--batch-size", "2", "--evaluate-every", "50000"]
    process = driver(["train", *arguments, "--json"])
    checkpoint = run / "candidates/c0000/attempt-1/checkpoint.pt"
    until(process, checkpoint.exists)
    time.sleep(1.5)  # the next one is due after three seconds
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert "interrupted: " in err.splitlines()[-1]
    assert not (run / "orders").exists()
    with Journal.read(run) as journal:
        (attempt,) = journal.attempts("c0000")
        told = journal.progress("c0000")[-1].step
    assert attempt.outcome == "interrupted"
    assert torch.load(checkpoint, weights_only=True)["state"]["step"] >= told > 1


@pytest.mark.slow
def test_one_of_two_processes_that_is_killed_is_replaced(home: Path) -> None:
    """The other one is not to blame: the training goes on from its checkpoint, and counts as no failure."""
    run = home / "peer"
    arguments = ["--architecture", "drn:features=4,blocks=1,stages=1", "--run", str(run), "--devices", "2"]
    arguments += ["--steps", "800", "--batch-size", "2", "--evaluate-every", "400"]
    process = driver(["train", *arguments, "--json"])
    until(process, (run / "candidates/c0000/attempt-1/checkpoint.pt").exists)
    find = ["pgrep", "--session", str(process.pid), "-f", "ray::(c0000|RayTrainWorker)"]
    workers = subprocess.run(find, capture_output=True, text=True).stdout.split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    out, err = process.communicate(timeout=500)  # twice the processes of two trainings load PyTorch
    assert process.returncode == 0, err
    assert json.loads(out)["trials"] == {"observed": 1, "failed": 0, "stopped": 0}
    with Journal.read(run) as journal:
        assert [each.outcome for each in journal.attempts("c0000")] == ["killed", "observed"]
        second = [row.step for row in journal.progress("c0000") if row.attempt == 2]
    assert second[0] > 1


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    return line


def test_what_breaks_a_rule_is_one_line(
    capsys: pytest.CaptureFixture[str], search: Path, tmp_path: Path
) -> None:
    run = str(search)
    assert "but got neither" in error(capsys)
    assert "but got both" in error(capsys, run, "--architecture", "drn:features=4,blocks=1,stages=1")
    assert "must be at most the 3 networks, but got 9" in error(capsys, run, "--top", "9")
    assert main(["export", run, "--top", "9", "-o", str(tmp_path / "bundle")]) == 1
    assert "`--top` must be at most the 3 networks, but got 9" in capsys.readouterr().err
    assert "trained at its scale 2, but got 3" in error(capsys, run, "--scale", "3")
    assert "must hold journal.sqlite" in error(capsys, str(tmp_path))
    rule = "`learning_rate > 0` must hold, but got learning_rate=0.0"
    assert rule in error(capsys, run, "--learning-rate", "0")
    assert "hr_patch=4000 and the smallest" in error(capsys, run, "--hr-patch", "4000")
    assert "there is nothing" in error(capsys, run, "--start-from", str(tmp_path / "none"))
    recipe = tmp_path / "recipe.yaml"
    for text, expected in (
        ("steps: 10\nlearning_rat: 1\n", f"{recipe}:2: unknown key `learning_rat`"),
        ("batch_size: many\n", f"{recipe}:1: `batch_size`: input should be a valid integer, but got 'many'"),
        ("- 1\n", "a recipe file must be a mapping of settings, such as `steps: 1000`, but got list"),
        ("steps: 10\nsteps: 20\n", f"{recipe}:2: a recipe file must be valid YAML, but the key `steps`"),
    ):
        recipe.write_text(text)
        assert expected in error(capsys, run, "--recipe", str(recipe))
    assert "batch_size=2 and devices=3; lower --devices" in error(capsys, run, "--devices", "3")
    with pytest.raises(TrialError, match="needs as many CPUs, but the cluster has 2"):
        check_devices(3, Cluster(None, "", 2.0, 0.0))
    given = ["--architecture", "drn:features=4,blocks=1,stages=1"]
    assert "name it with --run" in error(capsys, *given)
    assert "name a run or a bundle" in error(capsys, *given, "--run", run, "--start-from", "search")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("drn:features=4", "drn must be given features, blocks, stages, but blocks is missing"),
        ("drn:features=4,blocks=1,stages", "'stages' is not `axis=value`, once"),
        ("drn:features=4,features=4,blocks=1,stages=1", "'features=4' is not `axis=value`, once"),
        (
            "drn:features=four,blocks=1,stages=1",
            "`features` must be an integer of at least 1, but got 'four'",
        ),
        ("vdsr:depth=20", "swinir, but got 'vdsr'"),
    ],
)
def test_networks_are_written_as_gpnas_prints_them(text: str, expected: str) -> None:
    with pytest.raises(SpaceError) as raised:
        architecture_of(text, 2)
    assert expected in str(raised.value)
    good = architecture_of("drn:features=4,blocks=1,stages=1,image_skip=false", 2)
    assert good.axes["image_skip"] is False
    assert architecture_of(str(good), 2) == good
