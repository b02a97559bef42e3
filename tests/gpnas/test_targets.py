"""Which file each result goes to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpnas.errors import DataError
from gpnas.targets import targets


def lay_out(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode(errors="surrogateescape"))
    return root


def test_equal_names_stop_nothing(tmp_path: Path) -> None:
    lay_out(tmp_path, "a/DSC1.jpg", "a/DSC1.png", "a/dsc1.tif", "a/DSC2.jpg", "b/DSC1.jpg", "a/._DSC1.jpg")
    lines: list[str] = []
    pairs = targets([tmp_path / "a", tmp_path / "b"], tmp_path / "out", lines.append)
    assert [(str(path.relative_to(tmp_path)), target.name) for path, target in pairs] == [
        ("a/DSC1.jpg", "DSC1.png"),
        ("a/DSC1.png", "DSC1-2.png"),
        ("a/DSC2.jpg", "DSC2.png"),
        ("a/dsc1.tif", "dsc1-3.png"),
        ("b/DSC1.jpg", "DSC1-4.png"),
    ]
    assert len(lines) == 3
    first, second = tmp_path / "a" / "DSC1.jpg", tmp_path / "a" / "DSC1.png"
    assert lines[0] == f"{second}: its result is DSC1-2.png, since {first} has that name too"


def test_one_image_and_a_folder_that_is_called_like_an_image(tmp_path: Path) -> None:
    lay_out(tmp_path, "in/a.jpg", "file.txt")
    (tmp_path / "out.png").mkdir()
    image = tmp_path / "in" / "a.jpg"
    assert targets([image], tmp_path / "out.png", print) == [(image, tmp_path / "out.png" / "a.png")]
    assert targets([image.parent], tmp_path / "out.png", print) == [(image, tmp_path / "out.png" / "a.png")]
    assert targets([image], tmp_path / "sr.webp", print) == [(image, tmp_path / "sr.webp")]
    with pytest.raises(DataError, match=r"sr.png: must be a folder, since .*in is one; name a folder"):
        targets([image.parent], tmp_path / "sr.png", print)
    with pytest.raises(DataError, match=r"file.txt: must be a folder, since .*in is one"):
        targets([image.parent], tmp_path / "file.txt", print)
    with pytest.raises(DataError, match=r"must be a folder, since there are 2 images"):
        targets([image, image], tmp_path / "sr.png", print)
    with pytest.raises(DataError, match="a result must not replace an image"):
        targets([image], image, print)
    with pytest.raises(DataError, match="must hold images"):
        targets([tmp_path / "out.png"], tmp_path / "out", print)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=250).map(os.fsdecode), min_size=1, max_size=6))
def test_every_result_has_a_legal_name_of_its_own(stems: list[str]) -> None:
    files = [Path("in", f"{stem.replace('/', '_').replace(chr(0), '_')}.png") for stem in stems]
    pairs = targets(files, Path("out"), lambda line: None)
    assert [path for path, _ in pairs] == files
    names = [target.name for _, target in pairs]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(len(os.fsencode(name)) <= 255 for name in names)
