"""The command line: a parser, one call per command, one place that turns errors into exit codes.

Results go to stdout (with `--json` one JSON document), everything else to stderr.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib import import_module

from gpnas.cli.interruption import interruptible
from gpnas.cli.parser import command_line
from gpnas.cli.reporting import Report
from gpnas.cli.streams import safe_streams
from gpnas.errors import GpnasError

BRIEF = frozenset({"ask", "explain", "portfolio", "recommend", "report", "space", "tell", "veto"})
"""Modules of commands that end within seconds, and look for no garbage."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 for an error, 128 + signal when interrupted.

    Args:
        arguments: None for those of this process, which ends with the command.
    """
    if arguments is None:
        collect_never()
    with safe_path(), safe_streams():
        options = command_line().parse_args(arguments)
        logging.basicConfig(
            stream=sys.stderr,
            format="%(levelname)s: %(message)s",
            level=logging.DEBUG if options.verbose else logging.ERROR,
        )
        if not options.verbose:
            warnings.simplefilter("ignore")  # libraries warn for developers; a user can do nothing about it
        return _run(options)


@contextmanager
def safe_path() -> Iterator[None]:
    """Keeps Python processes that start within from taking a file `random.py` of the user's for their own."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        os.environ.pop("PYTHONSAFEPATH")
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


def collect_never() -> None:
    """Puts the search for cyclic garbage off, and leaves it out at the end of the process.

    Libraries make hundreds of thousands of objects as they are loaded, which stay: to walk through them again
    and again, and once more at the end, takes a fourth of a short command.
    """
    gc.disable()
    atexit.register(gc.freeze)


def collect_again() -> None:
    """Lets the search for garbage begin, among what is made from now on, where it was put off."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _run(options: argparse.Namespace) -> int:
    from gpnas.cli.terminal import fail, log, say, show

    try:
        # what libraries print goes to stderr: stdout belongs to the document
        with interruptible(), redirect_stdout(sys.stderr) if options.json else nullcontext():
            command = import_module(f"gpnas.cli.{options.module}")
            if options.module not in BRIEF:
                collect_again()
            report: Report = command.run(options)
        if options.json:
            # DEL is the one character that JSON leaves as it is and a terminal obeys
            print(json.dumps(report.document, indent=2, allow_nan=False).replace("\x7f", r"\u007f"))
        else:
            show(*report.shown)
        return report.exit_code
    except GpnasError as error:
        if options.verbose:
            log.print_exception()
        orderly = hasattr(error, "exit_code")  # an end that was ordered
        (say if orderly else fail)(str(error))
        return int(getattr(error, "exit_code", 1))
    except KeyboardInterrupt as error:
        say("interrupted")
        return 128 + int(error.args[0] if error.args else signal.SIGINT)
    except OSError as error:
        if options.verbose:
            log.print_exception()
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}")
        return 1
