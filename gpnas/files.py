"""How files are opened and replaced, and what a misspelt name may mean, for the parts of the search that
know nothing else of the trainers."""

import lzma
import os
from pathlib import Path

from gpnas_trainers.files import check as check
from gpnas_trainers.files import descriptor_of as descriptor_of
from gpnas_trainers.files import is_full as is_full
from gpnas_trainers.files import is_locked as is_locked
from gpnas_trainers.files import look_at as look_at
from gpnas_trainers.files import opened as opened
from gpnas_trainers.files import read as read
from gpnas_trainers.files import replacing as replacing
from gpnas_trainers.files import sync as sync
from gpnas_trainers.files import turn as turn
from gpnas_trainers.nearest import did_you_mean as did_you_mean
from gpnas_trainers.nearest import nearby as nearby

SERVICE = ".service"
"""Folder of a service's own beside its runs; no run has such a name."""


def ray_token_file() -> Path:
    """The file with the token that Ray's services ask for, where Ray looks for it; it may be missing."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def packaged(room: str, name: str) -> bytes:
    """A file that pages ask for, from a room's folder `assets`, where a large one is kept as `NAME.xz`."""
    path = Path(__file__).parent / room / "assets" / name
    compressed = path.with_name(f"{name}.xz")
    return lzma.decompress(compressed.read_bytes()) if compressed.exists() else path.read_bytes()
