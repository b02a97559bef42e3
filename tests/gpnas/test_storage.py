"""Storage: names, whole artefacts, prepared pairs on nodes that lack them, copies of the journal."""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from gpnas.errors import TrialError
from gpnas.journal import Header, Journal
from gpnas.records import Architecture, Candidate, Fidelity, Observation
from gpnas.run.copying import JournalCopy, fetch_journal
from gpnas.run.setup import PSNR
from gpnas.run.sharing import fingerprint_of, opened, share
from gpnas.run.storage import Folder, Objects, Storage, open_storage
from gpnas_trainers.pairs import Camera, PairsError, open_pairs, prepare_folder


@pytest.fixture(params=["folder", "pyarrow"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A folder as we do it, and the same through pyarrow's interface, by which S3 goes too."""
    (tmp_path / "root").mkdir()
    if request.param == "folder":
        return Folder(tmp_path / "root")
    return Objects(f"file://{tmp_path}/root")


def test_artefacts_are_plain_files_under_the_root(storage: Storage, tmp_path: Path) -> None:
    storage.write("candidates/c0001/network.bin", b"one")
    storage.write("candidates/c0001/network.bin", b"another")
    assert (tmp_path / "root/candidates/c0001/network.bin").read_bytes() == b"another"
    assert storage.read("candidates/c0001/network.bin") == b"another"
    assert storage.exists("candidates/c0001")
    assert not storage.exists("candidates/c0002")
    assert storage.names("candidates/c0002") == []
    with pytest.raises(FileNotFoundError):
        storage.read("candidates/c0002/network.bin")
    with pytest.raises(FileNotFoundError):
        storage.fetch("candidates/c0002/network.bin", tmp_path / "file")


def test_names_come_newest_first_and_without_what_is_half_there(storage: Storage, tmp_path: Path) -> None:
    for number, moment in enumerate((2, 3, 1)):
        storage.write(f"c/attempt-{number}/checkpoint.pt", b"x")
        os.utime(tmp_path / f"root/c/attempt-{number}/checkpoint.pt", (moment, moment))
    (tmp_path / "root/c/attempt-0/.checkpoint.pt.host.1").write_bytes(b"half")
    assert storage.names("c") == [f"c/attempt-{number}/checkpoint.pt" for number in (1, 0, 2)]


def test_what_fails_half_way_changes_nothing(storage: Storage, tmp_path: Path) -> None:
    storage.write("a/file", b"old")

    def interrupted() -> None:
        with storage.writing("a/file") as path:
            path.write_bytes(b"ne")
            raise RuntimeError("the process fails")

    with pytest.raises(RuntimeError):
        interrupted()
    assert storage.read("a/file") == b"old"
    assert os.listdir(tmp_path / "root/a") == ["file"]


def test_of_several_who_claim_a_folder_at_most_one_gets_it(storage: Storage) -> None:
    """A local folder always goes to one; without such a thing, whoever meets another goes on to the next."""
    gate = threading.Barrier(8)
    got: list[bool] = []

    def claim() -> None:
        gate.wait()
        got.append(storage.claim("c/attempt-1"))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert sum(got) <= 1
    assert sum(got) == 1 or isinstance(storage, Objects)
    assert not storage.claim("c/attempt-1")
    assert storage.claim("c/attempt-2")


def test_a_claimed_folder_is_claimed_once(storage: Storage) -> None:
    assert storage.claim("c/attempt-1")
    assert not storage.claim("c/attempt-1")
    assert storage.claim("c/attempt-2")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/.", "a\\b", "a:b", "a/\n"])
def test_names_that_could_leave_the_storage_are_refused(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="an artefact's name must be relative"):
        storage.read(name)


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("run").uri == open_storage(f"file://{tmp_path}/run").uri == str(tmp_path / "run")
    with pytest.raises(TrialError, match=r"nowhere://x: a storage must be a path or an address"):
        open_storage("nowhere://x")
    for secret in ("s3://user:hunter2@bucket/run", "s3://bucket/run?secret_key=hunter2"):
        with pytest.raises(TrialError, match="must hold no secrets") as caught:
            open_storage(secret)
        assert "hunter2" not in str(caught.value)


def test_a_node_that_lacks_the_pairs_fetches_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixel for pixel, also when two of its workers ask at once; what is damaged on the way is refused."""
    (tmp_path / "photographs").mkdir()
    for number in range(4):
        image = Image.effect_noise((64, 64), 20 + 10 * number).convert("RGB")
        image.save(tmp_path / f"photographs/{number}.png")
    folder = prepare_folder(tmp_path / "photographs", tmp_path / "driver", 2, camera=Camera())
    train, validation = open_pairs(folder, "train"), open_pairs(folder, "validation")
    fingerprint = fingerprint_of(train, validation)
    storage = open_storage(str(tmp_path / "storage"))
    assert opened(str(folder), fingerprint, storage.uri)[0].fingerprint == train.fingerprint  # no fetch
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "node"))
    gone = str(tmp_path / "gone")
    with pytest.raises(TrialError, match="a node must have the prepared pairs"):
        opened(gone, fingerprint, storage.uri)
    share(folder, fingerprint, storage)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(opened.__wrapped__(gone, fingerprint, storage.uri)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours in found:
        for mine, theirs in zip(ours, (train, validation), strict=True):
            for index in range(len(theirs)):
                for a, b in zip(mine.image(index), theirs.image(index), strict=True):
                    assert (a == b).all()
    assert len(found) == 2
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "other"))
    place = tmp_path / "storage/pairs" / fingerprint
    shard = next(path for path in place.iterdir() if path.name != "manifest.json")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(PairsError, match="SHA-256"):
        opened.__wrapped__(gone, fingerprint, storage.uri)
    assert not list((tmp_path / "other").glob("*.new"))


def test_a_lost_journal_comes_back_from_its_copy(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "storage"))
    candidates = [
        Candidate(f"c{number:04d}", Architecture("net", {"size": number}), Fidelity(1), seed=number)
        for number in range(3)
    ]
    run = tmp_path / "run"
    with Journal.create_or_open(run, Header(3, PSNR)) as journal, JournalCopy(run, storage, print) as copy:
        journal.commit_candidates(candidates)
        copy.touch()
    assert fetch_journal(run, storage) is None  # it has its own
    note = fetch_journal(tmp_path / "new", storage)
    assert note is not None
    assert "going on from its copy" in note
    with Journal.create_or_open(tmp_path / "new", Header(3, PSNR)) as journal:
        assert journal.candidates() == candidates


def test_an_older_journal_does_not_replace_a_newer_copy(tmp_path: Path) -> None:
    """As where a job on one machine began a search, one on another went on, and the first does again."""
    storage = open_storage(str(tmp_path / "storage"))
    candidates = [
        Candidate(f"c{number:04d}", Architecture("net", {"size": number}), Fidelity(1), seed=number)
        for number in range(3)
    ]
    first, second = tmp_path / "first", tmp_path / "second"
    for run in (first, second):
        fetch_journal(run, storage)
        with Journal.create_or_open(run, Header(3, PSNR)) as journal, JournalCopy(run, storage, print):
            journal.commit_candidates(candidates[len(journal.candidates()) :][:1])
            journal.commit_observation(Observation(journal.candidates()[-1], 30.0))
    copied = (tmp_path / "storage" / "journal.sqlite").read_bytes()
    with (
        Journal.create_or_open(first, Header(3, PSNR)),
        pytest.raises(TrialError, match=rf"has 1 observations which it lacks; move {first} away"),
        JournalCopy(first, storage, print),
    ):
        pass
    assert (tmp_path / "storage" / "journal.sqlite").read_bytes() == copied
    first.rename(tmp_path / "away")
    fetch_journal(first, storage)
    with Journal.create_or_open(first, Header(3, PSNR)) as journal, JournalCopy(first, storage, print):
        assert [each.candidate for each in journal.observations()] == candidates[:2]


def test_a_copy_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    """It may be a newer gpnas's, or all that is left of a search."""
    storage = open_storage(str(tmp_path / "storage"))
    with (
        Journal.create_or_open(tmp_path / "run", Header(3, PSNR)),
        JournalCopy(tmp_path / "run", storage, print),
    ):
        pass
    copy = tmp_path / "storage" / "journal.sqlite"
    with closing(sqlite3.connect(copy)) as newer:
        newer.execute("PRAGMA user_version=99")
        newer.commit()
    before = copy.read_bytes()
    with (
        Journal.create_or_open(tmp_path / "run", Header(3, PSNR)),
        pytest.raises(TrialError, match=r"the journal's copy there must be readable before .* newer"),
        JournalCopy(tmp_path / "run", storage, print),
    ):
        pass
    assert copy.read_bytes() == before


def test_a_storage_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = open_storage(str(tmp_path / "file/below"))
    with (
        Journal.create_or_open(tmp_path / "run", Header(3, PSNR)),
        pytest.raises(TrialError, match="a run's storage must be readable and writable, but"),
        JournalCopy(tmp_path / "run", storage, print),
    ):
        pass
