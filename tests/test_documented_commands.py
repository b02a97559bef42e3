"""Every page is typed from its first block to its last: commands, files, programs, and what is shown of them.

`tests/typed.py` types; here stands what each page presumes, and what cannot be run here, with the reason.
"""

import argparse
import fcntl
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from PIL import Image

from gpnas import Architecture
from gpnas.bundle import Member, write_bundle
from gpnas.cli import main
from gpnas.cli.parser import command_line
from gpnas.results import recommending
from gpnas_trainers import build
from gpnas_trainers.converting import save_official
from tests.builders import description, folder_of_pairs
from tests.gpnas.test_guests import nearest
from tests.typed import LARGEST, PAGES, ROOT, Typist, blocks, outline, paths, shorter, shorter_space

pytestmark = pytest.mark.ray

LEFT_OUT = {
    r"^make (search|test)$|^make install|^git clone|^source ": "CI does it before these tests",
    r"^make test-slow": "these tests are among what it runs",
    r"^pre-commit install": "it would change the hooks of this repository",
    r"^ray start --head --node-ip|^ray job |ray symmetric-run": "`test_cluster_pages.py` types it",
    r"^docker |docker/secrets|docker compose": "`test_container_pages.py` types it, with podman",
    r"gpnas-status": "a search that runs meanwhile; `test_cluster_pages.py` types it",
    r"RAY_USE_TLS": "every process of a cluster must be started so; `test_cluster_pages.py` does",
    r"def log_normal|learning_rate: float = |def products_of": "parts of source, which they must be",
}
"""Commands and programs that are not run, as patterns, and why; shells' syntax is checked all the same."""
WHOLE = ("docs/tutorials/service.md",)
"""Pages of which everything is run."""
LONG = (
    *("docs/bundles.md", "docs/gpu.md", "docs/moving.md", "docs/own-networks.md", "docs/own-training.md"),
    *("docs/portfolio.md", "docs/running.md", "docs/slurm.md", "docs/training.md"),
    *("docs/tutorials/camera-pairs.md", "docs/tutorials/digits.md", "docs/tutorials/own-network.md"),
    "docs/tutorials/service.md",
)
"""Pages that search and train for long; the README, which does as well, is typed with the others."""


@dataclass(frozen=True)
class Presumed:
    """What a page presumes besides photographs and pairs."""

    runs: tuple[str, ...] = ()
    """Folders of a finished search."""
    replaced: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, object] = field(default_factory=dict)
    """Those that the page's Python presumes."""


PRESUMED = {
    "README.md": Presumed(("runs/drn",), {".venv/bin/gpnas": "gpnas"}),
    "docs/bundles.md": Presumed(("runs/drn",)),
    "docs/explain.md": Presumed(("runs/drn",)),
    "docs/gpu.md": Presumed((), {"drn_paper.yaml": "drn.yaml"}),
    "docs/housekeeping.md": Presumed(("runs/mine",)),
    "docs/moving.md": Presumed(("runs/mine",), {"--trials 12": "--trials=10"}),
    "docs/portfolio.md": Presumed(("runs/mine",)),
    "docs/report.md": Presumed(("runs/drn",)),
    "docs/running.md": Presumed(("runs/drn",), {"s3://bucket": "bucket", "--trials 32": "--trials=10"}),
    "docs/service.md": Presumed(names={"train": lambda architecture: 50.0}),
    "docs/training.md": Presumed(("runs/mine",)),
    "docs/tutorials/camera-pairs.md": Presumed((), {"--top 3": "--top 1"}),
    "docs/own-networks.md": Presumed((), {"--networks package.module": "--networks nets.py"}),
}
PROGRAMS = {
    "rsync": 'to=${3/:/\\/}; mkdir -p "$to"; [[ $2 = */ ]] && cp -a "$2." "$to" || cp -a "$2" "$to"\n',
    "sbatch": """job=$1; shift; export SLURM_ARRAY_JOB_ID=1
        grep -q -- --array "$job" && tasks="0 1" || tasks=0
        for task in $tasks; do SLURM_ARRAY_TASK_ID=$task bash -e "$job" "$@"; done\n""",
}
"""What stands for programs that need other machines; a folder `other` is the other machine."""
TYPED = [each for each in PAGES if blocks(each, "console", "sh", "yaml", "python", "sbatch")]
BY_THE_WHEEL = "docs/tutorials/ten-minutes.md"
"""Typed by `test_package.py`, with the installed package."""


@pytest.fixture(scope="module")
def shelf(home: Path, cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pages presume, made once for all processes that share the tests."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    shelf, making = root / "shelf", tmp_path_factory.mktemp("making")
    with (root / "shelf.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shelf.exists():
            stock(making, cluster)
            making.rename(shelf)
    return shelf


def stock(folder: Path, cluster: str) -> None:
    """A finished search of the shipped photographs, pairs, photos, published weights."""
    folder_of_pairs(folder / "pairs")
    shutil.copytree(folder / "pairs", folder / "Set5")
    shutil.copytree(folder / "pairs/HR", folder / "photos")
    for name in ("photo.png", "photo.jpg"):
        Image.open(folder / "pairs/LRx2/0.png").save(folder / name)
    for name, largest in {"drn": LARGEST / 2, "heterogeneous": LARGEST}.items():
        text = (ROOT / f"search_spaces/{name}.yaml").read_text()
        (folder / f"{name}.yaml").write_text(shorter_space(text, largest))
    (folder / "configs.csv").write_text("features,groups,blocks,hash\n8,1,1,a\n8,1,2,b\n")
    axes = {"features": 16, "groups": 2, "blocks": 2}
    save_official(build("rcan", 4, **axes), folder / "RCAN_BIX4.pt")
    save_official(nearest("rcan", groups=1, blocks=1, reduction=2), folder / "rcan_x2.pt")
    (folder / "nets.py").write_text(
        "from gpnas_trainers import build\n\n"
        "def load(scale):\n    return build('drn', scale, features=4, blocks=1, stages=1)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["search", "--space", "drn.yaml", "--trials", "9", "--address", cluster]) == 0
        write_bundle(folder / "BUNDLE", list(networks()), description())
        assert main(["convert", "BUNDLE", "network-1", "-o", "other.onnx"]) == 0


def networks() -> Iterator[Member]:
    """Those of a bundle, fresh; the second is an RCAN, whose authors' code has names for it."""
    for number, (family, axes) in enumerate(
        (
            ("drn", {"features": 8, "blocks": 1, "stages": 1}),
            ("rcan", {"features": 8, "groups": 1, "blocks": 1, "reduction": 4}),
            ("drn", {"features": 4, "blocks": 1, "stages": 1}),
        )
    ):
        state = build(family, 2, **axes).state_dict()
        yield Member(Architecture(family, axes), state, 1 / 3, {"psnr": 20.0}, f"c{number:04d}")


@pytest.fixture
def desk(
    shelf: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what a page presumes."""
    presumed = PRESUMED.get(request.param, Presumed())
    for path in shelf.iterdir():
        if path.name != "runs":
            (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    for name in presumed.runs:
        shutil.copytree(shelf / "runs/drn", tmp_path / name)
    for name, text in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{text}")
        program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # pages show what a wide terminal does
    return tmp_path


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


SHORT = [each for each in map(relative, TYPED) if each not in (*LONG, BY_THE_WHEEL)]


def test_long_pages_are_pages() -> None:
    assert set(LONG) < {relative(each) for each in TYPED} - {"README.md"}


@pytest.mark.parametrize("desk", SHORT, indirect=True)
def test_a_page_is_typed(desk: Path, cluster: str, request: pytest.FixtureRequest) -> None:
    type_page(request.node.callspec.params["desk"], desk, cluster)


@pytest.mark.slow
@pytest.mark.parametrize("desk", LONG, indirect=True)
def test_a_long_page_is_typed(desk: Path, cluster: str, request: pytest.FixtureRequest) -> None:
    type_page(request.node.callspec.params["desk"], desk, cluster)


def type_page(name: str, desk: Path, cluster: str) -> None:
    presumed = PRESUMED.get(name, Presumed())
    left_out = {} if name in WHOLE else LEFT_OUT
    replaced = {**presumed.replaced, "/shared": str(desk / "shared")}
    typist = Typist(desk, cluster, replaced, presumed.names, left_out)
    try:
        typist.type(ROOT / name)
    finally:
        typist.end()


def test_what_is_left_out_stands_somewhere() -> None:
    """A reason whose command is gone goes, too."""
    texts = [each.text.replace("$ ", "") for page in PAGES for each in blocks(page)]
    for pattern in LEFT_OUT:
        assert any(re.search(pattern, text, re.MULTILINE) for text in texts), pattern


def test_quoted_source_is_the_source() -> None:
    files = [path.read_text() for name in ("gpnas", "trainers") for path in (ROOT / name).rglob("*.py")]
    quoted = [each.text for each in blocks(ROOT / "CONTRIBUTING.md", "python")]
    assert len(quoted) == 3
    for text in quoted:
        assert any(each in file for file in files for each in (text, indent(text, "    "))), text


WORKER = "worker http://127.0.0.1:8750 --search served --train train.py:train --token-file token --most 1"
DOCUMENTS = (
    "search --space drn.yaml",
    "search --space digits.yaml",
    "status runs/drn",
    "explain runs/drn",
    "explain runs/drn c0002",
    "space drn.yaml",
    "portfolio runs/drn",
    "portfolio runs/digits",
    "train runs/drn --top 2 --steps 300 --run runs/final",
    "recommend --hours 1 --scale 4",
    "export runs/drn --top 2 -o two",
    "evaluate BUNDLE --data pairs --no-tiles",
    "upscale BUNDLE photo.png -o sr.png",
    "convert BUNDLE network-1 -o network.onnx",
    "report runs/drn -o report.html",
    "data check pairs --scale 2",
    "data prepare pairs --scale 2",
    "doctor runs/drn",
    "ask runs/asked --space drn.yaml --trials 4",
    "ask runs/asked --architecture drn:features=32,blocks=4,stages=3",
    "ask runs/told",
    "tell runs/asked c0000 --progress 100 27.9",
    "tell runs/asked c0000 28.5",
    "tell runs/asked c0001 --give-back",
    "veto runs/asked drn:features=32,blocks=4,stages=3",
    "token make --runs runs --role work --name desk",
    "token list --runs runs",
    WORKER,
    "token revoke ID --runs runs",
    "completion bash",
)
"""Commands whose documents the reference outlines."""
WITHOUT = {"serve": "it goes on until a signal ends it, which leaves no document"}
"""Commands that take `--json` as all do, and that the reference passes over, with the reason."""
SAME = {
    "explain runs/digits": "explain runs/drn",
    "explain runs/digits c0002": "explain runs/drn c0002",
    "report runs/drn runs/digits -o compared.html": "report runs/drn -o report.html",
    "report BUNDLE -o bundle.html": "report runs/drn -o report.html",
    "space digits.yaml": "space drn.yaml",
    "tell runs/told c0000 --failed unknown": "tell runs/asked c0000 28.5",
}
"""Commands whose documents have the keys of others', as the reference says."""
BEFORE = {
    "ask runs/told": ("ask runs/told --space drn.yaml --trials 1", "tell runs/told c0000 28.5"),
    "tell runs/asked c0001 --give-back": ("ask runs/asked",),
    WORKER: ("ask runs/served --space served.yaml --trials 2",),
}
"""What is done before some of them."""
CODES = {"ask runs/told": 3}
"""Exit codes of those that do not end with 0: nothing is left to be trained."""
OPTIONAL = ("candidates.holder", "candidates.stopped", "note")
"""Keys that are there only where there is something to tell, as the reference says."""
OWN = {
    "train.py": """
def train(trial):
    width = trial.axes["width"]
    trial.report(trial.steps, width, errors=[width / 10, 0.1])
    return width
""",
    "digits.yaml": """
trainer: train.py:train
objective: {name: accuracy, unit: "%"}
families: {mlp: {width: {low: 1, high: 9}, layers: [1, 2]}}
search: {trials: 3, concurrent: 1}
recipe: {steps: 2}
""",
    "served.yaml": "families: {mlp: {width: {low: 1, high: 9}}}\n",
}
"""A search with trainings of one's own, which end at once, and one for the service."""
REFERENCE = ROOT / "docs" / "reference" / "json.md"


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of commands that have none beneath them."""
    beneath = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    for action in beneath:
        for each in action.choices.values():
            yield from leaves(each)
    if not beneath:
        yield parser


def test_every_command_with_json_has_its_document() -> None:
    """Each of them is there."""
    parsers = list(leaves(command_line()))
    with_json = {
        each.prog.removeprefix("gpnas ") for each in parsers if "--json" in each._option_string_actions
    }
    assert len(with_json) == len(parsers)
    chosen = (command_line().parse_args(shlex.split(each)) for each in DOCUMENTS)
    assert {each.command for each in chosen} == with_json - WITHOUT.keys()


def kinds(lines: list[str]) -> dict[str, str]:
    """The kinds of an outline's values, by path."""
    return {path: line.partition(":")[2].strip() for path, line in zip(paths(lines), lines, strict=True)}


def is_open(kind: str) -> bool:
    """Whether a value, null or an empty list, may be another elsewhere."""
    return kind == "null" or kind.endswith("entries")


def differing(shown: list[str], printed: list[str]) -> list[str]:
    """Keys that one of two outlines lacks, or of other kinds; what is open in one may be any in the other."""
    one, other, found = kinds(shown), kinds(printed), []
    unsaid = (path for outlined in (one, other) for path, kind in outlined.items() if is_open(kind))
    passed = tuple(f"{path}." for path in (*unsaid, *OPTIONAL))
    for path in one.keys() | other.keys():
        if f"{path}.".startswith(passed) and path not in one.keys() & other.keys():
            continue
        here, there = (
            {each for each in outlined.get(path, "missing").split(" or ") if each != "null"}
            for outlined in (one, other)
        )
        if here != there and not any(map(is_open, (one.get(path, ""), other.get(path, "")))):
            found.append(f"{path}: {one.get(path)}, printed {other.get(path)}")
    return sorted(found)


def test_outlines_differ_where_they_must() -> None:
    """Each is told: a key that is gone or new, and another kind, but not what a null leaves open."""
    document = {"a": 1, "b": [{"c": 0.5, "d": None}], "e": {}, "f": [], "costs": {"x": {"y": 1}}}
    own = list(outline(document))
    assert own == [
        *("a: integer", "b: list of", "  c: number", "  d: null", "e:", "f: list of entries"),
        *("costs: by name, each of", "  y: integer"),
    ]
    assert differing(own, own) == []
    assert differing(own, list(outline({**document, "f": [{"g": 1}], "costs": {"z": {"y": 2}}}))) == []
    assert differing(own, list(outline({**document, "b": [{"c": 1.5, "d": {"e": 1}}], "note": ""}))) == []
    changes = (
        ({"a": 1.5}, "a"),
        ({"a": None, "z": 1}, "z"),
        ({"b": [{"d": None}]}, "b.c"),
        ({"b": {"c": 0.5, "d": None}}, "b"),
        ({"costs": {"x": {"y": "1"}}}, "costs.y"),
    )
    for change, path in changes:
        (found,) = differing(own, list(outline({**document, **change})))
        assert found.startswith(f"{path}: "), change


def test_documents_have_the_keys_of_the_reference(
    shelf: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those and no others, of the same kinds; with GPNAS_WRITE_REFERENCE=1 the page is written anew."""
    monkeypatch.setattr(recommending, "TIMED", 2)
    monkeypatch.setattr(recommending, "FEW", 1)
    for path in shelf.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    for name, text in OWN.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    typist, served = Typist(tmp_path, cluster), Served(tmp_path)
    outlines: dict[str, list[str]] = {}
    try:
        for command in (*DOCUMENTS, *SAME):
            for before in BEFORE.get(command, ()):
                assert typist.document(typed(before, cluster))[0] == 0, before
            code, document = typist.document(typed(served.filled(command), cluster))
            assert code == CODES.get(command, 0), command
            served.heed(document)
            outlines[command] = list(outline(document if isinstance(document, dict) else {"[]": document}))
    finally:
        served.end()
    for command, other in SAME.items():
        assert differing(outlines.pop(command), outlines[other]) == [], command
    if os.environ.get("GPNAS_WRITE_REFERENCE"):
        head, _, _ = REFERENCE.read_text().partition("## gpnas")
        sections = (
            f"## gpnas {name}\n\n```text\n{chr(10).join(each)}\n```\n\n" for name, each in outlines.items()
        )
        REFERENCE.write_text(head + "".join(sections).rstrip() + "\n")
    text = REFERENCE.read_text()
    shown = re.findall(r"^## gpnas ([^\n]*)\n\n```text\n(.*?)\n```", text, re.DOTALL | re.MULTILINE)
    assert [command for command, _ in shown] == list(DOCUMENTS)
    different = {command: differing(lines.splitlines(), outlines[command]) for command, lines in shown}
    assert {command: each for command, each in different.items() if each} == {}


def typed(command: str, address: str) -> list[str]:
    """A command's arguments, of trainings that are short and few, on the Ray that all share."""
    arguments = [*shlex.split(shorter(f"gpnas {command}"))[1:], "--json"]
    return [*arguments, "--address", address] if arguments[0] in ("search", "train") else arguments


class Served:
    """A service of the folder, begun by the first command that needs it, and the token that was made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._id = ""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]

    def heed(self, document: Any) -> None:
        """Takes the token that a command made."""
        if isinstance(document, dict) and "token" in document:
            self._id = document["id"]
            (self._folder / "token").write_text(document["token"])

    def filled(self, command: str) -> str:
        """A command with the address of the service, which is started for it, and with the token's ID."""
        if "8750" in command and self._process is None:
            begun = [sys.executable, "-P", "-m", "gpnas.cli", "serve", "--port", str(self._port)]
            self._process = subprocess.Popen(begun, cwd=self._folder)
            while self._process.poll() is None:
                with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=10):
                    break
                time.sleep(0.1)
        return command.replace("8750", str(self._port)).replace(" ID ", f" {self._id} ")

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
