"""Leases: a right to train that ends, with a number that rises, whatever clocks do."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpnas.errors import JournalError, LeaseError
from gpnas.files import SERVICE
from gpnas.journal import Clock, Header, Holder, Journal, Lease, process_identity, status
from gpnas.journal.leases import boot, is_alive
from gpnas.records import Architecture, Candidate, Fidelity, Objective, Observation
from gpnas.service.folder import Runs
from gpnas.service.requests import Requests
from gpnas.service.tokens import FILE, Tokens

HEADER = Header(4, Objective("accuracy", "%"))
NOON = Clock(wall=1_000_000.0, ticks=500.0, boot="this")
ANN, BOB = Holder("ann"), Holder("bob")


def candidate(number: int = 0) -> Candidate:
    return Candidate(
        f"c{number:04d}", Architecture("net", {"size": number}), Fidelity(10), number, {"phase": "x"}
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal.share(tmp_path, HEADER)
    journal.commit_candidates([candidate()])
    return journal


def later(seconds: float, *, wall: float | None = None, boot: str = "this") -> Clock:
    return Clock(NOON.wall + (seconds if wall is None else wall), NOON.ticks + seconds, boot)


def test_a_lease_that_runs_out_is_lost_and_its_candidate_has_the_next_number(journal: Journal) -> None:
    with journal:
        first = journal.leases.grant("c0000", ANN, 60, NOON)
        assert journal.leases.lapse(later(59)) == []
        with pytest.raises(JournalError, match="one at a time may train c0000"):
            journal.leases.grant("c0000", BOB, 60, later(59))
        assert [each.id for each in journal.leases.lapse(later(61))] == [first.id]
        second = journal.leases.grant("c0000", BOB, 60, later(62))
        assert (first.attempt, second.attempt) == (1, 2)
        with pytest.raises(LeaseError, match="attempt 1, is lost; bob has it as attempt 2; stop training it"):
            journal.leases.renew(first.id)
        assert [each.outcome for each in journal.attempts("c0000")] == ["lost", None]


def test_a_heartbeat_renews_a_lease_and_keeps_its_checkpoint(journal: Journal) -> None:
    with journal:
        lease = journal.leases.grant("c0000", ANN, 60, NOON)
        journal.leases.renew(lease.id, checkpoint="s3://bucket/c0000", clock=later(50))
        renewed = journal.leases.renew(lease.id, clock=later(100))
        assert renewed.remaining(later(100)) == 60
        assert renewed.checkpoint == "s3://bucket/c0000"
        assert journal.leases.lapse(later(159)) == []
        assert len(journal.leases.lapse(later(161))) == 1


@given(jump=st.floats(-1e9, 1e9), age=st.floats(0, 59))
def test_a_wall_clock_that_is_set_changes_no_lease_of_this_boot(jump: float, age: float) -> None:
    lease = Lease("x", "c0000", 1, ANN, 60, NOON.wall + 60, NOON.ticks + 60, "this")
    assert lease.remaining(later(age, wall=jump)) == pytest.approx(60 - age)


@given(jump=st.floats(-1e9, 1e9))
def test_elsewhere_no_lease_gets_more_than_its_length(jump: float) -> None:
    lease = Lease("x", "c0000", 1, ANN, 60, NOON.wall + 60, NOON.ticks + 60, "this")
    remaining = lease.remaining(later(1e6, wall=jump, boot="another"))
    assert remaining == pytest.approx(min(60 - jump, 60), abs=1e-3)


def test_a_lease_that_is_bound_to_a_process_ends_with_it_and_not_before(journal: Journal) -> None:
    with journal, subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = process_identity(process.pid)
        if identity is None:
            pytest.skip("this system does not tell processes apart")
        lease = journal.leases.grant("c0000", Holder("own", identity), 1, NOON)
        assert lease.remaining(later(1e9)) == math.inf
        assert journal.leases.lapse(later(1e9)) == []
        process.kill()
        process.wait()
        assert [each.candidate for each in journal.leases.lapse(NOON)] == ["c0000"]


def test_a_process_is_known_by_its_beginning_and_hidden_elsewhere() -> None:
    own = process_identity()
    if own is None:
        pytest.skip("this system does not tell processes apart")
    assert is_alive(own) is True
    assert is_alive(own.rpartition(":")[0] + ":1") is False  # another process of the same number
    assert is_alive(own.replace(boot(), "0" * 16)) is None


def test_the_first_observation_counts_once_and_a_late_one_is_labelled(journal: Journal) -> None:
    with journal:
        first = journal.leases.grant("c0000", ANN, 60, NOON)
        journal.leases.lapse(later(61))
        second = journal.leases.grant("c0000", BOB, 60, later(62))
        assert journal.leases.tell(Observation(candidate(), 70.0), first.id)
        assert not journal.leases.tell(Observation(candidate(), 80.0), second.id)
        assert [each.value for each in journal.observations()] == [70.0]
        assert [each.outcome for each in journal.attempts("c0000")] == ["observed late", "overtaken"]
        late = [document for _, kind, document in journal.events() if kind == "late"]
    told = [(each["holder"], each["outcome"], each["counted"], each["value"]) for each in late]
    assert told == [("ann", "lost", True, 70.0), ("bob", "overtaken", False, 80.0)]


def test_a_lease_that_is_given_back_is_over(journal: Journal) -> None:
    with journal:
        lease = journal.leases.grant("c0000", ANN, 60)
        journal.leases.end(lease.id)
        journal.leases.end(lease.id)
        assert journal.leases.open() == []
        assert journal.leases.grant("c0000", BOB, 60).attempt == 2
        with pytest.raises(LeaseError, match="there is no 'nobody'"):
            journal.leases.find("nobody")


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, 1e9])
def test_a_lease_has_a_sensible_length(journal: Journal, seconds: float) -> None:
    with journal, pytest.raises(JournalError, match="a lease must last more than 0"):
        journal.leases.grant("c0000", ANN, seconds)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_a_worker_has_a_printable_name(name: str) -> None:
    with pytest.raises(JournalError, match="a worker's name must have 1 to 200 printable characters"):
        Holder(name)


def test_a_transaction_within_another_is_a_part_of_it(journal: Journal) -> None:
    with journal:
        with pytest.raises(JournalError, match="somebody does"):
            _granted_twice(journal)
        assert [each.id for each in journal.candidates()] == ["c0000"]
        assert journal.leases.open() == []


def _granted_twice(journal: Journal) -> None:
    with journal.writing():
        journal.commit_candidates([candidate(1)])
        for holder in (ANN, BOB):
            journal.leases.grant("c0001", holder, 60)


def test_those_who_share_a_run_keep_a_driver_out_and_it_keeps_them_out(tmp_path: Path) -> None:
    with Journal.share(tmp_path, HEADER) as one, Journal.share(tmp_path) as other:
        one.commit_candidates([candidate()])
        assert other.candidates() == [candidate()]
        other.commit_observation(Observation(candidate(), 1.0))
        assert [each.value for each in one.observations()] == [1.0]
        with pytest.raises(JournalError, match="one driver at a time"):
            Journal.create_or_open(tmp_path, HEADER)
        assert len(one.sessions()) == 1  # whoever joins with the same header begins none
    with (
        Journal.create_or_open(tmp_path, HEADER),
        pytest.raises(JournalError, match=r"one driver at a time .* but process \d+ holds it"),
    ):
        Journal.share(tmp_path)
    with pytest.raises(JournalError, match=r"`objective.name` was accuracy and is now loss"):
        Journal.share(tmp_path, replace(HEADER, objective=Objective("loss", "")))
    with Journal.share(tmp_path, replace(HEADER, trials=9)) as extended:
        assert extended.header.trials == 9


def test_a_damaged_journal_is_recovered_by_who_is_alone(tmp_path: Path) -> None:
    with Journal.share(tmp_path, HEADER) as journal:
        journal.commit_candidates([candidate()])
    (tmp_path / "journal.sqlite").write_bytes(b"nonsense" * 100)
    with Journal.share(tmp_path) as journal:
        assert journal.note is not None
        assert journal.candidates() == [candidate()]


def _is_locked(path: Path) -> bool:
    """Whether another process holds SQLite's lock of those who have a database open (os_unix.c)."""
    code = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'rb+') as file:\n"
        "    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0 or "BlockingIOError" in done.stderr, done.stderr
    return done.returncode != 0


def test_opening_a_database_again_gives_up_no_lock_of_this_process(tmp_path: Path) -> None:
    # a lock that is lost lets another process take away the log of what was committed
    with Journal.share(tmp_path, HEADER), Journal.read(tmp_path) as reader:
        assert reader.header
        Journal.share(tmp_path).close()
        assert _is_locked(tmp_path / "journal.sqlite")
        Journal.read(tmp_path).close()
        assert _is_locked(tmp_path / "journal.sqlite")
        Runs(tmp_path.parent).journal(tmp_path.name)
        assert status(tmp_path)
        assert _is_locked(tmp_path / "journal.sqlite")
    with Tokens(tmp_path) as tokens:
        assert not tokens.all()
        with Tokens(tmp_path) as others:
            assert others.make("own")
        assert _is_locked(tmp_path / SERVICE / FILE)
        Requests(tmp_path).close()
        assert _is_locked(tmp_path / SERVICE / FILE)


def test_a_file_of_a_version_that_is_only_read_is_told_before_it_is_written(tmp_path: Path) -> None:
    Journal.share(tmp_path, HEADER).close()
    (tmp_path / "journal.backup.sqlite").unlink(missing_ok=True)
    with open(tmp_path / "journal.sqlite", "r+b") as file:
        file.seek(18)
        file.write(b"\x03")
    with pytest.raises(JournalError, match="SQLite reads but does not write"):
        Journal.share(tmp_path)
