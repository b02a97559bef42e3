"""Which images a command is to upscale, and the file that each result goes to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gpnas.errors import DataError
from gpnas_trainers.images import SUFFIXES, list_images

LONGEST = 255
"""Bytes of a file's name that usual file systems take."""


def targets(inputs: Sequence[Path], output: Path, say: Callable[[str], None]) -> list[tuple[Path, Path]]:
    """Each image with the file of its result; those in a folder are PNG, named as the images.

    Args:
        inputs: images, and folders of them.
        output: a file for a single image, else a folder.
        say: gets a line for each file that is left out, and for each result with another name.

    Raises:
        DataError: there are no images, a result would replace an image, or the output is not what it must
            be.
    """
    files: list[Path] = []
    for path in inputs:
        files += _images(path, say) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{inputs[0]}: must hold images ({', '.join(SUFFIXES)}), but holds none")
    folder = next((path for path in inputs if path.is_dir()), None)
    if len(files) == 1 and folder is None and output.suffix and not output.is_dir():
        return _apart([(files[0], output)])
    if not output.is_dir() and (output.exists() or output.suffix.lower() in SUFFIXES):
        many = f"{folder} is one" if folder is not None else f"there are {len(files)} images"
        raise DataError(f"{output}: must be a folder, since {many}; name a folder, or one image for one file")
    taken: dict[str, Path] = {}
    pairs = []
    for path in files:
        name, number = _named(path.stem, ""), 2
        while name.casefold() in taken:  # which some file systems do not tell apart
            name, number = _named(path.stem, f"-{number}"), number + 1
        if number > 2:
            first = taken[_named(path.stem, "").casefold()]
            say(f"{path}: its result is {name}, since {first} has that name too")
        taken[name.casefold()] = path
        pairs.append((path, output / name))
    return _apart(pairs)


def _images(folder: Path, say: Callable[[str], None]) -> list[Path]:
    try:
        images, left_out = list_images(folder)
    except OSError as error:
        raise DataError(f"{folder}: a folder must be readable, but got: {error.strerror or error}") from None
    for each in left_out:
        say(f"{each.path}: left out, {each.why}")
    return images


def _named(stem: str, end: str) -> str:
    """A file's name, cut where the number would make it too long."""
    ending = f"{end}.png"
    while len(os.fsencode(stem + ending)) > LONGEST:
        stem = stem[:-1]
    return stem + ending


def _apart(pairs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """The pairs, unless a target is one of the images, by whatever name."""
    images = {(found.st_dev, found.st_ino): path for path, _ in pairs for found in _found(path)}
    for _, target in pairs:
        for found in _found(target):
            if (found.st_dev, found.st_ino) in images:
                source = images[found.st_dev, found.st_ino]
                raise DataError(
                    f"{target}: a result must not replace an image, but this is {source}; "
                    "choose another output"
                )
    return pairs


def _found(path: Path) -> list[os.stat_result]:
    try:
        return [path.stat()]
    except (OSError, ValueError):  # told when it is opened
        return []
