"""Opening what someone else may have written; replacing files as a whole."""

import os
import socket
from pathlib import Path

import pytest

from gpnas_trainers.files import check, descriptor_of, opened, read, replacing


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    assert read(path, 7) == b"content"
    with opened(path) as file:
        assert file.read() == b"content"
    with pytest.raises(OSError, match="at most 6 bytes, but has 7"):
        read(path, 6)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    (tmp_path / "link").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        kinds = {"link": "a link", "pipe": "a pipe", "folder": "a folder", "socket": "a socket"}
        for name, kind in kinds.items():
            for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
                with pytest.raises(OSError, match=f"must be a regular file, but is {kind}"):
                    descriptor_of(tmp_path / name, flags)
    with pytest.raises(OSError, match="must be a regular file, but is a device"):
        check(Path("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "none")


def test_a_link_is_followed_only_where_a_user_names_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read(tmp_path / "link", 9, follow=True) == b"1"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to-pipe").symlink_to(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe"):
        read(tmp_path / "to-pipe", 9, follow=True)


def test_a_file_is_replaced_as_a_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)  # 254 of the 255 bytes that a name may have
    with replacing(path) as new:
        new.write_text("first")
        assert not path.exists()
    with pytest.raises(OSError, match="full"), replacing(path) as new:
        _write_half(new)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as new:
        new.write_text("second")
    assert path.read_text() == "second"


def _write_half(path: Path) -> None:
    path.write_text("half")
    raise OSError("the disk is full")
