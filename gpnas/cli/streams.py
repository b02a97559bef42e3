"""Standard streams that never fail a command: of any encoding, closed, full, or without a reader."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

ASCII = {
    "×": "x", "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "±": "+-", "·": ".", "′": "'",
    "σ": "sigma", "τ": "tau", "λ": "lambda", "≤": "<=", "≥": ">=", "⁰": "^0", "¹": "^1", "²": "^2", "³": "^3",
    "⁴": "^4", "⁵": "^5", "⁶": "^6", "⁷": "^7", "⁸": "^8", "⁹": "^9", "━": "-", "╸": "-", "╺": "-", "•": "*",
    "▁": "_", "▂": ".", "▃": ":", "▄": "-", "▅": "=", "▆": "+", "▇": "*", "█": "#",
}  # fmt: skip
"""What stands for a character of ours where the terminal's encoding has none for it."""


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    escaped = (each.encode("ascii", "backslashreplace").decode() for each in text)
    return "".join(map(ASCII.get, text, escaped)), error.end


codecs.register_error("gpnas", _in_ascii)


class Stream(io.TextIOBase):
    """A stream whose writes never raise; what kept text from its reader is its `problem`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.problem: OSError | None = None

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        if not self._stream.closed:  # Python 3.13 tells what flushing a closed one raises at the very end
            self._try(self._stream.flush)

    def _try(self, call: Any, *arguments: str) -> None:
        if self.problem is not None:
            return
        try:
            call(*arguments)
        except OSError as error:
            self.problem = error
            # so that what is left in the buffer does not fail the interpreter's end
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), self._stream.fileno())

    @property
    def lost(self) -> OSError | None:
        """What kept text from a reader that waits for it; one that went away, as `head` does, does not."""
        gone = self.problem is None or self.problem.errno == errno.EPIPE
        return None if gone else self.problem

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    @property
    def buffer(self) -> Any:
        return self._stream.buffer

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextmanager
def safe_streams() -> Iterator[None]:
    """Makes stdout and stderr streams that never fail, for a while.

    Raises:
        SystemExit: at the end, with 1 where something that was written to stdout is lost on a full disk or
            the like. A stdout that is closed, or whose reader went away, wants no more.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    streams = []
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="gpnas")
        streams.append(Stream(stream))
    sys.stdout, sys.stderr = streams
    success: SystemExit | None = None
    try:
        yield
    except SystemExit as end:
        if end.code:
            raise
        success = end
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
    if streams[0].lost is not None:
        print(f"error: stdout could not be written: {streams[0].lost.strerror}", file=streams[1])
        streams[1].flush()
        raise SystemExit(1)
    if success is not None:
        raise success


def _fill_descriptors() -> None:
    """Opens the standard descriptors that are closed, lest a journal get the number that others print to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
