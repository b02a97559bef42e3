"""What is released: it is built from the repository alone, installs without it, and teaches what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path
from sysconfig import get_paths

import pytest
import yaml
from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorials" / "ten-minutes.md"
PROGRAM = """\
from gpnas import Candidate, Engine, Observation, SearchSpace

space = SearchSpace.from_table([{"width": width} for width in (1, 2, 3)])
engine = Engine(space, seed=0)
candidate: Candidate = engine.suggest(1)[0]
engine.observe(Observation(candidate, 1.0))
best: list[Candidate] = engine.recommend()
"""


def run(*command: object, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """What a command prints; it ends well."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist of what git holds, and a wheel of it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, wheel, cwd=folder)
    return python


@pytest.fixture(scope="module")
def complete(installed: Path) -> Path:
    """The same with what gpnas depends on, which mypy need not read."""
    packages = Path(get_paths(vars={"base": str(installed.parents[1])})["purelib"])
    assert packages.is_dir()
    (packages / "dependencies.pth").write_text(get_paths()["purelib"] + "\n")
    return installed


def test_the_release_is_whole_and_small(built: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.stat().st_size < 10**6
    names = zipfile.ZipFile(wheel).namelist()
    assert {"gpnas/py.typed", "gpnas_trainers/py.typed", "gpnas/search_spaces/drn.yaml"} <= set(names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "gpnas",
        "gpnas_trainers",
    }
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("/tests/test_package.py") for name in archive.getnames())


def test_the_version_is_written_once() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = [found for page in pages for found in re.findall(r"gpnas-([\d.]+)-py3", page.read_text())]
    assert set(named) == {version}
    run(
        *(sys.executable, "-m", "check_jsonschema", "--builtin-schema"),
        *("vendor.citation-file-format", "CITATION.cff"),
        cwd=ROOT,
    )


def test_types_are_those_of_the_installed_package(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(PROGRAM)
    (tmp_path / "wrong.py").write_text(
        PROGRAM.replace("Observation(candidate, 1.0)", "Observation(space, 1.0)")
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--python-executable"]
    checked = subprocess.run(
        [*command, str(installed), "right.py", "wrong.py"], cwd=tmp_path, capture_output=True, text=True
    )
    mistakes = [line.split(":")[:2] for line in checked.stdout.splitlines() if ": error:" in line]
    assert mistakes == [["wrong.py", "6"]], checked.stdout


def test_a_search_runs_from_the_wheel(complete: Path, tmp_path: Path, cache: Path) -> None:
    """In a folder of its own, by the code and the space that are installed."""
    space = yaml.safe_load((ROOT / "search_spaces/drn.yaml").read_text())
    space["search"] |= {"trials": 1, "concurrent": 1, "portfolio": 1, "validation_images": 1}
    space["recipe"] |= {"steps": 2, "evaluate_every": 2, "batch_size": 2}
    space["limits"] = {"gmacs": 0.2}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(space))
    program = (
        "import gpnas, gpnas_trainers, sys; print(gpnas.__file__); print(gpnas_trainers.__file__); "
        "from gpnas.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    variables = os.environ | {"GPNAS_CACHE": str(cache)}
    variables.pop("PYTHONPATH", None)
    said = run(complete, "-P", "-c", program, "search", "--space", "tiny.yaml", cwd=tmp_path, env=variables)
    assert all(Path(line).is_relative_to(complete.parents[1]) for line in said.splitlines()[:2])
    assert (tmp_path / "runs/tiny/bundle/manifest.json").exists()


def steps(page: str) -> list[str]:
    """The commands of a page, in their order."""
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).splitlines()
    return [line.removeprefix("$ ").partition("  #")[0] for line in lines if line.startswith("$ ")]


@pytest.mark.slow
def test_the_first_tutorial_installs_the_wheel(built: Path, tmp_path: Path) -> None:
    """As it says, but for what gpnas depends on, which no test fetches."""
    own, dist = tmp_path / "own", tmp_path / "gpnas" / "dist"
    own.mkdir()
    dist.mkdir(parents=True)
    (wheel,) = built.glob("*.whl")
    shutil.copy(wheel, dist)
    blocks = re.findall(r"^```sh\n(.*?)^```", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE)
    (block,) = [each for each in blocks if "pip install" in each]
    look = "python -c 'import importlib.metadata as m; print(m.version(\"gpnas\"))'"
    variables = os.environ | {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    said = run("bash", "-euc", f"{block}\ncd /\n{look}\ncommand -v gpnas", cwd=own, env=variables)
    version, command = said.splitlines()[-2:]
    assert wheel.name.startswith(f"gpnas-{version}-")
    assert Path(command) == own / ".venv/bin/gpnas"


@pytest.mark.slow
def test_a_newcomer_types_the_first_tutorial(
    complete: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line of it, with the installed package, in a folder of its own; trainings are shorter."""
    monkeypatch.setenv("GPNAS_CACHE", str(cache))
    page = TUTORIAL.read_text()
    (space,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert "Put this into `first.yaml`" in page
    for text, shorter in (
        ("steps: 100, batch_size: 8", "steps: 6, batch_size: 2"),
        ("trials: 8", "trials: 2, validation_images: 1"),
    ):
        assert text in space
        space = space.replace(text, shorter)
    (tmp_path / "first.yaml").write_text(space)
    Image.fromarray(data.chelsea()[:60, :80]).save(tmp_path / "photo.png")
    typed = [
        each.replace("--trials 12", "--trials 3").replace("--steps 300", "--steps 6") for each in steps(page)
    ]
    program = (
        "import json, sys; from gpnas.cli import main; sys.exit(any(map(main, json.loads(sys.argv[1]))))"
    )
    commands = json.dumps([shlex.split(each)[1:] for each in typed])
    said = run(complete, "-P", "-c", program, commands, cwd=tmp_path)
    assert "photo.png -> photo_x2.png" in said
    assert "photo.png -> photo_x2.png" in page
    assert "gpnas" in run(complete.parent / "gpnas", "--version", cwd=tmp_path)
    with Image.open(tmp_path / "photo_x2.png") as image:
        assert image.size == (160, 120)
    report = (tmp_path / "first.html").read_text()
    assert "best" in report
    assert "Mike Bostock" in report  # the licences of what draws its figures
    assert (tmp_path / "runs" / "first" / "bundle" / "manifest.json").exists()
