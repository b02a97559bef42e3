"""Which files of a folder are images: one rule, for whatever lists a folder.

A name decides, by its ending. Hidden files and folders are passed over, `._IMG_1.JPG` of a Mac among them,
as is `__MACOSX`. What leads out of the folder, or is no regular file, is left out with a reason.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpnas_trainers.files import check
from gpnas_trainers.images.encoding import SUFFIXES


@dataclass(frozen=True)
class LeftOut:
    """A file whose name is that of an image, but which is not taken."""

    path: Path
    rule: Literal["inside", "readable"]
    value: str
    """What broke the rule."""
    why: str
    """The rule and the value in words."""


def list_images(folder: Path, *, deep: bool = False) -> tuple[list[Path], list[LeftOut]]:
    """The images of a folder in the order of their paths, and what is left out.

    Args:
        folder: which may itself be a link.
        deep: whether folders within are listed too; links to folders are never followed.

    Raises:
        OSError: a folder cannot be read.
    """
    home = os.path.realpath(folder)

    def raised(error: OSError) -> None:
        raise error

    images: list[Path] = []
    left_out: list[LeftOut] = []
    for place, folders, names in os.walk(folder, onerror=raised):
        folders[:] = sorted(name for name in folders if not _passed_over(name)) if deep else []
        for path in (Path(place, name) for name in (*folders, *names) if not _passed_over(name)):
            is_image = path.suffix.lower() in SUFFIXES and path.name in names
            target = os.path.realpath(path)
            if path.is_symlink() and (is_image or deep) and os.path.commonpath([home, target]) != home:
                if is_image or path.name in folders:
                    leads = os.readlink(path)
                    why = f"it must lie in the folder, but is a link that leads out of it, to {leads}"
                    left_out.append(LeftOut(path, "inside", leads, why))
            elif is_image:
                try:
                    check(path, follow=True)
                except OSError as error:
                    value = error.strerror or str(error)
                    why = value if value.startswith("it must") else f"it must be readable, but got: {value}"
                    left_out.append(LeftOut(path, "readable", value, why))
                else:
                    images.append(path)
    return sorted(images, key=lambda path: path.relative_to(folder).parts), left_out


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
