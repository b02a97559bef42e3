"""The command line: its options are frozen, its errors are one line, its JSON is pure."""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpnas.bundle import Member, read_bundle, write_bundle
from gpnas.cli import main
from gpnas.cli.parser import command_line
from gpnas.cli.terminal import PlainConsole
from gpnas.evaluation import evaluation_pairs
from gpnas.records import Architecture
from gpnas_trainers import build
from tests.builders import description

OPTIONS = {
    "search": "--address --budget-hours --concurrent --cost-aware --cpus-per-trial --data --early-stopping "
    "--gpus-per-trial --json --no-cost-aware --no-early-stopping --no-portfolio-aware --portfolio-aware "
    "--run --scale --seed --space --storage --strategy --trial-hours --trials "
    "--warm-start",
    "status": "--json --watch RUN",
    "doctor": "--json PATH",
    "completion": "--json SHELL",
    "explain": "--json CANDIDATE RUN",
    "ask": "--architecture --json --lease-hours --seed --shell --space --strategy --trials --wait "
    "--worker RUN",
    "tell": "--architecture --checkpoint --failed --give-back --json --lease --metric --progress --seconds "
    "CANDIDATE VALUE RUN",
    "veto": "--json NETWORK RUN",
    "report": "--data --evaluation --json --networks --output RUN",
    "space": "--json --own FILE",
    "recommend": "--data --hours --json --scale",
    "data check": "--downsample-lr --json --max-shift --minimum-side --ncc --scale --seed --synthetic "
    "--validation --workers DIR",
    "data prepare": "--downsample-lr --json --kernel-sigma --max-shift --minimum-side --ncc --noise-sigma "
    "--output --scale --seed --synthetic --validation --workers DIR",
    "train": "--address --architecture --batch-size --budget-hours --clip-norm --compile --concurrent "
    "--cpus-per-trial --data --devices --dual-weight --ema-decay --evaluate-every --gpus-per-trial "
    "--halve-every --hr-patch --images --json --l1-weight --learning-rate --max-gmacs --max-parameters "
    "--micro-batch --ms-ssim-weight --networks --pixel-loss --precision --recipe --run --scale --schedule "
    "--seed --start-from --steps --storage --tensorboard --top --warmup-steps --weight-decay RUN",
    "portfolio": "--data --json --max-gmacs --max-parameters --output --top --with RUN",
    "export": "--json --licence --licence-file --licence-holder --max-gmacs --max-parameters --no-picture "
    "--output --picture --top RUN",
    "evaluate": "--average --blend --border --channel --data --drop-outlier --json --markdown "
    "--networks --no-self-ensemble --no-tiles --overlap --precision --self-ensemble --tile --tiles BUNDLE",
    "convert": "--json --networks --output BUNDLE NETWORK",
    "upscale": "--average --blend --convert --drop-outlier --json --networks --no-self-ensemble --output "
    "--overlap --precision --self-ensemble --tile BUNDLE IN",
    "serve": "--address --certificate --host --host-name --json --key --port --runs --trainers",
    "worker": "--authorities --folder --json --lease-seconds --max-gmacs --max-memory --max-parameters "
    "--max-seconds --most --name --patience --search --token-file --train --trial-hours URL",
    "token make": "--json --name --role --runs",
    "token list": "--json --runs",
    "token revoke": "--json --runs ID",
}
GOLDEN_BUNDLE = Path(__file__).parents[1] / "golden" / "bundle-v1"


def options_of(parser: argparse.ArgumentParser, command: str = "") -> dict[str, str]:
    nested = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if nested:
        return {
            name: options
            for word, sub in nested[0].choices.items()
            for name, options in options_of(sub, f"{command} {word}".strip()).items()
        }
    names: set[str] = set()
    for action in parser._actions:
        long = {option for option in action.option_strings if option.startswith("--")}
        names |= long or ({str(action.metavar)} if not action.option_strings else set())
    return {command: " ".join(sorted(names - {"--help", "--verbose"}))}


def test_no_option_appears_or_vanishes_unnoticed() -> None:
    assert options_of(command_line()) == OPTIONS


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command prints when it fails."""
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "nope.yaml" in error(capsys, "search", "--space", "nope.yaml")
    assert "must hold journal.sqlite" in error(capsys, "status", str(tmp_path))
    bad = tmp_path / "bad.yaml"
    bad.write_text("scale: 2\nfamilies:\n  drn: {featuers: 8}\n")
    assert f"{bad}:3: unknown key `families.drn.featuers`" in error(capsys, "space", str(bad))
    assert "bundle" in error(capsys, "evaluate", str(tmp_path / "none"))
    assert str(tmp_path / "none") in error(
        capsys, "search", "--space", "drn", "--data", str(tmp_path / "none"), "--run", str(tmp_path / "run")
    )


def small_bundle(folder: Path, validation: str = "") -> None:
    axes = {"features": 4, "blocks": 1, "stages": 1}
    member = Member(Architecture("drn", axes), build("drn", 2, **axes).state_dict(), 1.0, {}, None)
    write_bundle(folder, [member], description(data={"fingerprint": "0", "validation": validation}))


def test_upscale_takes_levels_and_refuses_wrong_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source, target = tmp_path / "lr.png", tmp_path / "sr.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 21, 3), dtype=np.uint8)).save(source)
    small_bundle(tmp_path / "bundle")
    command = ["upscale", str(tmp_path / "bundle"), str(source), "-o", str(target)]
    for options, words in (
        (["--overlap", "200"], "`0 <= overlap < tile` must hold"),
        (["--tile", "96,96"], "several different ones"),
        (["--tile", "-5"], "must be one side in LR pixels"),
        (["--tile", "0,96"], "or 0 for the whole image"),
        (["--drop-outlier"], "one of at least 3 networks"),
    ):
        assert words in error(capsys, *command, *options)
    assert not target.exists()
    options = ["--tile", "12,16", "--overlap", "5", "--blend", "gaussian", "--precision", "bfloat16"]
    assert main([*command, *options, "--no-self-ensemble", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"input": str(source), "output": str(target)}]
    with Image.open(target) as image:
        assert image.size == (42, 48)
    (tmp_path / "bad.png").write_bytes(b"no image")  # beside a good one
    command[2:] = [str(tmp_path / "bad.png"), str(source), "-o", str(tmp_path / "out"), "--no-self-ensemble"]
    assert main([*command, "--json"]) == 1
    captured = capsys.readouterr()
    bad, good = sorted(json.loads(captured.out), key=lambda row: str(row["input"]))
    assert good == {"input": str(source), "output": str(tmp_path / "out" / "lr.png")}
    assert bad["input"] == str(tmp_path / "bad.png")
    assert bad["error"] in captured.err
    assert "1 of 2 were not" in captured.err.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_upscale_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    Image.new("RGB", (1500, 1500)).save(tmp_path / "lr.png")
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "sr.png"
    small_bundle(tmp_path / "bundle")
    options = [str(tmp_path / "bundle"), str(tmp_path / "lr.png"), "-o", str(target)]
    process = subprocess.Popen(
        [sys.executable, "-m", "gpnas.cli", "upscale", *options],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    while process.poll() is None and not list(target.parent.iterdir()):
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number, told
    assert "Traceback" not in told
    assert not list(target.parent.iterdir())


def test_space_shows_what_a_file_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "drn.yaml", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["size"] == document["feasible"] == 8 * 4 * 3
    assert document["cheapest"]["architecture"] == {
        "family": "drn", "axes": {"features": 4, "blocks": 1, "stages": 1}
    }  # fmt: skip
    assert document["dearest"]["parameters"] > document["cheapest"]["parameters"]
    assert len(document["design"]) == 1


def pairs_folder(folder: Path, count: int = 3, scale: int = 2) -> Path:
    generator = np.random.default_rng(0)
    for name in ("HR", f"LRx{scale}"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        lr = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        hr = lr.repeat(scale, axis=0).repeat(scale, axis=1)
        Image.fromarray(lr).save(folder / f"LRx{scale}" / f"{number}.png")
        Image.fromarray(hr).save(folder / "HR" / f"{number}.png")
    return folder


def test_pairs_that_do_not_fit_the_scale_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    folder = pairs_folder(tmp_path / "pairs", scale=3)
    (folder / "LRx3").rename(folder / "LRx2")
    assert main(["search", "--space", "drn", "--data", str(folder), "--run", str(tmp_path / "run")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "they fit scale 3" in captured.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_nothing_that_others_wrote_commands_the_terminal() -> None:
    """Escape sequences in seven bits and in eight, and characters that move the cursor."""
    console = PlainConsole(file=io.StringIO(), force_terminal=True)
    console.print("a\x1b[31mb\x9b2Jc\rd\be\x7f[bold]f[/]\n:rat:")
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert shown.split("\n")[0] == r"a\x1b[31mb\x9b2Jc\x0dd\x08e\x7f[bold]f[/]"
    assert "\x1b" not in shown


def test_an_evaluation_loses_nothing_to_where_it_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that cannot be written to is told before anything is measured; an old file stays until then."""
    monkeypatch.setenv("GPNAS_CACHE", str(cache))
    small_bundle(tmp_path / "bundle")
    command = ["evaluate", str(tmp_path / "bundle"), "--no-self-ensemble", "--tile", "48", "--markdown"]
    for place in ("/proc/table.md", str(tmp_path / "none" / "table.md")):
        assert f"{place}: must be a file that can be written" in error(capsys, *command, place)
    table = tmp_path / "table.md"
    table.write_text("old")
    assert "at least 3 networks" in error(capsys, *command, str(table), "--drop-outlier")
    assert table.read_text() == "old"
    assert main([*command, str(table), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"] | {"tile": 48, "overlap": 24, "average": "weights"} == document["settings"]
    assert f"| 1 | **{document['rows'][0]['psnr']:.2f}**" in table.read_text()
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert main([*command, "/dev/full", "--json"]) == 1  # the disk got full meanwhile
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"] == document["rows"]
    assert captured.err.splitlines()[0] == (
        "error: /dev/full: the tables could not be written (No space left on device)"
    )
    note = "what validated these networks is named by --data"
    assert note in captured.err  # the shipped photographs did not
    (shipped,) = evaluation_pairs(read_bundle(tmp_path / "bundle"), None, print)
    small_bundle(tmp_path / "other", shipped.fingerprint)
    assert main(["evaluate", str(tmp_path / "other"), "--no-tiles", "--no-self-ensemble", "--json"]) == 0
    assert note not in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["nan", "inf", "-1", "0", "much"])
def test_limits_are_numbers_above_zero(capsys: pytest.CaptureFixture[str], limit: str) -> None:
    for command, option in (("portfolio run", "--max-gmacs"), ("train run", "--budget-hours")):
        with pytest.raises(SystemExit):
            main([*command.split(), option, limit])
        assert f"{option}: " in capsys.readouterr().err


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gpnas.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("gpnas ")


def test_the_module_takes_nothing_of_the_folder_where_it_is_run(tmp_path: Path) -> None:
    """As the console script does; Python's own start has imported `types` and `pkgutil` by then."""
    for module in (
        "argparse",
        "json",
        "random",
        "typing",
        "logging",
        "enum",
        "torch",
        "yaml",
        "rich",
        "sqlite3",
    ):
        (tmp_path / f"{module}.py").write_text(f"print('{module} of the folder')\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    for arguments in (["status", "none"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-m", "gpnas.cli", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert "of the folder" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
