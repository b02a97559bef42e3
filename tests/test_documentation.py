"""README and docs: links lead somewhere, commands exist, Python runs."""

import argparse
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import gpnas_trainers
from gpnas.cli import main
from gpnas.cli.parser import command_line
from gpnas_trainers.converting import save_official

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MADE = ("journal.md", "http.md", "errors.md", "command-line.md")
"""Pages beside others in `docs/reference/` that `docs/site/` makes."""


def blocks(page: Path, *languages: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.S | re.M)
    return [text for language, text in fences if language in languages]


def commands(page: Path) -> list[str]:
    """Command lines of `gpnas`, without what a shell does around them."""
    found = []
    for block in blocks(page, "console", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^\$ ", "", line).partition("#")[0]
            if match := re.search(r"(?:^|-- |bin/)(gpnas .*)$", line.strip()):
                found.append(re.sub(r"\s*[|>].*$", "", match[1]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists() or target in MADE, target


TEXTS = {".md", ".py", ".yaml", ".yml", ".cff", ".ipynb", ".toml", ".svg", ".json", ".service", ".txt", ""}
"""Kinds of files in which a placeholder might survive."""


def test_no_placeholder_survives() -> None:
    folders = (".github", "docker", "docs", "experiments", "gpnas", "search_spaces", "trainers")
    paths = [*ROOT.iterdir(), *(path for name in folders for path in (ROOT / name).rglob("*"))]
    seen = 0
    for path in paths:
        if path.suffix in TEXTS and path.is_file() and "__pycache__" not in path.parts:
            seen += 1
            text = path.read_text()
            assert not re.search(r"@[A-Z]+@|\bXXX\b|example\.org/", text), path
            assert not re.search(r"\b(todo|tbd|fixme|lorem ipsum)\b", text, re.IGNORECASE), path
    assert seen > 300


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist_with_their_options(page: Path) -> None:
    for command in commands(page):
        try:
            command_line().parse_args(shlex.split(command)[1:])
        except (SystemExit, argparse.ArgumentError):
            pytest.fail(command)


SHOWN = ("tutorials/ten-minutes.md", "tutorials/own-network.md", "tutorials/digits.md")
"""Pages that show what `gpnas space` prints of the file that they made before."""


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_space_means_is_shown_as_it_is_printed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    text = (ROOT / "docs" / name).read_text()
    for file, block in re.findall(r"into `([\w.]+)`[^\n]*:\n\n```\w+\n(.*?)^```", text, re.S | re.M):
        Path(file).write_text(block)
    ((file, shown),) = re.findall(r"^\$ gpnas space ([\w.]+)\n(.*?)^```", text, re.S | re.M)
    assert main(["space", file]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown.splitlines()


def test_pictures_are_small_and_ask_no_network() -> None:
    pictures = [each for each in (ROOT / "docs").iterdir() if each.suffix in (".png", ".svg")]
    assert {"terminal.svg", "report.png", "report-space.png"} <= {each.name for each in pictures}
    for each in pictures:
        assert each.stat().st_size < 300_000, each.name
        if each.suffix == ".svg":
            text = each.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http" not in text, each.name
            assert "<script" not in text, each.name


def test_files_are_where_the_guide_says() -> None:
    for name in re.findall(
        r"`((?:gpnas|tests|experiments)[\w/]*(?:/|\.py))`", (ROOT / "docs/where.md").read_text()
    ):
        place = ROOT / ("trainers" if name.startswith("gpnas_trainers") else "") / name
        assert "MODULE" in name or "COMMAND" in name or place.exists(), name


def test_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    axes = {"features": 16, "groups": 2, "blocks": 2}
    save_official(gpnas_trainers.build("rcan", 4, **axes), Path("RCAN_BIX4.pt"))
    names: list[dict[str, object]] = []
    published = [each for each in blocks(ROOT / "docs/training.md", "python") if "load_rcan" in each]
    for block in [*blocks(ROOT / "README.md", "python"), *published]:
        names.append({})
        exec(compile(block, "README.md", "exec"), names[-1])
    search, networks, weights = names
    assert search["best"] == search["engine"].recommend()[0]  # type: ignore[attr-defined]
    assert len(search["observations"]) == 12  # type: ignore[arg-type]
    assert networks["sr"].shape == (1, 3, 48, 64)  # type: ignore[attr-defined]
    assert weights["scale"] == 4
    assert {name: weights["axes"][name] for name in axes} == axes  # type: ignore[index]
    assert capsys.readouterr().out.startswith("c00")


def test_a_model_and_an_acquisition_function_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    names: list[dict[str, object]] = []
    for block in blocks(ROOT / "docs/engine.md", "python"):
        names.append({})
        exec(compile(block, "docs/engine.md", "exec"), names[-1])
    acquired, modelled = names
    assert acquired["posterior"].mixture_mean.shape == (24, 1, 1)  # type: ignore[attr-defined]
    posterior = modelled["engine"].model.posterior(modelled["space"].features)  # type: ignore[attr-defined]
    assert posterior.mean.shape == (24, 1)
    assert "depth" in capsys.readouterr().out


NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def test_numbers_beside_a_measurement_stand_in_it() -> None:
    """Rounded as the README rounds them; what the paper says is the paper's."""
    rows = re.findall(
        r"^\| \[[^\]]*\]\((experiments/results/[^)]*)\)¹? \|(.*)$", (ROOT / "README.md").read_text(), re.M
    )
    assert len(rows) >= 7
    for page, row in rows:
        measured = [float(each) for each in NUMBER.findall((ROOT / page).read_text().replace("…", " "))]
        for number in NUMBER.findall(row.partition("the paper")[0]):
            digits = len(number.partition(".")[2])
            assert any(round(abs(each), digits) == abs(float(number)) for each in measured), (row, number)


def test_layers_are_those_that_the_linter_holds() -> None:
    """The tables of layers, top to bottom, name what `pyproject.toml` lists."""
    page = (ROOT / "docs/architecture.md").read_text()
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = [set(re.findall(r"\w+", layer)) for each in contracts for layer in each.get("layers", ())]
    rows = re.findall(r"^\| \d+ \| ([^|]*) \|", page, re.M)
    shown = [set(re.findall(r"`(\w+)/?`", part)) for row in rows for part in row.split(" over ")]
    assert shown == held
