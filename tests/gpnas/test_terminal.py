"""The terminal: what it shows of a run under way, examples, completion, and what a misspelt name may mean."""

import argparse
import fcntl
import io
import json
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gpnas import Architecture
from gpnas.cli import main
from gpnas.cli.live import Region
from gpnas.cli.parser import command_line
from gpnas.cli.text import BLOCKS, duration, sparkline
from gpnas.journal import Journal, Look, Training, look
from gpnas.journal.leases import Holder
from gpnas.records import Candidate, Fidelity, Objective, Observation, Progress, Prospect
from gpnas.run.setup import PSNR
from tests.gpnas.searched import SPACE, STEPS, header_of, searched, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("runs") / "drn", 9)


# -- what a journal tells of a run under way


def proposed(number: int, steps: int = 100) -> Candidate:
    return Candidate(f"c{number:04d}", SPACE[number], Fidelity(steps), 0, {"phase": "random"})


def test_a_look_tells_speed_and_time_left_as_reckoned_by_hand(tmp_path: Path) -> None:
    header = replace(header_of(SPACE, 6, PSNR, {}), concurrent=2)
    with Journal.create_or_open(tmp_path / "run", header) as journal:
        journal.commit_candidates([proposed(number) for number in range(4)])
        for number, seconds in ((0, 20.0), (1, 40.0)):
            journal.start_attempt(f"c{number:04d}")
            journal.commit_observation(Observation(proposed(number), 28.0 + number, None, seconds))
        journal.start_attempt("c0002")
        for step, value, seconds in ((20, 26.0, 10.0), (40, 27.0, 20.0), (60, 27.5, 25.0), (70, None, 27.5)):
            journal.record_progress("c0002", Progress(1, step, value, {}, seconds))
        seen = look(tmp_path / "run")
        assert seen.state == "running"
        assert [each.candidate.id for each in seen.training] == ["c0002"]
        (training,) = seen.training
        assert training.curve == ((20, 26.0), (40, 27.0), (60, 27.5))
        # from the last evaluation but one: (70 - 40) steps in (27.5 - 20) seconds
        assert training.speed == pytest.approx(4.0)
        assert training.left == pytest.approx(7.5)
        # one runs for 7.5 s more; three are to come, of (20 + 40) / 2 s each, two side by side
        assert seen.left == pytest.approx((7.5 + 3 * 30) / 2)
        assert seen.best is not None
        assert seen.best.candidate.id == "c0001"
    assert look(tmp_path / "run").state == "interrupted"
    assert look(tmp_path / "run").training == ()


def test_a_run_that_workers_elsewhere_train_is_seen_too(tmp_path: Path) -> None:
    with Journal.create_or_open(tmp_path / "run", header_of(SPACE, 2, PSNR, {})) as journal:
        journal.commit_candidates([proposed(number) for number in range(2)])
        lease = journal.leases.grant("c0001", Holder("ann"), 3_600)
    seen = look(tmp_path / "run")
    assert seen.state == "running"
    assert [each.candidate.id for each in seen.training] == ["c0001"]
    with Journal.create_or_open(tmp_path / "run", header_of(SPACE, 2, PSNR, {})) as journal:
        journal.leases.end(lease.id)
    assert look(tmp_path / "run").state == "interrupted"


def test_the_best_of_what_is_minimised_is_the_lowest(tmp_path: Path) -> None:
    objective = Objective("loss", "", "minimise")
    with Journal.create_or_open(tmp_path / "run", header_of(SPACE, 3, objective, {})) as journal:
        journal.commit_candidates([proposed(number) for number in range(3)])
        for number, value in enumerate((0.3, 0.1, 0.2)):
            journal.commit_observation(Observation(proposed(number), value))
    best = look(tmp_path / "run").best
    assert best is not None
    assert best.value == 0.1


def test_a_search_notes_what_its_surrogate_makes_of_it(run: Path) -> None:
    """The note is renewed with each observation; the report computes the same."""
    seen = look(run)
    assert seen.prospect is not None
    assert seen.prospect.observations == len(seen.ended)
    assert 0 <= seen.prospect.regret <= seen.prospect.bound
    finished = [each for each in seen.ended if each.finished]
    assert seen.prospect.leader in {each.candidate.id for each in finished}
    values = [each.value or 0.0 for each in finished]
    assert min(values) - 0.5 < seen.prospect.mean < max(values) + 0.5


# -- the part of the screen


def drawn(seen: Look, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(Region(seen))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n").split("\n")


def under_way(training: int) -> Look:
    ended = tuple(Observation(proposed(n), 28.0 + n / 10, None, 10.0, {"ssim": 0.8}) for n in range(5))
    running = tuple(
        Training(proposed(5 + n % 30), 50, ((25, 26.0), (50, 27.0)), 5.0, 10.0) for n in range(training)
    )
    prospect = Prospect(5, "c0004", 28.38, 0.02, 0.0123, 0.0456)
    return Look(Path("runs/drn"), "running", "search", PSNR, 50, 4, ended, running, prospect)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 12), (80, 6), (20, 3)])
@pytest.mark.parametrize("training", [0, 2, 60])
def test_the_live_view_is_no_higher_than_the_screen(training: int, width: int, height: int) -> None:
    lines = drawn(under_way(training), width, height)
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)


def test_the_live_view_tells_what_trains_the_best_and_what_is_left() -> None:
    lines = drawn(under_way(2), 100, 24)
    text = "\n".join(lines)
    assert "drn: 5 of 50 trials ended" in lines[0]
    assert "50/100" in text
    assert f"{BLOCKS[0]}{BLOCKS[7]}" in text
    assert "best: c0004 net 4·3·plain with 28.40 dB; expected of it: 28.38 ± 0.03 dB (90 %)" in text
    assert "left to gain: about 0.012 dB, in 9 of 10 cases at most 0.046 dB" in text
    # two run for 5 s more; 43 are to come, of 10 s each, four side by side
    assert "all trials end in about 1 min 50 s" in text


def test_a_bound_below_what_it_bounds_is_not_told() -> None:
    seen = under_way(2)
    assert seen.prospect is not None
    seen = replace(seen, prospect=replace(seen.prospect, regret=0.0012, bound=0.0))
    assert "left to gain: about 0.001 dB" in drawn(seen, 100, 24)


def test_names_of_others_do_not_command_the_screen() -> None:
    seen = under_way(1)
    evil = replace(proposed(0), architecture=Architecture("a\x1b[31m[bold]", {"w": "\x9b2J"}))
    seen = replace(
        seen,
        run=Path("r\x1b[2J"),
        objective=Objective("[blink]v", "[/]"),  # what is not printable is refused before
        ended=(Observation(evil, 1.0),),
        training=(replace(seen.training[0], candidate=evil),),
    )
    text = "\n".join(drawn(seen, 120, 24))
    assert "\x1b[31m" not in text.replace("\\x1b", "")
    assert "\x9b" not in text
    assert "[bold]" in text


def test_sparklines_and_durations() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BLOCKS
    assert sparkline([9, 9, 0, 7], 2) == BLOCKS[0] + BLOCKS[7]
    assert sparkline([], 4) == ""
    assert [duration(seconds) for seconds in (0.4, 59.6, 61, 3_599, 3_660, 90_000)] == [
        "0 s", "1 min 0 s", "1 min 1 s", "59 min 59 s", "1 h 1 min", "1 d 1 h"
    ]  # fmt: skip


# -- status --watch


def test_a_run_is_watched_from_another_process_until_its_driver_ends(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Journal.create_or_open(run, header_of(SPACE, 3, PSNR, {})) as journal:
        journal.commit_candidates([proposed(number, STEPS) for number in range(3)])
        trained(journal, proposed(0, STEPS), 28.0)
        journal.commit_observation(Observation(proposed(0, STEPS), 28.0, None, 10.0))
        watching = subprocess.Popen(
            [sys.executable, "-m", "gpnas.cli", "status", str(run), "--watch"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watching.stderr is not None
        lines = [watching.stderr.readline(), watching.stderr.readline()]
        assert "c0000" in lines[1]
        assert watching.poll() is None  # it goes on while the driver does
        journal.commit_observation(Observation(proposed(1, STEPS), None, "no memory", 3.0))
        assert "failed: no memory" in watching.stderr.readline()
    out, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert "interrupted" in out.splitlines()[0]


def test_a_terminal_is_drawn_on_within_its_height(tmp_path: Path) -> None:
    """A terminal of 80 × 12 characters: what trains is drawn, and never reaches above the screen."""
    run = tmp_path / "run"
    driver, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 80, 0, 0))
    with Journal.create_or_open(run, header_of(SPACE, 30, PSNR, {})) as journal:
        journal.commit_candidates([proposed(number) for number in range(12)])
        for number in range(12):
            journal.start_attempt(f"c{number:04d}")
            journal.record_progress(f"c{number:04d}", Progress(1, 50, 28.0, {}, 10.0))
        command = [sys.executable, "-m", "gpnas.cli", "status", str(run), "--watch"]
        environment = {**os.environ, "TERM": "xterm-256color"}
        environment.pop("COLUMNS", None)
        environment.pop("LINES", None)
        watching = subprocess.Popen(
            command, stdin=terminal, stdout=subprocess.DEVNULL, stderr=terminal, env=environment
        )
        os.close(terminal)
        shown = b""
        while b"more" not in shown:  # which stands beneath the trials that have room
            shown += os.read(driver, 4_096)
    with suppress(OSError):  # which the end of the other side is
        while more := os.read(driver, 4_096):
            shown += more
    assert watching.wait(timeout=60) == 0
    os.close(driver)
    assert b"c0000" in shown
    assert b"50/100" in shown
    up = b"\x1b[1A\x1b[2K"  # cursor up, line erased (ECMA-48, 8.3.22 and 8.3.41)
    redrawn = [len(each) // len(up) for each in re.findall(rb"(?:\x1b\[1A\x1b\[2K)+", shown)]
    assert redrawn
    assert max(redrawn) < 12


def test_status_tells_any_objective(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal.create_or_open(
        tmp_path / "run", header_of(SPACE, 1, Objective("recall", "%"), {})
    ) as journal:
        journal.commit_candidates([proposed(0)])
        journal.commit_observation(Observation(proposed(0), 61.25))
    assert main(["status", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "recall %" in out
    assert "61.25" in out


# -- help, completion, misspelt names


def parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not nested:
        return [parser]
    return [each for sub in nested[0].choices.values() for each in parsers(sub)]


def test_every_command_has_an_example_that_parses() -> None:
    for parser in parsers(command_line()):
        heading, *examples = (parser.epilog or "").splitlines()
        assert heading in ("example:", "examples:")
        assert examples
        for example in examples:
            words = shlex.split(example.partition(" > ")[0])
            assert words[0] == "gpnas"
            assert command_line().parse_args(words[1:]).parser.prog == parser.prog


def test_shared_options_stand_before_the_command_or_after_it() -> None:
    for words in ("--verbose --json status r", "status r --verbose --json", "--json status r --verbose"):
        options = command_line().parse_args(words.split())
        assert options.verbose
        assert options.json
    options = command_line().parse_args(["status", "r"])
    assert not options.verbose
    assert not options.json


def completed(script: Path, line: str) -> list[str]:
    """What bash itself offers for the last word of a line."""
    words = line.split(" ")
    program = f"""
    source {shlex.quote(str(script))}
    complete -p gpnas >/dev/null || exit 3
    COMP_WORDS=({" ".join(shlex.quote(word) for word in words)}); COMP_CWORD={len(words) - 1}
    COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}
    function=$(complete -p gpnas | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    "$function" gpnas {shlex.quote(words[-1])} {shlex.quote(words[-2])}
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_and_choices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "gpnas.bash"
    script.write_text(capsys.readouterr().out)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert completed(script, "gpnas sea") == ["search"]
    assert set(completed(script, "gpnas ex")) >= {"explain", "export"}
    assert completed(script, "gpnas search --strat") == ["--strategy"]
    assert set(completed(script, "gpnas search --strategy mi")) == {"mi+kg", "mi+nei"}
    assert set(completed(script, "gpnas data ")) >= {"check", "prepare"}
    (tmp_path / "a space.yaml").touch()
    assert str(tmp_path / "gpnas.bash") in completed(script, f"gpnas status {tmp_path}/gp")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_that_names_every_command(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell, "--json"]) == 0
    script = json.loads(capsys.readouterr().out)["script"]
    for parser in parsers(command_line()):
        assert parser.prog.split()[-1] in script


TYPED = {
    "sea": "search",
    "--json rep": "--json report",
    "data ch": "data check",
    "search --strat": "search --strategy",
    "search --verbose --strategy rand": "search --verbose --strategy random",
    "space one": "space one.yaml",
    "report one.yaml tw": "report one.yaml two.yaml",
    "explain one.yaml c0007 --js": "explain one.yaml c0007 --json",
}
"""What is typed after `gpnas` to what stands there once Tab was pressed."""


@pytest.fixture
def completing(tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Path:
    """The script of a shell that is here, and files beside it."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed (apt-get install {shell})")
    assert main(["completion", shell]) == 0
    (tmp_path / "_gpnas").write_text(capsys.readouterr().out)
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("completing", ["fish"], indirect=True)
def test_fish_completes(completing: Path) -> None:
    asked = "".join(f"complete -C 'gpnas {line}'; echo ----; " for line in TYPED)
    command = ["fish", "--no-config", "-c", f"source _gpnas; {asked}"]
    done = subprocess.run(command, cwd=completing, capture_output=True, text=True, check=True)
    *answers, rest = done.stdout.split("----\n")
    assert rest == ""
    words = [[row.split("\t")[0] for row in answer.splitlines()] for answer in answers]
    assert words == [[line.split()[-1]] for line in TYPED.values()]


@pytest.mark.parametrize("completing", ["zsh"], indirect=True)
def test_zsh_completes(completing: Path) -> None:
    """By keys in a terminal, since zsh completes nowhere else."""
    keyboard, terminal = pty.openpty()
    typed = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -d dump\n"
    typed += "gpnas() { print -r -- $* >> got }\n"
    typed += "".join(f"gpnas {line}\t\n" for line in TYPED) + "exit\n"
    with subprocess.Popen(
        ["zsh", "-f", "-i"],
        cwd=completing,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "dumb"},
        start_new_session=True,
    ) as shell:
        os.close(terminal)
        os.write(keyboard, typed.encode())
        with suppress(OSError):  # EIO once the shell has gone
            while os.read(keyboard, 4096):
                pass
    os.close(keyboard)
    assert shell.returncode == 0
    assert [line.rstrip() for line in (completing / "got").read_text().splitlines()] == list(TYPED.values())


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with suppress(SystemExit):
        assert main(arguments) == 1
    return capsys.readouterr().err


def test_misspelt_names_suggest_the_nearest(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = Path(__file__).parents[1] / "golden" / "bundle-v1"
    assert "did you mean 'search'?" in said(capsys, "serch")
    assert "did you mean 'prepare'?" in said(capsys, "data", "prepair")
    assert "did you mean '--trials'?" in said(capsys, "search", "--space", "drn", "--trails", "3")
    assert "did you mean 'drn.yaml'?" in said(capsys, "space", "dnr.yaml")
    assert "did you mean 'drn.yaml'?" in said(capsys, "space", "drn.yml")
    assert "did you mean" not in said(capsys, "space", "nothere.yaml")
    assert "did you mean 'network-1'?" in said(
        capsys, "convert", str(golden), "netwerk-1", "-o", str(tmp_path / "n.onnx")
    )
    assert f"did you mean '{golden}'?" in said(capsys, "evaluate", str(golden).replace("bundle", "bundel"))
    shutil.copytree(run, tmp_path / "searches" / "drn")
    monkeypatch.chdir(tmp_path)
    for wrong in ("searches/dnr", "serches/drn", str(tmp_path / "searches" / "drm")):
        assert "searches/drn'?" in said(capsys, "status", wrong)
    assert "did you mean" not in said(capsys, "status", "nothing/like/it")
