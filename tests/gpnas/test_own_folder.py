"""Folders of trainings of one's own, where the storage has none: packed, kept, and begun with again."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gpnas.run import own_folder
from gpnas.run.own_errors import keep_errors, read_errors
from gpnas.run.own_folder import Snapshots, begun, unpack
from gpnas.run.storage import Objects

NAME = "candidates/c0000"


@pytest.fixture(params=["tarfile", "backports.tarfile"], autouse=True)
def _either_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own, and what stands for it before 3.11.4."""
    library = pytest.importorskip(request.param)
    if not hasattr(library, "data_filter"):
        pytest.skip("this Python's has no filters")
    monkeypatch.setattr(own_folder, "tarfile", library)


@pytest.fixture
def storage() -> Objects:
    """A filesystem of pyarrow's that lies in memory."""
    return Objects("mock:///run")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_what_an_attempt_leaves_the_next_begins_with(storage: Objects) -> None:
    first = begun(storage, NAME, 1)
    own = first.path / "own"
    (own / "deep" / "empty").mkdir(parents=True)
    (own / "deep" / "model.pt").write_bytes(os.urandom(100_000))
    (own / "last").symlink_to("deep/model.pt")
    (own / "out").symlink_to("/etc/passwd")
    (own / "up").symlink_to("../../..")
    os.mkfifo(own / "pipe")
    keep_errors(first.path / "errors.npy", [[1.0, 2.0]])
    (first.path / "trial.log").write_text("said\n")
    Snapshots(Path(first.snapshot)).take(last=True)
    first.keep(3.5, last=True)
    left = contents(own)
    first.close()
    assert not first.path.exists()
    second = begun(storage, NAME, 2)
    assert second.path != first.path
    del left["out"]
    assert contents(second.path / "own") == left
    assert os.readlink(second.path / "own" / "last") == "deep/model.pt"
    assert (second.path / "own" / "deep" / "empty").is_dir()
    assert {path.name for path in (second.path / "own").iterdir()} == {"deep", "last"}
    assert read_errors(second.path / "errors.npy").tolist() == [[1.0, 2.0]]
    assert (second.path / "seconds").read_text() == "3.500"
    assert f"the folder is that of {NAME}/attempt-1/own.tar" in (second.path / "trial.log").read_text()
    second.close()


def test_a_damaged_copy_gives_way_to_the_one_before(storage: Objects, tmp_path: Path) -> None:
    first = begun(storage, NAME, 1)
    (first.path / "own" / "step").write_text("7")
    Snapshots(Path(first.snapshot)).take(last=True)
    first.keep(1.0, last=True)
    whole = storage.read(f"{NAME}/attempt-1/own.tar")
    storage.write(f"{NAME}/attempt-2/own.tar", whole[:700])
    storage.write(f"{NAME}/attempt-3/own.tar", b"torn")
    escaping = io.BytesIO()
    with tarfile.open(fileobj=escaping, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    storage.write(f"{NAME}/attempt-4/own.tar", escaping.getvalue())
    last = begun(storage, NAME, 5)
    assert (last.path / "own" / "step").read_text() == "7"
    log = (last.path / "trial.log").read_text()
    for attempt in (2, 3, 4):
        assert f"attempt-{attempt}/own.tar is damaged" in log
    assert not (last.path.parent / "escaped").exists()
    for each in (first, last):
        each.close()


def test_a_folder_is_packed_where_it_changed_and_not_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    path = tmp_path / "own.tar"
    snapshots = Snapshots(path)
    snapshots.take()
    made = path.stat().st_mtime_ns
    (tmp_path / "own" / "step").write_text("1")
    snapshots.take()  # too soon
    assert path.stat().st_mtime_ns == made
    snapshots.take(last=True)
    unpack(path, tmp_path / "copy")
    assert (tmp_path / "copy" / "own" / "step").read_text() == "1"
    made = path.stat().st_mtime_ns
    snapshots.take(last=True)  # nothing changed
    assert path.stat().st_mtime_ns == made
    monkeypatch.setattr(own_folder, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(own_folder, "KEEP_SHARE", 1e9)
    again = Snapshots(path)
    for step in range(3):
        np.save(tmp_path / "own" / "step.npy", step)
        again.take()
        unpack(path, tmp_path / "copy")
        assert np.load(tmp_path / "copy" / "own" / "step.npy") == step
