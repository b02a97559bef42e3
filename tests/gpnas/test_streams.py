"""Output never fails a command: in any encoding, closed, full, on any terminal, whatever names hold."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gpnas.cli.streams import Stream
from gpnas.cli.tables import Table
from gpnas.cli.terminal import PlainConsole
from gpnas.journal import Header, Journal
from gpnas.records import Architecture, Candidate, Fidelity
from gpnas.run.setup import PSNR

GPNAS = f"{shlex.quote(sys.executable)} -m gpnas.cli"


def shell(command: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """A command line, as a shell with `pipefail` runs it; `gpnas` stands for the program."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("gpnas ", f"{GPNAS} ")],
        capture_output=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose folder and failures have hostile names."""
    folder = tmp_path_factory.mktemp("run") / "größe × [red]\x1b]0;title\x07\u202e"
    with Journal.create_or_open(folder, Header(2, PSNR)) as journal:
        for number in range(30):
            architecture = Architecture("drn", {"features": 16 + number, "blocks": 4, "stages": 3})
            journal.commit_candidates([Candidate(f"c{number:04d}", architecture, Fidelity(10), number)])
    return folder


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"TERM": "dumb"},
        {"TERM": "dumb", "COLUMNS": "20"},
    ],
    ids=str,
)
def test_every_encoding_and_terminal_gets_its_text(run: Path, environment: dict[str, str]) -> None:
    for command in (f"gpnas status {shlex.quote(str(run))}", "gpnas evaluate --help"):
        done = shell(command, **environment)
        assert (done.returncode, done.stderr) == (0, b""), command
        assert done.stdout
        encoding = environment.get("PYTHONIOENCODING", "ascii" if "LC_ALL" in environment else "utf-8")
        done.stdout.decode(encoding)
    assert (
        b"Traceback"
        not in shell(
            "gpnas status none-such-×-\udc80".encode(errors="surrogateescape").decode(
                errors="surrogateescape"
            ),
            **environment,
        ).stderr
    )


def test_a_reader_who_leaves_is_no_failure(run: Path) -> None:
    for command in (f"gpnas status {shlex.quote(str(run))}", "gpnas --version"):
        for reader in ("head -1 >/dev/null", "true"):
            done = shell(f"{command} | {reader}")
            assert (done.returncode, done.stderr) == (0, b""), command


def test_closed_and_full_streams(run: Path) -> None:
    for command in (f"gpnas status {shlex.quote(str(run))} --json", "gpnas --help"):
        done = shell(f"{command} >&-")
        assert (done.returncode, done.stderr) == (0, b""), command
        assert shell(f"{command} <&- >&- 2>&-").returncode == 0
        done = shell(f"{command} >/dev/full")
        assert done.returncode == 1
        assert done.stderr.decode().strip() == "error: stdout could not be written: No space left on device"
    assert shell(f"gpnas status {shlex.quote(str(run))} 2>/dev/full").returncode == 0
    # the exit code of a failure stays, wherever its line goes
    for where in ("2>/dev/full", ">&- 2>&-", "2>&1 | true"):
        assert shell(f"gpnas status none {where}").returncode == 1


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What others print to descriptor 1 must not end in a file that gpnas opened later."""
    program = (
        "import os; from gpnas.cli.streams import safe_streams\n"
        "with safe_streams():\n"
        f"    file = open({str(tmp_path / 'journal')!r}, 'wb')\n"
        "    assert file.fileno() > 2\n"
        "    os.write(1, b'noise'); os.system('echo noise; echo noise >&2')\n"
    )
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-")
    assert done.returncode == 0
    assert (tmp_path / "journal").read_bytes() == b""


@pytest.mark.parametrize("option", ["", "--json"])
def test_names_never_command_the_terminal(run: Path, option: str) -> None:
    done = shell(f"gpnas status {shlex.quote(str(run))} {option}; gpnas status $'no\\e[31m[red]ne\\x7f\\n'")
    shown = (done.stdout + done.stderr).decode()
    assert not {"\x1b", "\x07", "\u202e", "\x7f"} & set(shown)
    assert r"no\x1b[31m[red]ne\x7f\n" in shown
    if option:
        assert json.loads(done.stdout)["run"] == str(run)
    else:
        assert r"größe × [red]\x1b]0;title\x07\u202e: interrupted" in shown


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_every_row_keeps_its_name_on_small_terminals(run: Path, columns: int) -> None:
    for command in (f"gpnas status {shlex.quote(str(run))}",):
        lines = shell(command, COLUMNS=str(columns)).stdout.decode().splitlines()
        for number in range(30):
            assert any(f"c{number:04d}" in line and f"drn {16 + number}·4·3" in line for line in lines)
        assert "drn features·blocks·stages" in lines
        table = [line for line in lines if line.startswith("c00")]
        assert all(len(line) <= columns for line in table)
        assert not any("…" in line for line in table)


@pytest.mark.parametrize("width", [60, 80, 120, 140])
def test_a_narrow_table_breaks_no_number_and_keeps_what_a_row_is_about(width: int) -> None:
    console = PlainConsole(file=io.StringIO(), width=width)
    headings = ("predicted dB", "observed dB", "SSIM", "90 % interval", "parameters", "seconds")
    made = Table("title", "candidate", "architecture", "why", *headings, whole=("candidate", "architecture"),
                 left=("why",))  # fmt: skip
    cells = ("28.66 ± 0.05", "28.69", "0.8123", "28.51 … 28.81", "123,456", "12.3")
    for number in range(3):
        made.add_row(
            f"c000{number}", f"dual_regression {8 + number}·4", "knowledge gradient, once more", *cells
        )
    console.print(made)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    lines = shown.splitlines()
    assert max(len(line) for line in lines if not line.startswith("(")) <= width
    hidden = re.findall(r"without (.*): the terminal is narrow", shown)
    dropped = hidden[0].split(", ") if hidden else []
    assert headings[len(headings) - len(dropped) :] == tuple(dropped)  # from the right
    assert (width < 120) == bool(dropped)
    for number in range(3):
        (line,) = (line for line in lines if f"c000{number}" in line)
        assert f"dual_regression {8 + number}·4" in line
        for heading, cell in zip(headings, cells, strict=True):
            assert (cell in line) == (heading not in dropped)


def test_a_command_can_be_misspelt_and_options_stand_anywhere() -> None:
    done = shell("gpnas serach --space drn.yaml")
    assert done.returncode == 2
    assert "there is no command 'serach'; did you mean 'search'?" in done.stderr.decode()
    for command in ("gpnas --verbose status none", "gpnas status none --verbose"):
        done = shell(command)
        assert done.returncode == 1
        assert b"Traceback" in done.stderr
    assert b"\x1b" not in shell("gpnas status a $'b\\e[31m'").stderr


def test_what_to_type_next_is_what_was_typed(tmp_path: Path) -> None:
    from gpnas.cli.text import advice

    for argv, path, expected in (
        ("/opt/a b/bin/gpnas", "/usr/bin", "'/opt/a b/bin/gpnas'"),
        (".venv/bin/gpnas", "/usr/bin", ".venv/bin/gpnas"),
        ("/x/gpnas/cli/__main__.py", "/usr/bin", f"{Path(sys.executable).name} -m gpnas.cli"),
        (str(tmp_path / "gpnas"), str(tmp_path), "gpnas"),
    ):
        (tmp_path / "gpnas").write_text("")
        (tmp_path / "gpnas").chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [argv])
            patch.setenv("PATH", path)
            assert advice("evaluate", "my bundle") == f"{expected} evaluate 'my bundle'"


def test_a_stream_that_was_closed_is_no_terminal() -> None:
    """Ray's colorama asks what was stdout when the process ends."""
    inner = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream = Stream(inner)
    inner.close()
    assert not stream.isatty()
