"""Someone's own source, tried in a process of its own before anything is trained.

Whatever it does there (hangs, exits, crashes the interpreter, forks, asks for all memory) costs one line, and
not the command. One process tries all.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import IO, Any, Literal, NamedTuple

from gpnas_trainers.own import Code, OwnError, entry_of, in_words, own_family, place_of

SECONDS = 120.0
"""How long each network may take to be made and tried; many times what a large one needs."""
STACK_SECONDS = 0.5
"""How long a process may take to say where it is."""
COUNTED = 16
"""Networks between two calls of `progress`."""
LOOK_SECONDS = 0.5
"""How often it is looked whether the process is still there."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rehearsal:
    """A source, and what is tried of it."""

    code: Code
    how: Literal["import", "pass", "contract", "costs"]
    """Whether it is only imported, or networks are also made and passed an image, or keep to the contract, or
    have their costs counted."""
    axes: tuple[Mapping[str, Any], ...] = ({},)
    """Those of each network."""
    family: str = "own"
    side: int | None = None
    """Side of a patch in LR pixels for which costs are to have what a training keeps; None: they have not."""


class Costs(NamedTuple):
    """What a network costs, as `gpnas_trainers.cost` counts it."""

    parameters: int
    gmacs: float
    """Those of an image of 120×120 LR pixels."""
    kept: tuple[int, int] | None
    """Numbers kept for the backward pass: once, and for each image; where they were asked for."""


def rehearse(
    rehearsals: Sequence[Rehearsal],
    scale: int,
    *,
    seconds: float = SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Costs]]:
    """Tries sources in a process of their own.

    Args:
        rehearsals: what is tried, in order.
        scale: of the networks.
        seconds: that each network may take.
        progress: called now and then with how many networks have had their costs counted, and of how many.

    Returns:
        For each of the rehearsals, the costs of its networks, where these are to be counted.

    Raises:
        OwnError: one breaks a rule, or its process; a line with file and line of its source.
    """
    if not rehearsals:
        return []
    task = {
        "path": [each for each in sys.path if isinstance(each, str)],
        "scale": scale,
        "rehearsals": [asdict(each) for each in rehearsals],
    }
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gpnas_trainers.rehearsal"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )
        try:
            with suppress(BrokenPipeError):
                assert process.stdin is not None
                process.stdin.write(json.dumps(task).encode())
                process.stdin.close()
            listener = _Listener(process, log, rehearsals, progress)
            error = listener.error(seconds)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            log.seek(0)
            logger.debug("what was tried printed: %s", log.read())
    if error:
        raise OwnError(error)
    return listener.costs


class _Listener:
    """Hears what a process says of what it tries."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        log: IO[str],
        rehearsals: Sequence[Rehearsal],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._process, self._log, self._rehearsals, self._progress = process, log, rehearsals, progress
        self._place, self._call = 0, ""
        self._heard = b""
        self.costs: list[list[Costs]] = [[] for _ in rehearsals]
        self._all = sum(len(each.axes) for each in rehearsals if each.how == "costs")

    def error(self, seconds: float) -> str:
        """What is wrong, in a line; empty where nothing is."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        deadline = time.monotonic() + SECONDS  # Python and PyTorch are loaded first
        while True:
            if not select.select([pipe], [], [], LOOK_SECONDS)[0]:
                if self._process.poll() is not None:  # while another that it forked still has the pipe
                    return self._ended()
                if time.monotonic() > deadline:
                    return self._hung(seconds)
                continue
            if not (part := os.read(pipe, 2**16)):
                return self._ended()
            *lines, self._heard = (self._heard + part).split(b"\n")
            for line in lines:
                document = json.loads(line)
                if "error" in document:
                    return str(document["error"])
                self._place = document["trying"]
                if "costs" in document:
                    self._count(*document["costs"])
                else:
                    self._call = document["call"]
                deadline = time.monotonic() + seconds

    def _count(self, parameters: int, gmacs: float, kept: list[int] | None) -> None:
        self.costs[self._place].append(Costs(parameters, gmacs, (kept[0], kept[1]) if kept else None))
        counted = sum(map(len, self.costs))
        if self._progress is not None and counted % COUNTED == 0:
            self._progress(counted, self._all)

    def _hung(self, seconds: float) -> str:
        self._process.send_signal(signal.SIGUSR1)  # has it write where it is
        time.sleep(STACK_SECONDS)
        return f"{self._where()}: {self._call} must be done within {seconds:g} s, but went on"

    def _ended(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return f"{self._where()}: {self._call} must not be killed, as where memory runs out, but was"
        if code < 0:
            return (
                f"{self._where()}: {self._call} must not crash Python, but {signal.Signals(-code).name} did"
            )
        return f"{self._where()}: {self._call} must not end its process, but did, with exit code {code}"

    def _where(self) -> str:
        """The innermost file and line of the source in the newest stack that was written."""
        code = self._rehearsals[self._place].code
        names = "|".join(re.escape(each) for each in (code.file, *code.files))
        self._log.seek(0)
        found = re.search(rf'File "({names})", line (\d+)', self._log.read())
        return f"{found[1]}:{found[2]}" if found else code.file


def _try(rehearsal: Rehearsal, scale: int, say: Any) -> None:
    """Tries a source here; errors are `OwnError`s, or whatever it does."""
    code = rehearsal.code
    if rehearsal.how != "import":
        from gpnas_trainers.contract import check_contract, check_costs, check_pass  # with PyTorch
    say(call=f"importing {code.file}")
    entry_of(code)
    if rehearsal.how == "import":
        return
    family = own_family(rehearsal.family, code)
    for axes in rehearsal.axes:
        say(call=code.call(scale, axes))
        if rehearsal.how == "costs":
            say(costs=check_costs(family, code, scale, axes, rehearsal.side))
        else:
            (check_contract if rehearsal.how == "contract" else check_pass)(family, code, scale, axes)


def _run() -> None:
    """The process that tries: takes its task from stdin, and says on what was its stdout what it does."""
    said, own = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.getpid()
    task = json.loads(sys.stdin.read())
    os.dup2(2, 1)  # what is printed goes to the log, also from C
    sys.stdout = sys.stderr
    sys.path[:] = task["path"]
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    _be_modest()
    leave = os._exit

    def told(code: int) -> None:
        if os.getpid() == own:
            faulthandler.dump_traceback()
        leave(code)

    os._exit = told  # type: ignore[assignment]

    def say(place: int, **document: Any) -> None:
        if os.getpid() == own:  # and no process that the source forked
            said.write(json.dumps({"trying": place, **document}) + "\n")
            said.flush()

    error = ""
    for place, each in enumerate(task["rehearsals"]):
        rehearsal = Rehearsal(**{**each, "code": Code(**each["code"])})
        try:
            _try(rehearsal, task["scale"], partial(say, place))
        except OwnError as own_error:
            error = str(own_error)
        except BaseException as other:
            what = "it takes more memory than there is" if isinstance(other, MemoryError) else in_words(other)
            error = f"{place_of(other, rehearsal.code.file)}: it must be tried without harm, but {what}"
        if error:
            break
    say(0, error=error)
    leave(0)  # whatever threads the source has left


def _be_modest() -> None:
    """Has this process get no more memory than there is, and be the first to go where it runs out."""
    import resource

    with suppress(OSError, ValueError):
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


if __name__ == "__main__":
    _run()
