"""The process in which a training of one's own runs, as whoever started it hears and ends it."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpnas.own_training import OwnTask, failed, to_line

PATIENCE_SECONDS = 3.0
"""So long a training that is told to stop may take to end, before it is killed."""
STACK_SECONDS = 0.5
"""So long a process may take to write where it is."""


class KilledError(RuntimeError):
    """The training's process was killed from outside, as where memory runs out; another may do better."""


class OwnProcess:
    """A process that trains once, with all that it starts."""

    def __init__(self, task: OwnTask, log: Path, variables: Mapping[str, str] | None = None) -> None:
        """Starts it.

        Args:
            task: what is trained.
            log: gets what the training prints.
            variables: of its environment, besides this process's.

        Raises:
            OSError: it cannot be started, or its log not be written.
        """
        self._task, self._log = task, log
        self._file = str(task.code["network"]).rpartition(":")[0]
        self._heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reported = False
        with open(log, "a") as said:
            print(f"--- attempt {task.attempt}", file=said, flush=True)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpnas.own_training"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
                env={**os.environ, **(variables or {}), "PYTHONUNBUFFERED": "1"},
            )
        self._say(to_line(task))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def hear(self, seconds: float) -> dict[str, Any] | None:
        """The next thing that the training says: a report, or its end; None where it says nothing so long.

        Raises:
            KilledError: it was killed.
        """
        try:
            document = self._heard.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            return None
        if document is None:
            return self._silent_end()
        self._reported |= document["kind"] == "report"
        return document

    def too_long(self, hours: float) -> str:
        """What is told of a training that goes on for longer than it may: where it is, and the rule."""
        before = self._log.stat().st_size
        self.process.send_signal(signal.SIGUSR1)  # has it write where it is
        time.sleep(STACK_SECONDS)
        with open(self._log, errors="replace") as text:
            text.seek(before)
            found = re.search(rf'File "{re.escape(self._file)}", line (\d+)', text.read())
        place = f"{self._file}:{found[1]}" if found else self._file
        return f"{place}: a training must end within --trial-hours {hours:g}, but went on"

    def end(self) -> None:
        """Has the training stop, and ends it and all that it started."""
        self._say("stop\n")
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_SECONDS if self._reported else 0)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._listener.join()
        with suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _silent_end(self) -> dict[str, Any]:
        """What it means that the process ended without a last word."""
        code = self.process.wait()
        if code < 0:
            raise KilledError(f"{self._task.id}: its process was ended by signal {-code}")
        return failed(f"{self._file}: it ended its process with exit code {code}")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as said:
            for line in said:
                with suppress(ValueError):
                    self._heard.put(json.loads(line))
        self._heard.put(None)
