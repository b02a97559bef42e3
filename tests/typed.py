"""Pages, typed: what a reader would type, in order, in a folder that has what the page presumes.

It is what stands there, but for `SHORTER`: trainings are short and few, so that all pages take minutes.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

from gpnas.cli import main
from gpnas.config import load_space

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<lead>[^\n]*)\n+(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)
FILE = re.compile(r"`([\w-]+\.(?:py|yaml|sh|sbatch))`")

SHORTER: tuple[tuple[str, str], ...] = (
    (r"^(gpnas evaluate (?!.*--no-tiles).*)$", r"\1 --no-tiles"),
    (r"^(gpnas train --architecture (?!.*--steps).*)$", r"\1 --steps 6"),
    (r"--steps \d+", "--steps 6"),
    (r'"trials": \d+', '"trials": 2'),
    (r"--trials (?:[4-9]|\d\d+)", "--trials 3"),
    (r"--batch-size \d+", "--batch-size 2"),
    (r"--concurrent \d+", "--concurrent 2"),
    (r"features=128,blocks=18,stages=3", "features=8,blocks=1,stages=1"),
    (r"features=32,blocks=4,stages=3", "features=8,blocks=2,stages=1"),
    (r"Recipe\(steps=\d+\)", "Recipe(steps=4, batch_size=2)"),
)
"""What commands and programs of a page say, and what is run instead."""
SHORTER_RECIPE = {"steps": 4, "evaluate_every": 4, "batch_size": 2, "hr_patch": 40}
"""The same for the recipe of a space file of super-resolution; of any search there are two trials, one at a
time, since every process that trains takes seconds to start."""


TOKEN = r"\b[0-9a-f]{12}\b"
"""The ID of a token: of those that were listed, the last is revoked, which is of no other use."""
LARGEST = 0.3
"""GMACs at 120×120 of the networks that are trained instead."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    lead: str
    """The line before it."""

    @property
    def file(self) -> str | None:
        """The file that the line before it, which ends with a colon, says it is."""
        named = FILE.search(self.lead) if re.search(r":\**$", self.lead) else None
        return named[1] if named else None


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = [
        Block(match["language"], dedent(match["text"]), match["lead"])
        for match in FENCE.finditer(page.read_text())
    ]
    return [each for each in found if not languages or each.language in languages]


def lines(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown beneath it."""
    for part in re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield re.sub(r"\s+#.*$", "", command).strip(), shown


def shorter(text: str) -> str:
    for pattern, replacement in SHORTER:
        text = re.sub(pattern, replacement, text)
    return text


def shorter_space(text: str, largest: float = LARGEST) -> str:
    """A space file with short and few trainings of small networks, of at most so many GMACs."""
    document = yaml.safe_load(text)
    document["search"] = {**document.get("search", {}), "trials": 2, "concurrent": 1}
    if "trainer" not in document:
        document["search"]["validation_images"] = 1
        limits = document.get("limits", {})
        if "recipe" in document or "gmacs" in limits:
            document["limits"] = {**limits, "gmacs": min(largest, limits.get("gmacs", largest))}
        document["recipe"] = {**document.get("recipe", {}), **SHORTER_RECIPE}
    return yaml.safe_dump(document, sort_keys=False)


@dataclass
class Typist:
    """Types one page into a folder."""

    folder: Path
    address: str
    """Of the Ray that all pages share."""
    replaced: Mapping[str, str] = field(default_factory=dict)
    """What this page names, and what stands for it here."""
    names: Mapping[str, object] = field(default_factory=dict)
    """Names that its Python presumes."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Commands that are not run, as patterns, and why."""
    met: set[str] = field(default_factory=set)
    """Those of them that stood in the page."""
    files: dict[str, str] = field(default_factory=dict)
    background: list[subprocess.Popen[bytes]] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)
    """What the page's last space file said of scale and families."""
    said: str = ""
    """What the newest command printed, on stdout and stderr."""

    def type(self, page: Path) -> None:
        for block in blocks(page):
            match block.language:
                case "console":
                    for command, shown in lines(block.text):
                        self.command(command)
                        self.compare(command, shown)
                case "yaml" | "python" | "sbatch" | "sh" if block.file:
                    self.write(block.file, block.text)
                case "sh":
                    self.shell(block.text)
                case "yaml":
                    self.space(block.text)
                case "python":
                    self.python(block.text, page)

    def skipped(self, text: str) -> bool:
        """Whether a command is among those that are not run."""
        found = [each for each in self.left_out if re.search(each, text)]
        self.met.update(found)
        return bool(found)

    def here(self, text: str) -> str:
        for name, other in self.replaced.items():
            text = text.replace(name, other)
        return shorter(text)

    def write(self, name: str, text: str) -> None:
        """Puts a file where a reader would."""
        text = self.here(text)
        path = self.folder / name
        if path.suffix in (".sh", ".sbatch"):
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)
            text = re.sub(r"(\bgpnas (search|train) .*)$", rf"\1 --address {self.address}", text, flags=re.M)
        path.write_text(shorter_space(text) if path.suffix == ".yaml" else text)

    def command(self, command: str) -> None:
        """Runs a line of a console: gpnas itself in this process, anything else in a shell."""
        if self.skipped(command):
            return
        command = self.here(command)
        if command.startswith("gpnas token revoke "):
            command = re.sub(TOKEN, re.findall(TOKEN, self.said)[-1], command)
        if command.startswith("gpnas serve "):
            self.serve(command)
        elif not command.startswith("gpnas ") or "worker" in command or re.search(r"[|>$]", command):
            self.shell(command)
        else:
            arguments = shlex.split(command)[1:]
            if arguments[0] in ("search", "train") and "--address" not in arguments:
                arguments += ["--address", self.address]
            assert self.gpnas(arguments) == 0, f"{command}\n{self.said}"

    def gpnas(self, arguments: list[str]) -> int:
        """The exit code of a command; what it prints is kept in `said`."""
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
        with redirect_stdout(stream), redirect_stderr(stream):
            code = main(arguments)
        self.said = written.getvalue().decode()
        return code

    def document(self, arguments: list[str]) -> tuple[int, Any]:
        """The exit code of a command with `--json`, and its document."""
        written = io.BytesIO()
        stream = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
        with redirect_stdout(stream):
            code = main(arguments)
        return code, json.loads(written.getvalue())

    def serve(self, command: str) -> None:
        """Starts the service, which goes on while the page is typed, at a port of its own."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.replaced = {**self.replaced, "127.0.0.1:8750": f"127.0.0.1:{port}"}
        arguments = [*shlex.split(command)[1:], "--port", str(port)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gpnas.cli", *arguments], cwd=self.folder, stdout=subprocess.DEVNULL
        )
        self.background.append(process)
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10):
                return
            time.sleep(0.1)
        raise AssertionError(command)

    def _environment(self) -> dict[str, str]:
        path = (
            f"{self.folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        return {**os.environ, "PATH": path, "HOME": str(self.folder)}

    def shell(self, text: str) -> None:
        """Runs a block of a shell, which ends at the first line that fails."""
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        if self.skipped(text):
            return
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(text)],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.said = done.stdout + done.stderr
        assert done.returncode == 0, f"{text}\n{self.said}"

    def space(self, text: str) -> None:
        """A space file as gpnas reads it, or a part of one, with the rest of the page's last."""
        part = yaml.safe_load(text)
        if set(part) >= {"scale", "families"}:
            self.rest = {name: part[name] for name in ("scale", "families")}
        path = self.folder / "part.yaml"
        path.write_text(yaml.safe_dump({**self.rest, **part}))
        assert len(load_space(path, own_families=True)) > 0

    def python(self, text: str, page: Path) -> None:
        if not self.skipped(text):
            names = dict(self.names)
            exec(compile(self.here(text), page.name, "exec"), names)

    def compare(self, command: str, shown: str) -> None:
        """What is shown beneath a command has the labels and the headings that it prints."""
        said = " ".join(self.said.split())
        beneath = shown.splitlines()
        for line, following in pairwise([*beneath, ""]):
            label = re.match(r"[a-z][a-z -]+: ", line)
            heading = set(following.strip()) == {"─"}
            for text in ([label[0]] if label else []) + ([" ".join(line.split())] if heading else []):
                assert text.strip() in said, f"{command}\n{text}\n\n{self.said}"

    def end(self) -> None:
        for process in self.background:
            process.terminate()
        for process in self.background:
            process.wait(60)


BY_NAME = {
    "axes",
    "costs",
    "versions",
    "machine",
    "metrics",
    "recipe",
    "families",
    "limits",
    "setup",
    "shares",
    "sources",
    "speeds",
    "effects",
    "unusable",
}
"""Mappings whose keys depend on the run."""
KINDS = {str: "text", bool: "true or false", int: "integer", float: "number", type(None): "null"}


def outline(value: Any, indent: str = "") -> Iterator[str]:
    """The keys of a document with the kinds of their values; of a list, those of its entries together."""
    for key, each in value.items():
        entries = each if isinstance(each, list) else [each]
        mappings = [entry for entry in entries if isinstance(entry, dict)]
        many = "list of " if isinstance(each, list) else ""
        if key in BY_NAME and isinstance(each, dict):
            mappings = [inner for inner in each.values() if isinstance(inner, dict)]
            many = "by name, each of " if mappings else "values by name"
        if mappings:
            yield f"{indent}{key}: {many}".rstrip()
            together: dict[str, Any] = {}
            for entry in mappings:
                for name, inner in entry.items():
                    if together.get(name) in (None, [], {}):
                        together[name] = inner
            yield from outline(together, indent + "  ")
        else:
            yield f"{indent}{key}: {many if key in BY_NAME and isinstance(each, dict) else kind_of(each)}"


def kind_of(value: Any) -> str:
    """What a value is, in words; of a list also what its entries are."""
    if not isinstance(value, list):
        return KINDS.get(type(value), "mapping")
    return f"list of {' or '.join(dict.fromkeys(map(kind_of, value))) or 'entries'}"


def paths(lines: list[str]) -> Iterator[str]:
    """The keys of an outline, each with those that it lies in."""
    above: list[str] = []
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2
        above[depth:] = [line.strip().partition(":")[0]]
        yield ".".join(above)
