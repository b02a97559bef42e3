"""Files of tensors as PyTorch writes them: nothing in one is ever run, and errors stay what they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor


def save_tensors(document: Any, path: Path) -> None:
    """Writes what `torch.save` writes, but an error of the file stays what it is.

    PyTorch's zip writer also writes while it is closed after an error, finds its position to be another
    than it remembers, and raises a `RuntimeError` in place of the file's `OSError`.
    """
    with open(path, "xb") as file:
        recorder = _Recorder(file)
        try:
            torch.save(document, recorder)  # type: ignore[arg-type]
        finally:
            if recorder.error is not None:
                raise recorder.error


def load_tensors(file: IO[bytes]) -> Any:
    """Tensors, numbers and texts of a file that `torch.save` wrote, on the CPU.

    Raises:
        ValueError: it holds anything else, or is damaged; one line, a reason to follow "but".
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damage can raise anything in who decodes it
        text = str(error)
        if unknown := re.search(r"GLOBAL (\S+)", text):
            reason = (
                f"it holds an object of Python, {unknown[1]}, which is not loaded, since that could run code"
            )
        elif "TorchScript" in text:
            reason = "it is a TorchScript archive, which holds code"
        elif "weights_only" in text or "Weights only" in text:  # PyTorch's advice would run the file's code
            reason = "it holds more than tensors, numbers and texts, or is damaged"
        else:
            reason = (text.splitlines() or [type(error).__name__])[0]
        raise ValueError(reason) from None


def not_finite(document: Any, name: str = "") -> str | None:
    """The name of the first tensor of a nested document that holds an infinity or a NaN; None without one."""
    match document:
        case Tensor():
            return None if bool(document.isfinite().all()) else name
        case Mapping():
            parts = document.items()
        case list() | tuple():
            parts = enumerate(document)  # type: ignore[assignment]
        case _:
            return None
    return next((at for key, part in parts if (at := not_finite(part, f"{name}.{key}".lstrip(".")))), None)


class _Recorder:
    """A file that remembers its first error and takes nothing after it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self.error = error
        raise self.error

    def flush(self) -> None:
        self._file.flush()
