"""Files that someone else may have written, opened with care; files of one's own, whole or not there."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def is_full(error: object) -> bool:
    """Whether an error says that a disk is full, or a user's part of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def descriptor_of(
    path: Path, flags: int = os.O_RDONLY, *, most: int | None = None, follow: bool = False
) -> int:
    """A descriptor of a regular file, for `os.close`.

    A pipe would make the reader wait for ever, a device may never end, and a link in a folder that someone
    else has written leads to a file outside it: none of them is opened.

    Args:
        path: of the file.
        flags: as `os.open` takes them; `O_CREAT` makes the file where there is none.
        most: bytes that it may hold; None: any number.
        follow: whether `path` may be a link to the file, as where a user names it.

    Raises:
        OSError: the file is missing, of another kind or too large, or cannot be opened.
    """
    with suppress(FileNotFoundError):  # before it is opened, since that alone has effects on a device
        _check(os.stat(path, follow_symlinks=follow), most)
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError("it must be a regular file, but is a link") from None
        raise
    try:
        _check(os.fstat(descriptor), most)  # another may lie there by now
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def opened(path: Path, *, most: int | None = None, follow: bool = False) -> IO[bytes]:
    """A regular file, open to be read; arguments and errors as `descriptor_of`."""
    return os.fdopen(descriptor_of(path, most=most, follow=follow), "rb")


def read(path: Path, most: int, *, follow: bool = False) -> bytes:
    """The content of a regular file; arguments and errors as `descriptor_of`."""
    with opened(path, most=most, follow=follow) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"it must have at most {most:,} bytes, but has more")
    return content


def check(path: Path, *, most: int | None = None, follow: bool = False) -> None:
    """Raises what `descriptor_of` raises; for libraries that open a path by themselves."""
    os.close(descriptor_of(path, most=most, follow=follow))


def look_at(path: Path, *, most: int | None = None) -> None:
    """Raises what `descriptor_of` raises, without opening the file; a missing file is no error.

    Closing any descriptor of a file gives up all POSIX locks that the process holds on it, those of a
    database that is open included (`fcntl(2)`, and section 2.2 of SQLite's "How To Corrupt"). So a file
    that such a library locks is looked at by its name alone.
    """
    with suppress(FileNotFoundError):
        _check(os.stat(path, follow_symlinks=False), most)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a new file, which takes the place of `path` once the block has ended well.

    The file is synced before it is renamed, so that even after a power cut `path` is there wholly or as it
    was. Where the block fails, nothing is left behind.
    """
    # short, whatever the length of the final name, and another one in each process of each machine
    temporary = path.with_name(f".gpnas-{secrets.token_hex(8)}.part")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        with suppress(OSError):  # some network file systems cannot
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Has the disk hold a file, or the names in a folder, before anything else happens."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """The lock of a file, which one process at a time has, made where it is missing; others wait for it.

    Raises:
        OSError: as `descriptor_of`.
    """
    descriptor = descriptor_of(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether some process has the lock of a file; errors as `descriptor_of`."""
    descriptor = descriptor_of(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _check(status: os.stat_result, most: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in KINDS if is_kind(status.st_mode)), "a device")
        raise OSError(f"it must be a regular file, but is {kind}")
    if most is not None and status.st_size > most:
        raise OSError(f"it must have at most {most:,} bytes, but has {status.st_size:,}")
