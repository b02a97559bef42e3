from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpnas.cli import main
from gpnas.errors import JournalError
from gpnas.journal import Header, Journal, Search, export, status
from gpnas.journal.documents import DecisionDocument
from gpnas.records import Architecture, Candidate, Fidelity, Objective, Observation, Progress, Stop

GOLDEN = Path(__file__).parents[1] / "golden"
SEARCH = Search(
    space={"fingerprint": "5f2c", "families": {"drn": {"features": [8, 16], "blocks": [1, 2]}}},
    strategy="mi+nei",
    steps=300,
    portfolio=3,
)
SETUP: dict[str, Any] = {
    "scale": 2,
    "recipe": {"steps": 300, "learning_rate": 0.002},
    "data": {"fingerprint": "9a01", "source": "photographs"},
}
HEADER = Header(
    trials=4,
    objective=Objective("psnr", "dB"),
    search=SEARCH,
    setup=SETUP,
    concurrent=2,
    versions={"gpnas": "0.1.0"},
    machine={"cpus": 2},
)


DELIVERED = {
    "ranking": [{"id": "c0000", "psnr": 30.0, "ssim": 0.8}],
    "unusable": {},
    "shares": {"c0000": 1.0},
    "psnr": {"bicubic": 28.0, "best": 30.0, "average": 30.0},
    "diagnostics": None,
}


def candidate(number: int, **decision: Any) -> Candidate:
    architecture = Architecture("drn", {"features": 8 + number, "blocks": 1, "stages": 1})
    return Candidate(f"c{number:04d}", architecture, Fidelity(300), number, {"phase": "design", **decision})


def observation(number: int) -> Observation:
    return Observation(candidate(number), 30 + number / 7, None, 1.5 * number, {"ssim": 0.9})


def fill(run: Path, numbers: range, header: Header = HEADER) -> None:
    with Journal.create_or_open(run, header) as journal:
        for number in numbers:
            journal.commit_candidates([candidate(number)])
            journal.commit_observation(observation(number))


def one_line(error: pytest.ExceptionInfo[JournalError]) -> str:
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


# -- what is written is read back

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
filled_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
axis_values = st.integers(-(2**40), 2**40) | finite | st.booleans() | texts
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
candidates = st.builds(
    Candidate,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    st.builds(Architecture, filled_texts, st.dictionaries(texts, axis_values, max_size=4)),
    st.builds(Fidelity, st.integers(1, 10**9)),
    st.integers(0, 2**31 - 1),
    st.dictionaries(
        texts.filter(lambda name: name not in DecisionDocument.model_fields), json_values, max_size=4
    ),
)
stops = st.none() | st.builds(
    Stop, st.integers(1, 10**9), finite, st.floats(0, 1e12), st.floats(0, 1), st.integers(1, 99)
)
outcomes = st.tuples(finite, st.none()) | st.tuples(st.none(), filled_texts)


def exactly(value: Any) -> str:
    """Tells 1 from 1.0 and True, 0.0 from -0.0, which `==` does not."""
    return repr(value)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            candidates, outcomes, st.floats(0, 1e12), st.dictionaries(texts, finite, max_size=3), stops
        ),
        max_size=4,
        unique_by=lambda entry: entry[0].id,
    )
)
def test_records_survive_the_file(tmp_path_factory: pytest.TempPathFactory, entries: list[Any]) -> None:
    run = tmp_path_factory.mktemp("run")
    given_candidates = [entry[0] for entry in entries]
    given_observations = [
        Observation(proposed, value, failure, seconds, metrics, None if value is None else stop)
        for proposed, (value, failure), seconds, metrics, stop in reversed(entries)
    ]
    with Journal.create_or_open(run, HEADER) as journal:
        journal.commit_candidates(given_candidates)
        for told in given_observations:
            assert journal.commit_observation(told)
    with Journal.read(run) as journal:
        assert exactly(journal.candidates()) == exactly(given_candidates)
        assert exactly(journal.observations()) == exactly(given_observations)
        json.dumps(export(journal), allow_nan=False)


def test_what_json_lacks_is_kept_as_none_or_replaced(tmp_path: Path) -> None:
    odd = candidate(0, score=float("-inf"), mean=torch.ones(1).numpy()[0], name="\udce4.png")
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        journal.commit_candidates([odd])
        journal.commit_observation(
            Observation(odd, None, "cannot read \udce4.png", metrics={"x": float("nan")})
        )
        (read,) = journal.candidates()
        assert read.decision["score"] is None
        assert read.decision["mean"] == 1.0
        assert read.decision["name"] == "?.png"
        (told,) = journal.observations()
        assert told.failure == "cannot read ?.png"
        assert dict(told.metrics) == {}


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Candidate("c0", Architecture("drn", {}), Fidelity(1), 0, {"mean": torch.ones(2)}), "got Tensor"),
        (Candidate("../c0", Architecture("drn", {}), Fidelity(1), 0), "got '../c0'"),
        (Candidate("c0", Architecture("drn", {"blocks": [1]}), Fidelity(1), 0), "axes.blocks"),  # type: ignore[dict-item]
    ],
)
def test_candidates_that_cannot_be_written_are_refused(tmp_path: Path, broken: Candidate, says: str) -> None:
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        with pytest.raises(JournalError) as error:
            journal.commit_candidates([broken])
        assert says in one_line(error)
        assert journal.candidates() == []


def test_candidates_are_committed_all_or_none(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        journal.commit_candidates([candidate(0)])
        with pytest.raises(JournalError, match="c0000 is there already"):
            journal.commit_candidates([candidate(1), candidate(0)])
        assert journal.candidates() == [candidate(0)]


def test_only_the_first_observation_of_a_candidate_counts(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        journal.commit_candidates([candidate(0), candidate(1)])
        assert journal.pending() == [candidate(0), candidate(1)]
        assert journal.commit_observation(Observation(candidate(0), 31.0))
        assert not journal.commit_observation(Observation(candidate(0), 32.0))
        assert [told.value for told in journal.observations()] == [31.0]
        assert journal.pending() == [candidate(1)]
        with pytest.raises(JournalError, match="committed before its trial, but c0002"):
            journal.commit_observation(observation(2))


def test_attempts_and_progress(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        journal.commit_candidates([candidate(0)])
        assert journal.start_attempt("c0000") == 1
        journal.end_attempt("c0000", 1, "killed")
        assert journal.start_attempt("c0000", 2) == 2
        for step in range(0, 50, 10):
            measured = 30.0 + step if step % 20 == 0 else None
            told = Progress(2, step, measured, {"loss": float("inf"), "ssim": 0.5}, step / 10)
            journal.record_progress("c0000", told)
        journal.record_progress("c0000", Progress(2, 47, None, {"loss": 0.1}, 4.7))
        journal.record_progress("c0000", Progress(2, 48, None, {"loss": 0.2}, 4.8))
        rows = journal.progress("c0000")
        # evaluations stay; of the words between two of them only the last does
        assert [(row.step, row.value) for row in rows] == [(0, 30.0), (20, 50.0), (40, 70.0), (48, None)]
        assert [dict(row.metrics) for row in rows] == [*3 * [{"ssim": 0.5}], {"loss": 0.2}]
        with pytest.raises(JournalError, match="attempt 7 of c0000 has not"):
            journal.end_attempt("c0000", 7, "killed")
        with pytest.raises(JournalError, match="but c0009"):
            journal.start_attempt("c0009")
    with Journal.create_or_open(tmp_path, HEADER) as journal:  # the driver went away in attempt 2
        assert [attempt.outcome for attempt in journal.attempts("c0000")] == ["killed", "interrupted"]
        assert journal.start_attempt("c0000") == 3
        journal.commit_observation(observation(0))  # whoever is killed now has left nothing half told
        assert journal.attempts("c0000")[-1].outcome == "observed"


def test_results(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        assert journal.result("choice") is None
        journal.set_result("choice", {"psnr": 30.0})
        journal.set_result("choice", {"psnr": 31.0, "members": ["c0000"]})
    with Journal.read(tmp_path) as journal:
        assert journal.result("choice") == {"psnr": 31.0, "members": ["c0000"]}
        with pytest.raises(JournalError, match="only a run's driver may write"):
            journal.set_result("x", {})


# -- whose run it is


def test_a_run_goes_on_with_what_may_change(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    setup = SETUP | {"data": {"fingerprint": "9a01", "source": "x"}}
    changed = replace(HEADER, trials=9, machine={"cpus": 64}, setup=setup)
    with Journal.create_or_open(tmp_path, changed) as journal:
        assert len(journal.observations()) == 2
        # of a part with a fingerprint only that counts: the header's own stays
        assert journal.header == replace(HEADER, trials=9, machine={"cpus": 64})
        assert [session.header for session in journal.sessions().values()] == [HEADER, journal.header]
        assert [session.pid for session in journal.sessions().values()] == [os.getpid()] * 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"setup": SETUP | {"recipe": {"steps": 400, "learning_rate": 0.002}}},
            "`recipe.steps` was 300 and is now 400",
        ),
        ({"seed": 1}, "`seed` was 0 and is now 1"),
        ({"setup": SETUP | {"scale": 4}}, "`scale` was 2 and is now 4"),
        ({"search": replace(SEARCH, strategy="random")}, "`strategy` was mi+nei and is now random"),
        ({"search": None}, "`kind` was search and is now final training"),
        ({"objective": Objective("ssim", "")}, "`objective.name` was psnr and is now ssim"),
        (
            {"setup": SETUP | {"data": {"fingerprint": "77", "source": "/data"}}},
            "`data.source` was photographs and is now /data",
        ),
        (
            {"setup": SETUP | {"data": {"fingerprint": "77", "source": "photographs"}}},
            "`data.fingerprint` was 9a01 and is now 77",
        ),
        (
            {"search": replace(SEARCH, space={"fingerprint": "6", "families": {"drn": {"blocks": [1]}}})},
            "`space.families.drn.features` was [8, 16] and is now absent (and 2 more)",
        ),
        ({"setup": SETUP | {"camera": 1}}, "`camera` was absent and is now 1"),
    ],
)
def test_another_search_is_told_what_differs(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    fill(tmp_path, range(1))
    before = (tmp_path / "journal.sqlite").read_bytes()
    with pytest.raises(JournalError) as error:
        Journal.create_or_open(tmp_path, replace(HEADER, **change))
    assert says in one_line(error)
    assert "--run" in one_line(error)
    assert (tmp_path / "journal.sqlite").read_bytes() == before
    fill(tmp_path, range(1, 2))  # the lock is free and the run as it was


def test_a_missing_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"must hold journal\.sqlite, but there is none"):
        status(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="file: the run folder must be"):
        Journal.create_or_open(tmp_path / "file", HEADER)


# -- processes that die, and several at once

WRITER = """
def write(run, numbers, say):
    with Journal.create_or_open(run, HEADER) as journal:
        say("open")
        for pending in journal.pending():
            journal.commit_observation(observation(pending.seed))
            say(pending.seed)
        for number in range(len(journal.candidates()), numbers):
            journal.commit_candidates([candidate(number)])
            journal.start_attempt(f"c{number:04d}")
            journal.record_progress(f"c{number:04d}", Progress(1, 10, 30.0, {"loss": 0.1}, 1.0))
            journal.commit_observation(observation(number))
            say(number)
"""

KILLER = """
import random, signal, time
moments = random.Random(0)
acknowledged = []
for round in range(10):
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write(run, 10**6, lambda word: os.write(outlet, f"{word}\\n".encode()))
        finally:
            os._exit(1)
    os.close(outlet)
    with os.fdopen(inlet) as told:
        assert told.readline() == "open\\n"
        if round == 0:
            with pytest.raises(JournalError, match=f"process {child} holds it"):
                Journal.create_or_open(run, HEADER)
        assert status(run)["state"] == "running"
        time.sleep(moments.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged += [int(line) for line in told if line.endswith("\\n")]
    assert status(run)["state"] == "interrupted"
print(acknowledged)
"""


def run_script(script: str, run: Path, before: Any = None) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process of its own, with this module's names, `write` and `run`."""
    head = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_journal import *\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        [sys.executable, "-c", f"{head}run = Path({str(run)!r})\n{WRITER}\n{script}"],
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=before,
        check=False,
    )


def test_nothing_committed_is_lost_when_the_driver_is_killed(tmp_path: Path) -> None:
    process = run_script(KILLER, tmp_path)
    assert process.returncode == 0, process.stderr
    acknowledged = json.loads(process.stdout)
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        assert journal.note is None
        observed = [told.candidate.seed for told in journal.observations()]
        committed = [proposed.seed for proposed in journal.candidates()]
        assert len(acknowledged) > 3
        assert observed == list(range(len(observed)))  # none lost, none twice, in order
        assert set(acknowledged) <= set(observed)
        assert committed == list(range(len(committed)))
        assert len(committed) - len(observed) in (0, 1)
        assert journal.observations() == [observation(number) for number in observed]
        assert not list(tmp_path.glob("*.new"))


def test_a_reader_sees_whole_moments_of_a_growing_journal(tmp_path: Path) -> None:
    seen: list[int] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                document = status(tmp_path)
                assert document["state"] == "running"
                states = [row["state"] for row in document["candidates"]]
                assert states == ["observed"] * len(states) or states[-1] == "pending"
                assert all(state == "observed" for state in states[:-1])
                seen.append(len(states))
        except BaseException as error:
            failures.append(error)

    with Journal.create_or_open(tmp_path, HEADER) as journal:
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(40):
            journal.commit_candidates([candidate(number)])
            journal.commit_observation(observation(number))
        done.set()
        reader.join()
    assert not failures
    assert seen == sorted(seen)
    assert len(set(seen)) > 1


def test_threads_of_the_driver_share_a_journal(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path, HEADER) as journal:

        def work(first: int) -> None:
            for number in range(first, 24, 4):
                journal.commit_candidates([candidate(number)])
                journal.commit_observation(observation(number))

        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        values = {told.candidate.id: told.value for told in journal.observations()}
        assert values == {f"c{number:04d}": 30 + number / 7 for number in range(24)}


# -- where a search stands


def test_looking_at_a_journal_gives_up_none_of_its_locks(tmp_path: Path) -> None:
    """A driver that loses its lock on SQLite's shared memory dies of SIGBUS when the next reader comes."""
    run = tmp_path / "run"
    with Journal.create_or_open(run, HEADER) as journal:
        journal.commit_candidates([candidate(0)])
        files = {os.stat(run / name).st_ino for name in ("journal.sqlite", "journal.sqlite-shm")}

        def locked() -> set[int]:
            rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
            return {
                int(row[5].split(":")[2]) for row in rows if row[1] == "POSIX" and int(row[4]) == os.getpid()
            }

        assert files <= locked()
        assert status(run)["candidates"]
        with Journal.read(run) as reader:
            assert len(reader.candidates()) == 1
        assert files <= locked()


def test_status(tmp_path: Path) -> None:
    def states() -> tuple[str, list[str]]:
        document = status(tmp_path)
        return document["state"], [row["state"] for row in document["candidates"]]

    with Journal.create_or_open(tmp_path, HEADER) as journal:
        assert states() == ("running", [])
        journal.commit_candidates([candidate(number) for number in range(4)])
        journal.start_attempt("c0001", 1)
        journal.record_progress("c0001", Progress(1, 100, 29.5, {"ssim": 0.8, "loss": 0.1}, 4.0))
        journal.record_progress("c0001", Progress(1, 150, None, {"loss": 0.1}, 6.0))
        journal.commit_observation(observation(2))
        journal.commit_observation(Observation(candidate(3), None, "out of memory"))
        assert states() == ("running", ["pending", "running", "observed", "failed"])
        assert status(tmp_path) == {
            "run": str(tmp_path),
            "state": "running",
            "objective": {"name": "psnr", "unit": "dB", "goal": "maximise"},
            "candidates": [
                {
                    "id": f"c{number:04d}",
                    "architecture": {
                        "family": "drn",
                        "axes": {"features": 8 + number, "blocks": 1, "stages": 1},
                    },
                    "state": state,
                    "value": value,
                    "psnr": value,
                    "seconds": seconds,
                    "attempts": attempts,
                }
                for number, state, value, seconds, attempts in [
                    (0, "pending", None, 0.0, 0),
                    (1, "running", 29.5, 6.0, 1),
                    (2, "observed", 30 + 2 / 7, 3.0, 0),
                    (3, "failed", None, 0.0, 0),
                ]
            ],
        }
    assert states() == ("interrupted", ["pending", "pending", "observed", "failed"])
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        for pending in journal.pending():
            journal.commit_observation(Observation(pending, 30.0))
        journal.set_result("delivery", DELIVERED)
    assert states()[0] == "finished"
    with Journal.create_or_open(tmp_path, HEADER):  # the same command again changes nothing
        assert states()[0] == "running"
    assert states()[0] == "finished"
    with Journal.create_or_open(tmp_path, replace(HEADER, trials=8)):  # extended, then killed
        pass
    assert states()[0] == "interrupted"


def test_a_stopped_trial_is_told_with_its_reason(tmp_path: Path) -> None:
    stop = Stop(100, 27.5, 0.08, 0.0123, 3)
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        journal.commit_candidates([candidate(0), candidate(1)])
        journal.commit_observation(Observation(candidate(0), 27.9, None, 4.0, {}, stop))
        journal.commit_observation(observation(1))
        rows = [row["document"] for row in export(journal)["observations"]]
    assert rows[0]["stopped"] == {"step": 100, "value": 27.5, "stddev": 0.08, "chance": 0.0123, "best": 3}
    assert rows[1]["stopped"] is None
    told = status(tmp_path)["candidates"]
    assert (told[0]["state"], told[0]["psnr"], told[0]["seconds"]) == ("stopped", 27.5, 4.0)
    assert told[0]["stopped"]["predicted"] == 27.9
    assert told[0]["stopped"]["reason"] == "stopped at step 100: P(among best 3) = 0.012"
    assert "stopped" not in told[1]


# -- files that are damaged, newer, foreign, or do not fit


def damaged_files(run: Path) -> list[Path]:
    return list(run.glob("journal.damaged-*.sqlite"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("filled")
    fill(run, range(12))
    with Journal.create_or_open(run, HEADER) as journal:
        journal.set_result("delivery", DELIVERED)
    return run


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b"not a database at all" * 500),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"value":30', b'"value":80')),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"steps":300', b'"steps":\xff00')),
    ],
    ids=["missing", "empty", "torn", "garbage", "changed digit", "not UTF-8"],
)
def test_a_damaged_file_is_recovered_from_its_backup(filled: Path, tmp_path: Path, damage: Any) -> None:
    run = tmp_path / "run"
    shutil.copytree(filled, run)
    damage(run / "journal.sqlite")
    assert "journal.backup.sqlite" in status(run)["note"]
    assert len(status(run)["candidates"]) == 12
    with Journal.create_or_open(run, HEADER) as journal:
        assert journal.note is not None
        assert "recovered" in journal.note
        assert journal.observations() == [observation(number) for number in range(12)]
        assert journal.result("delivery") == DELIVERED
        assert [kind for _, kind, _ in journal.events()] == ["recovered"]
        journal.commit_candidates([candidate(12)])
    assert len(damaged_files(run)) == (0 if "missing" in (journal.note or "") else 1)
    with Journal.create_or_open(run, HEADER) as journal:
        assert journal.note is None
        assert len(journal.candidates()) == 13


def test_a_lost_write_ahead_log_is_noticed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Journal.create_or_open(run, HEADER) as journal:
        journal.commit_candidates([candidate(0)])
        journal.commit_observation(observation(0))
        # as a crash leaves them, but with a log whose first bytes are gone: SQLite ignores all of it
        torn = tmp_path / "torn"
        shutil.copytree(run, torn)
    log = torn / "journal.sqlite-wal"
    log.write_bytes(b"\0" * 64 + log.read_bytes()[64:])
    (torn / "journal.sqlite-shm").unlink()
    with Journal.create_or_open(torn, HEADER) as journal:
        assert journal.note is not None
        assert "0 candidates and 0 observations, its backup 1 and 1" in journal.note
        assert journal.observations() == [observation(0)]


def test_damage_beyond_the_backup_says_what_to_do(filled: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(filled, run)
    for name in ("journal.sqlite", "journal.backup.sqlite"):
        (run / name).write_bytes(b"x" * 9000)
    for attempt in (lambda: status(run), lambda: Journal.create_or_open(run, HEADER)):
        with pytest.raises(JournalError) as error:
            attempt()
        assert "the file is damaged: file is not a database" in one_line(error)
        assert "--run" in one_line(error)
    assert (run / "journal.sqlite").read_bytes() == b"x" * 9000


@pytest.mark.parametrize("place", [18, 19])
def test_a_file_that_sqlite_would_not_write_is_recovered(filled: Path, tmp_path: Path, place: int) -> None:
    """Bytes 18 and 19 are the file format's write and read version; above 2 SQLite only reads, or refuses."""
    run = tmp_path / "run"
    shutil.copytree(filled, run)
    data = bytearray((run / "journal.sqlite").read_bytes())
    data[place] ^= 0x40
    (run / "journal.sqlite").write_bytes(data)
    with Journal.create_or_open(run, HEADER) as journal:
        assert journal.note is not None
        journal.commit_candidates([candidate(12)])
        assert len(journal.candidates()) == 13


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False), st.integers(1, 40), st.booleans())
def test_no_flipped_bytes_pass_for_the_truth(
    filled: Path,
    tmp_path_factory: pytest.TempPathFactory,
    moments: random.Random,
    flips: int,
    with_backup: bool,
) -> None:
    run = tmp_path_factory.mktemp("flipped")
    data = bytearray((filled / "journal.sqlite").read_bytes())
    for _ in range(flips):
        data[moments.randrange(len(data))] ^= 1 << moments.randrange(8)
    (run / "journal.sqlite").write_bytes(data)
    if with_backup:
        shutil.copy(filled / "journal.backup.sqlite", run)
    refusal = ""
    try:
        with Journal.create_or_open(run, HEADER) as journal:
            assert journal.observations() == [observation(number) for number in range(12)]
            assert journal.candidates() == [candidate(number) for number in range(12)]
    except JournalError as error:
        refusal = str(error)
    shutil.rmtree(run)
    assert len(refusal.splitlines()) <= 1
    if with_backup:  # only what a newer gpnas seems to have written is left alone
        assert not refusal or "newer" in refusal


def test_a_newer_journal_is_refused_and_left_alone(filled: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(filled, run)
    with closing(sqlite3.connect(run / "journal.sqlite")) as connection:
        connection.execute("PRAGMA user_version=3")
    before = (run / "journal.sqlite").read_bytes()
    for attempt in (lambda: status(run), lambda: Journal.create_or_open(run, HEADER)):
        with pytest.raises(JournalError) as error:
            attempt()
        assert "reads journals up to version 2, but got version 3" in one_line(error)
    assert (run / "journal.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    "made", ["DROP TABLE answers", "ALTER TABLE attempts RENAME TO starts", "CREATE TABLE more (number)"]
)
def test_an_older_journal_is_told_as_such_everywhere_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: str
) -> None:
    """Version 1 had other tables at times; with those of today it is read."""
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(GOLDEN / "journal-v1.sqlite", run / "journal.sqlite")
    shutil.copy(GOLDEN / "journal-v1.sqlite", run / "journal.backup.sqlite")
    with closing(sqlite3.connect(run / "journal.sqlite")) as connection:
        connection.execute(made)
    before = (run / "journal.sqlite").read_bytes()
    page = str(tmp_path / "page.html")
    for command in (["status"], ["explain"], ["doctor"], ["portfolio"], ["report", "-o", page]):
        assert main([command[0], str(run), *command[1:]]) == 1
        told = " ".join("".join(capsys.readouterr()).split())
        assert "of version 2, but got version 1, " in told
        assert "an older gpnas wrote it: look at it with that, or search anew in another folder" in told
        assert "damaged" not in told
    with pytest.raises(JournalError, match="an older gpnas wrote it"):
        Journal.create_or_open(run, HEADER)
    assert (run / "journal.sqlite").read_bytes() == before
    with closing(sqlite3.connect(run / "journal.sqlite")) as connection:  # what is of today must be whole
        connection.execute("PRAGMA user_version=2")
    (run / "journal.backup.sqlite").unlink()
    with pytest.raises(JournalError, match="the file is damaged: its tables are not a journal's"):
        Journal.read(run)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection:
        connection.execute("CREATE TABLE photographs (name TEXT)")
    with pytest.raises(JournalError, match="not a gpnas journal"):
        Journal.create_or_open(tmp_path, HEADER)


def test_triggers_of_a_foreign_journal_are_refused(filled: Path, tmp_path: Path) -> None:
    shutil.copy(filled / "journal.sqlite", tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON sessions BEGIN DELETE FROM observations; END")
    with pytest.raises(JournalError, match="its tables are not a journal's"):
        Journal.create_or_open(tmp_path, HEADER)


def test_the_backup_is_a_whole_journal_after_every_commit(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path / "run", HEADER) as journal:
        for number in range(3):
            for commit in (
                lambda number=number: journal.commit_candidates([candidate(number)]),
                lambda number=number: journal.commit_observation(observation(number)),
            ):
                commit()
                copy = tmp_path / "copy"
                copy.mkdir()
                shutil.copy(tmp_path / "run" / "journal.backup.sqlite", copy / "journal.sqlite")
                with Journal.read(copy) as backup:
                    assert export(backup) == export(journal)
                shutil.rmtree(copy)


def test_a_full_disk_loses_nothing_committed(small_disk: Path) -> None:
    run = small_disk / "run"
    acknowledged = 0
    with Journal.create_or_open(run, HEADER) as journal:

        def fill_the_disk() -> None:
            nonlocal acknowledged
            while True:
                journal.commit_candidates([candidate(acknowledged, note="x" * 500)])
                acknowledged += 1

        with pytest.raises(JournalError) as error:
            fill_the_disk()
        assert "the disk must have room" in one_line(error)
        assert "what was committed is safe" in one_line(error)
        assert len(journal.candidates()) >= acknowledged > 10
    held = len(status(run)["candidates"])
    assert held >= acknowledged
    assert not list(run.glob("*.new"))
    (run / "journal.backup.sqlite").unlink()  # room again
    with Journal.create_or_open(run, HEADER) as journal:
        assert journal.note is None
        assert len(journal.candidates()) == held


def _small_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))


def test_a_file_size_limit_loses_nothing_committed(tmp_path: Path) -> None:
    process = run_script("write(run, 10**5, print)", tmp_path, before=_small_files)
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("gpnas.errors.JournalError: ")
    assert "what was committed is safe" in last
    acknowledged = [int(line) for line in process.stdout.splitlines()[1:]]
    assert len(acknowledged) > 3
    with Journal.create_or_open(tmp_path, HEADER) as journal:
        assert journal.note is None
        assert [told.candidate.seed for told in journal.observations()][: len(acknowledged)] == acknowledged


# -- every version ever shipped stays readable


@pytest.mark.parametrize("version", [1, 2])
def test_golden_journals(tmp_path: Path, version: int) -> None:
    shutil.copy(GOLDEN / f"journal-v{version}.sqlite", tmp_path / "journal.sqlite")
    expected = json.loads((GOLDEN / "journal-v1.json").read_text())
    with Journal.read(tmp_path) as journal:
        assert export(journal) == {**expected, "version": 2}
        header = journal.header
    with Journal.create_or_open(tmp_path, header) as journal:
        assert [proposed.id for proposed in journal.candidates()] == ["c0000", "c0001", "c0002", "c0003"]
        assert [told.value for told in journal.observations()] == [30.25, None, 30.1]
        assert journal.observations()[1].failure == "the loss grew to inf at step 12"
        assert journal.observations()[2].stopped == Stop(150, 29.0, 0.125, 0.03125, 2)
        assert journal.pending() == [journal.candidates()[3]]
        assert journal.progress("c0000")[0] == Progress(1, 150, 29.5, PROGRESS, 4.5)


PROGRESS = {"psnr": 29.5, "ssim": 0.81, "loss": 0.05}
