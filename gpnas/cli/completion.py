"""`gpnas completion`: what makes a shell complete the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import shtab

from gpnas.cli.arguments import path
from gpnas.cli.parser import command_line
from gpnas.cli.reporting import Report


def run(options: argparse.Namespace) -> Report:
    parser = command_line()
    for action in _actions(parser):
        if action.type is path or action.dest == "space":  # a file, or the name of a shipped one
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    script = shtab.complete(parser, options.shell)
    if options.shell == "zsh":  # shtab 1.13 says "(*)" of what may stand several times, which is once to zsh
        script = re.sub(r'^  "\(\*\)::?', '  "*:', script, flags=re.MULTILINE)
    return Report({"shell": options.shell, "script": script}, [script])


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)
