"""Checkpoints: files that are whole at any moment, of plain tensors and numbers."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class TrainingError(RuntimeError):
    """A training that cannot go on, or a checkpoint that does not fit it; one line."""


def write_checkpoint(path: Path, document: dict[str, Any]) -> None:
    """Writes a checkpoint; the file is whole at any moment, the old one or the new.

    Raises:
        OSError: it cannot be written, such as when the disk is full; the old one stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            torch.save(document, _OSErrors(file))  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU.

    Args:
        path: of the file.
        identity: what its own `identity` must be.

    Raises:
        TrainingError: it is torn or damaged, or of another training.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                # PyTorch writes checksums and reads past them: a changed bit would become a weight
                changed = archive.testzip()
            if changed is not None:
                raise zipfile.BadZipFile(f"the checksum of {changed} does not match")
            file.seek(0)
            document: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            found = document["identity"]
        except MemoryError:
            raise
        except Exception as error:  # damage can raise anything in who decodes it
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise TrainingError(f"{path}: a checkpoint must be whole, but {reason}") from None
    for key, value in identity.items():
        if found.get(key) != value:
            raise TrainingError(f"{path}: a checkpoint must be of the same training, but its {key} differs")
    return document


def copied(value: Any) -> Any:
    """A copy of nested dictionaries and lists of tensors and numbers, the tensors on the CPU."""
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case dict():
            return {key: copied(each) for key, each in value.items()}
        case list() | tuple():
            return type(value)(copied(each) for each in value)
    return value


class _OSErrors:
    """A file for `torch.save` that lets an `OSError` of a write through as it is."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        return int(self._file.write(data))

    def flush(self) -> None:
        self._file.flush()
