"""One listing of folders, whoever lists them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpnas_trainers.images import list_images


def test_what_is_listed_and_what_is_left_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"")
    folder = tmp_path / "folder"
    (folder / "deeper" / ".trash").mkdir(parents=True)
    (folder / "__MACOSX").mkdir()
    for name in (
        "b.JPG",
        "a.png",
        "c.jfif",
        "d.tiff",
        "._b.JPG",
        ".hidden.png",
        "notes.txt",
        "deeper/e.webp",
    ):
        (folder / name).write_bytes(b"")
    for name in ("__MACOSX/f.png", "deeper/.trash/g.png"):
        (folder / name).write_bytes(b"")
    raw = os.fsencode(folder) + b"/\xff.png"
    with open(raw, "wb"):
        pass
    (folder / "inside.png").symlink_to("a.png")
    (folder / "out.png").symlink_to(outside)
    (folder / "broken.png").symlink_to("nowhere.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    images, left_out = list_images(folder)
    names = ["a.png", "b.JPG", "c.jfif", "d.tiff", "inside.png", os.fsdecode(b"\xff.png")]
    assert [path.name for path in images] == names
    rules = {each.path.name: each.rule for each in left_out}
    assert rules == {
        "out.png": "inside",
        "broken.png": "readable",
        "loop.png": "readable",
        "pipe.png": "readable",
    }
    whys = {each.path.name: each.why for each in left_out}
    assert whys["out.png"] == f"it must lie in the folder, but is a link that leads out of it, to {outside}"
    assert whys["pipe.png"] == "it must be a regular file, but is a pipe"
    deep, _ = list_images(folder, deep=True)
    assert {path.relative_to(folder).as_posix() for path in deep} == {*names, "deeper/e.webp"}


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        list_images(tmp_path / "none")
