"""The site: it builds without a warning, its search answers newcomers, and every error has its place."""

import argparse
import ast
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from html import unescape
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

import gpnas
import gpnas_trainers
from gpnas.cli import arguments, main
from gpnas.cli.parser import command_line
from gpnas.config import CameraSettings, Limits, RecipeSettings, SearchSettings, SpaceFile, read_space_file
from gpnas.config.axes import AxisChoices, AxisRange, AxisValues
from gpnas.config.families import ListingForm
from gpnas.config.mistakes import Strict
from gpnas.config.recipes import FamilyRecipe
from gpnas.config.schema import ObjectiveSettings
from gpnas.journal.documents import FORMS, TABLES
from gpnas_trainers import FAMILIES
from gpnas_trainers.contract import check_contract
from gpnas_trainers.own import Code, OwnError, own_family
from gpnas_trainers.pairs import Camera
from gpnas_trainers.recipe import rules
from tests.trainers.test_own import START
from tests.typed import PAGES, blocks

ROOT = Path(__file__).parents[1]

LINK = ".md-search-result__link"
"""What the site's search has found, as a selector of elements."""
QUESTIONS = {
    "extend a search": ("running.html", "tutorials/ten-minutes.html"),
    "which pairs are left out": ("data.html", "tutorials/camera-pairs.html"),
    "limit parameters": ("spaces.html", "reference/space-file.html"),
    "why was a candidate chosen": ("explain.html",),
    "kubernetes": ("clusters.html",),
    "onnx": ("bundles.html",),
    "licence of the weights": ("bundles.html",),
    "seams tiles blend": ("ensemble.html", "measurements/tiling_error.html"),
    "delete cache": ("housekeeping.html",),
    "slurm": ("slurm.html",),
    "service": ("service.html", "tutorials/service.html"),
    "copy run to another machine": ("moving.html",),
    "mutual information formula": ("method.html", "measurements/mutual_information_scale.html"),
    "how do I install it": ("tutorials/ten-minutes.html", "index.html"),
    "how do I go on after Ctrl-C": ("running.html",),
    "when is a search done": ("running.html",),
    "progress of a running search": ("running.html",),
    "what goes into a space file?": ("spaces.html", "reference/space-file.html"),
    "can I use my own network": ("own-networks.html", "tutorials/own-network.html"),
    "run out of memory": ("gpu.html",),
    "how to use several GPUs": ("gpu.html", "clusters.html"),
    "how do I add more machines": ("clusters.html", "tutorials/service.html"),
    "how to share a search with colleagues": ("service.html", "tutorials/service.html"),
    "how good are my photographs?": ("data.html",),
    "which networks belong together": ("portfolio.html", "method.html"),
    "why did a training stop early?": ("spaces.html",),
    "can I trust the predictions": ("explain.html",),
    "how do I train the best network longer": ("training.html",),
    "compare two searches": ("report.html",),
    "how many trials do I need": ("running.html",),
    "what does left to gain mean": ("running.html",),
    "is my data sent anywhere": ("security.html",),
    "upscale a photograph": ("ensemble.html",),
    "resume after a crash": ("running.html",),
    "how do I cancel": ("running.html",),
    "what is a bundle": ("bundles.html",),
    "is it safe to open a bundle from someone else": ("bundles.html",),
    "telemetry": ("security.html", "clusters.html", "index.html"),
    "jupyter notebook": ("notebooks.html",),
    "mine.zip: a bundle must be a folder or a .zip file, but there is nothing": ("reference/errors.html",),
    "space.yaml:2: `families.drn.stages` must be given, but is missing": ("reference/errors.html",),
    "`hr_patch` must be a multiple of the scale, but got hr_patch=49": ("reference/errors.html",),
    "Net(scale=2, width=4) must have parameters to train, but has none": ("reference/errors.html",),
    "node 10.0.0.2: trials read /data/pairs, but it is not there": ("reference/errors.html",),
    "must be a number, but got 'H'; write one such as 0.5": ("reference/errors.html",),
}
"""What newcomers ask, the errors among it, and the pages that answer it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr  # `--quiet` would not count warnings
    return folder


def test_no_page_asks_a_network_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)="([^"]+)"', text)
        assert [each for each in loaded if re.match(r"(https?:)?//", each)] == [], page


def test_every_command_and_option_has_its_place(site: Path) -> None:
    text = unescape((site / "reference" / "command-line.html").read_text())
    beneath = command_line()._subparsers
    assert beneath is not None
    for action in beneath._group_actions:
        for name, parser in (action.choices or {}).items():  # type: ignore[attr-defined]
            assert f"gpnas {name}" in text
            for option in parser._actions:
                if option.help != "==SUPPRESS==":
                    assert all(each in text for each in option.option_strings)


def errors_of(commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    for command in commands:
        assert main(command) == 1, command
        yield capsys.readouterr().err.strip().splitlines()[-1].removeprefix("error: ")


def test_errors_that_are_met_are_found_by_their_text(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "10000")
    page = (site / "reference" / "errors.html").read_text()
    shown = re.findall(r"<h4[^>]*><code>(.*?)</code>.*?</h4>\n<p>(.*?)<em>Raised in", page, re.DOTALL)
    templates = [unescape(each) for each, remedy in shown if remedy.strip()]
    assert len(templates) > 300
    patterns = [
        re.compile(".*".join(map(re.escape, each.split("…"))), re.DOTALL)
        for each in templates
        if len(each.replace("…", "")) > 20
    ]
    Path("space.yaml").write_text("scale: 2\nfamilies: {drn: {features: [4], blocks: 1}}\n")
    Path("other.yaml").write_text("scale: [\n")
    Path("empty").mkdir()
    Path("flat.png").write_bytes(b"no image")
    commands = [
        ["space", "space.yaml"],
        ["space", "nowhere.yaml"],
        ["space", "other.yaml"],
        ["status", "empty"],
        ["explain", "empty"],
        ["evaluate", "empty"],
        ["evaluate", "nowhere"],
        ["upscale", "nowhere", "flat.png", "-o", "out.png"],
        ["data", "check", "empty", "--scale", "2"],
        ["search", "--space", "space.yaml", "--data", "empty"],
    ]
    for line in errors_of(commands, capsys):
        assert any(pattern.search(line) for pattern in patterns), line


@pytest.fixture(scope="module")
def index() -> ModuleType:
    """The index of errors, as the site makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "site"))
        return import_module("error_index")


@pytest.fixture(scope="module")
def messages(index: ModuleType) -> list[Any]:
    """Read from the source once."""
    return list(index.messages())


@pytest.fixture(scope="module")
def templates(messages: list[Any]) -> list[str]:
    return sorted({each.template for each in messages})


def test_every_error_says_what_to_do(index: ModuleType, messages: list[Any], templates: list[str]) -> None:
    """In its own text, after the semicolon, or in the table of remarks, which names no other."""
    silent = {each for each in templates if index.advice(each) is None}
    assert silent - index.remarks().keys() == set(), "give these a remedy, or an entry in remarks.yaml"
    assert index.remarks().keys() - silent == set(), "these are gone from the source, or say it themselves"
    kinds = {each.kind for each in messages}
    assert kinds - index.WHY.keys() == {"TypeError", "ValueError"}, "say why these are met"


class Texts(ast.NodeVisitor):
    """Every text of a file that must be an error's: what is raised or told as one, and what sounds so."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bool]] = []
        """Each with `…` for values, and whether it is known to be an error's."""
        self._errors: set[int] = set()

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        if isinstance(node.exc, ast.Call) and last_name(node.exc) not in NEVER_MET:
            self._errors |= set(map(id, node.exc.args))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if last_name(node) in TELLING:
            self._errors |= set(map(id, node.args))
        if last_name(node) not in NOTING:
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._enter(node, node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [str(each.value) if isinstance(each, ast.Constant) else "…" for each in node.values]
        self._enter(node, "".join(parts))
        for each in node.values:
            if isinstance(each, ast.FormattedValue):  # a text may be within it
                self.visit(each.value)

    def _enter(self, node: ast.expr, text: str) -> None:
        known = id(node) in self._errors or text.startswith("error: ")
        own = len([word for word in text.split() if "…" not in word])
        if (known and own > 1) or (len(text) >= 25 and re.search(r"; | must |, but ", text)):
            self.found.append((text.removeprefix("error: "), known))


NEVER_MET = {"AttributeError", "BadZipFile", "KeyError", "NotImplementedError", "RuntimeError", "SystemExit"}
"""What is raised for Python or for the code that catches it."""
TELLING = {"ArgumentTypeError", "broken", "fail", "failed", "_tell_failure"}
"""Calls that make an error of their arguments without raising it."""
NOTING = {"say", "_say", "note", "report", "add", "add_argument", "option", "flag", "switch", "repeatable"}
"""Calls whose texts are lines beside the results, or help."""
NO_ERRORS = {
    # all texts of a file or a folder that are not known to be errors, and name neither a rule nor its breach
    "gpnas/bundle/card.py": "the model card",
    "gpnas/cli/arguments.py": "help",
    "gpnas/cli/data.py": "results",
    "gpnas/cli/delivered.py": "results",
    "gpnas/cli/display.py": "results",
    "gpnas/cli/parser.py": "help",
    "gpnas/diagnostics.py": "results",
    "gpnas/evaluation/results.py": "results",
    "gpnas/explanation.py": "results",
    "gpnas/figures/": "captions",
    "gpnas/learned.py": "results",
    "gpnas/report/": "sentences of a report",
    "gpnas/results/checkup.py": "findings of the doctor's that are good",
    "gpnas/results/choosing.py": "results",
    "gpnas/results/fusing.py": "results",
    "gpnas/service/documents.py": "the description of HTTP",
    "gpnas/service/working.py": "the description of HTTP",
    "trainers/gpnas_trainers/recipe.py": "help",
    # a text that begins so
    "default-src ": "a policy for browsers",
    "text/plain; ": "a media type",
    "; a family of your own names its network": "the end of what is told of an unknown key",
    "; transparent pixels ": "a note on a converted image",
    "ended after ": "a note on why a search ended",
    "the search was stopped; ": "a verdict on a training under way",
    "… cannot be read (": "a note on what is read instead",
    "… is damaged (": "a note on what is recovered",
    "… pairs in folders named test ": "a note on what is left out",
    "… channels of …": "what an image is instead of RGB, a value",
    "unchecked part …": "never met, since parts are checked before",
}
"""What the walk comes upon that is no error, and what it is."""


def last_name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def test_every_error_of_the_source_is_in_the_index(templates: list[str]) -> None:
    """By a walk over the source that follows no name; the index must have every text that it comes upon."""
    missing, excused, walked = [], set(), 0
    for path in sorted([*ROOT.glob("gpnas/**/*.py"), *ROOT.glob("trainers/**/*.py")]):
        file, texts = path.relative_to(ROOT).as_posix(), Texts()
        texts.visit(ast.parse(path.read_text()))
        walked += len(texts.found)
        for text, known in texts.found:
            if any(has_text(template, text) for template in templates):
                continue
            open_to = text if known or re.search(" must |, but ", text) else file + text
            reasons = {each for each in NO_ERRORS if open_to.startswith(each) or text.startswith(each)}
            excused |= reasons
            if not reasons:
                missing.append(f"{file}: {text}")
    assert missing == []
    assert walked > 700
    assert NO_ERRORS.keys() - excused == set(), "no such text needs an excuse any more"


def has_text(template: str, text: str) -> bool:
    """Whether all that a text is sure to have stands in a template, in its order."""
    place = 0
    for piece in (" ".join(each.split()) for each in text.split("…")):
        place = template.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


def test_the_index_of_errors_has_no_fragment_and_says_what_libraries_say(
    index: ModuleType, templates: list[str]
) -> None:
    from pydantic_core._pydantic_core import list_all_errors

    fragments = {"it must", "a list or a number", "LR … and HR …", "… down and … right", "a …, but got …"}
    assert fragments & set(templates) == set()
    said = {re.sub(r"{\w+}", "…", each["message_template_python"]).lower() for each in list_all_errors()}
    assert set(index.VALIDATORS) - said == set()


NETWORK = f"""{START.rstrip()}
        MORE

    def forward(self, x):
        y = self.end(self.last(self.first(x)))
        PASS
"""


def network(passing: str = "return y", more: str = "pass") -> str:
    return NETWORK.replace("PASS", passing).replace("MORE", more)


BROKEN = [
    "def Net(scale, width):\n    from torch import nn\n    return nn.Upsample(scale_factor=scale)\n",
    network(more="self.register_buffer('on', torch.ones(3) > 0)"),
    network() + "\n    def to(self, **options):\n        raise TypeError('it stays')\n",
    network("return self.end(self.last(self.first(x.mul_(2))))"),
    network("return y.double()"),
    network("return y / 0 * 0"),
    network("return y.detach()"),
    network("y.register_hook(lambda gradient: 1 / 0); return y"),
    network("return y.detach() + torch.zeros(1, requires_grad=True)"),
    network("return y + (self.first.weight - self.first.weight).sum().sqrt()"),
    network("return [y]"),
    network("return x"),
    network("raise KeyError(1)"),
    network("return y if x.shape[2] % 8 == x.shape[3] % 8 == 0 else x"),
    network("return x").replace("def __init__", "multiple_of = 4\n    def __init__", 1),
    network(more="raise KeyError('a')"),
    network().replace("scale, width", "scale, depth"),
    network().replace("class Net", "multiple_of = 0\nclass Other"),
    network() + "\nx = 1 / 0\n",
    "def Net(scale, width):\n    return None\n",
    "import nonesuch\n",
    "x = (\n",
]
"""Networks of a person's own, each of which breaks another rule."""
SPACES = [
    "",
    "scale: [\n",
    "scale: 2\nscale: 3\nfamilies: {drn: {}}\n",
    "scale: 2\nfamilies:\n\tdrn: {}\n",
    "scale: 2\nfamilies: {drn: {features: [4], blocks: 1}}\n",
    "scale: 2\nfamilies: {dnr: {features: [4]}}\n",
    "scale: 2\nfamilies: {}\n",
    "scale: 2\nfamilies: {drn: {features: [4], blocks: {low: 3, high: 1}, stages: 2}}\n",
    "scale: 2\nfamilies: {drn: {features: [4, 4], blocks: 1, stages: 2}}\n",
    "scale: 2\nsearch: {trials: many}\nfamilies: {drn: {features: [4], blocks: 1, stages: 2}}\n",
    "scale: 2\nsearch: {trials: 0}\nfamilies: {drn: {features: [4], blocks: 1, stages: 2}}\n",
    "scale: 2\nwhere: [features >]\nfamilies: {drn: {features: [4], blocks: 1, stages: 2}}\n",
    "scale: 2\nlimits: {weight: 3}\nfamilies: {drn: {features: [4], blocks: 1, stages: 2}}\n",
]
"""Space files, each wrong in another way."""
COMMANDS = [
    "serch",
    "search",
    "search --space",
    "search --space a.yaml --tirals 3",
    "search --space a.yaml --budget-hours H",
    "search --space a.yaml --budget-hours 0",
    "search --space a.yaml --trials 1.5",
    "search --space a.yaml --seed x",
    "search --space a.yaml --no-cost-aware=1",
    "search --space nowhere.yaml",
    "search --space drn --gpus-per-trial 2",
    "evaluate b --blend round",
    "evaluate b --tile 12,x",
    "evaluate nowhere",
    "evaluate empty",
    "evaluate torn.zip",
    "status empty",
    "status nowhere",
    "explain empty c0001",
    "tell empty c0001",
    "train --scale 2",
    "upscale nowhere flat.png -o out.png",
    "data check empty --scale 2",
    "data check nowhere --scale 2",
    "data check one --scale 2",
    "report empty",
    "space flat.png",
    "export empty -o out.zip",
    "search --space drn --data empty",
]
"""Command lines, each wrong in another way."""


def test_errors_of_every_kind_are_in_the_index(
    templates: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by a template with at least three words of its own, not only those that all have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "10000")
    for folder in ("empty", "one"):
        Path(folder).mkdir()
    Path("one", "a_HR.png").write_bytes(b"no image")
    Path("flat.png").write_bytes(b"no image")
    Path("torn.zip").write_bytes(b"PK")
    met = [broken(text) for text in BROKEN]
    for text in SPACES:
        Path("space.yaml").write_text(text)
        met.append(failing("space space.yaml", capsys))
    met += [failing(command, capsys) for command in COMMANDS]
    patterns = {
        each: re.compile(".*".join(map(re.escape, each.split("…"))))
        for each in templates
        if len(own := set(re.findall(r"\w[\w'-]*", each))) > 2 and own - {"must", "be", "but", "got"}
    }
    assert [line for line in met if not any(each.search(line) for each in patterns.values())] == []
    found = {each for each, pattern in patterns.items() for line in met if pattern.search(line)}
    assert len(found) > 50, "the same few templates have them all"


def test_errors_of_arguments_name_a_rule_and_no_type_of_python() -> None:
    parsers, checked = [command_line()], 0
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif action.type not in (None, arguments.path, str):
                checked += 1
                rule = r"must be a (whole )?number.*, but got 'H'; write one"
                with pytest.raises(argparse.ArgumentError, match=rule):
                    parser._get_value(action, "H")
    assert checked > 40


def broken(text: str) -> str:
    """What is told of a network of one's own."""
    code = Code("nets.py:Net", text)
    with pytest.raises(OwnError) as met:
        check_contract(own_family("mine", code), code, 2, {"width": 4})
    return str(met.value)


def failing(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The error that a command ends with."""
    with suppress(SystemExit):
        assert main(command.split()) == 1, command
    return capsys.readouterr().err.strip().splitlines()[-1].partition("error: ")[2]


def test_questions_are_answered_among_the_first_three(site: Path, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    browser.set_window_size(1280, 900)  # where the field is always shown
    browser.get((site / "index.html").as_uri())
    field = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
    missed = {}
    for question, answers in QUESTIONS.items():
        field.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE)
        WebDriverWait(browser, 30, 0.05).until(lambda opened: not opened.find_elements(By.CSS_SELECTOR, LINK))
        # every key starts a search, and what the last one finds counts
        browser.execute_script("arguments[0].value = arguments[1]", field, question[:-1])
        field.send_keys(question[-1])
        pages = WebDriverWait(browser, 30, 0.05).until(lambda opened: hits(opened, site))
        if not set(pages[:3]) & set(answers):
            missed[question] = pages[:3]
    assert missed == {}, json.dumps(missed, indent=2)


def hits(browser: Any, site: Path) -> list[str]:
    """The pages that the site's search shows, best first; none before it has settled."""
    script = """
        const [link, done] = arguments
        const seen = () => [...document.querySelectorAll(link)].map((each) => each.href)
        const first = JSON.stringify(seen())
        setTimeout(() => done(JSON.stringify(seen()) === first ? seen() : []), 400)
    """
    pages: list[str] = []
    for link in browser.execute_async_script(script, LINK):
        page = link.partition("#")[0].partition("?")[0].removeprefix(site.as_uri() + "/")
        if page not in pages:
            pages.append(page)
    return pages


def ids_of(site: Path) -> set[str]:
    """The anchors of all pages of the reference."""
    pages = (site / "reference").glob("*.html")
    return {each for page in pages for each in re.findall(r' id="([^"]*)"', page.read_text())}


def offered() -> Iterator[str]:
    """What the two packages offer, with their names before it."""
    yield from (f"gpnas.{name}" for names in gpnas.HOMES.values() for name in names)
    for node in ast.parse(Path(gpnas_trainers.__file__ or "").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            yield from (f"gpnas_trainers.{each.asname}" for each in node.names if each.asname)


def programs() -> Iterator[str]:
    """The Python of pages and of notebooks."""
    for page in PAGES:
        yield from (each.text for each in blocks(page, "python"))
    for path in (ROOT / "docs/notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        yield from ("".join(each["source"]) for each in cells if each["cell_type"] == "code")


def imported() -> Iterator[str]:
    """What programs import from the two packages, or take as an attribute of them."""
    for text in programs():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and re.match(r"gpnas(_trainers)?(\.|$)", node.module or ""):
                yield from (f"{node.module}.{each.name}" for each in node.names)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("gpnas", "gpnas_trainers"):
                yield ast.unparse(node)


def named() -> Iterator[str]:
    """Functions and classes that pages name in full."""
    for page in PAGES:
        for name in re.findall(r"`(gpnas(?:_trainers)?(?:\.\w+)+)(?:\([^`]*)?`", page.read_text()):
            module, _, last = name.rpartition(".")
            with suppress(ImportError):
                if callable(getattr(import_module(module), last, None)):
                    yield name


def test_names_that_programs_use_have_an_entry(site: Path) -> None:
    """Under any of the modules that have them."""
    ids, names = ids_of(site), {*offered(), *imported(), *named()}
    assert {"gpnas.Engine", "gpnas_trainers.FAMILIES", "gpnas.client.Told", "gpnas.open_run"} <= names
    missing = []
    for name in names:
        module, _, last = name.rpartition(".")
        thing = getattr(import_module(module), last)
        homes = [key for key, each in [*sys.modules.items()] if vars(each).get(last) is thing]
        if not {f"{home}.{last}" for home in homes if home.startswith("gpnas")} & ids:
            missing.append(name)
    assert sorted(missing) == []


def parts(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models beneath one, its own and theirs."""
    for each in kind.__subclasses__():
        if each.__module__.startswith("gpnas."):
            yield each
            yield from parts(each)


def section(page: str, anchor: str) -> str:
    """What stands beneath a heading, up to the next of its level or above."""
    found = re.search(rf'<h(\d) id="{anchor}">(.*?)(?=<h[1-9] id=|</article>)', page, re.DOTALL)
    assert found is not None, anchor
    return found[2]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of tables, by the code of the first cell."""
    found = re.findall(r"<tr>\n<td><code>([^<]*)</code></td>\n(.*?)\n</tr>", text, re.DOTALL)
    return {name: re.findall(r"<td>(.*?)</td>", rest, re.DOTALL) for name, rest in found}


HEADINGS = {
    SpaceFile: "keys-of-the-file",
    ListingForm: "families",
    AxisRange: "a-range-of-integers",
    AxisValues: "listed-integers",
    AxisChoices: "choices-without-order",
    ObjectiveSettings: "objective",
    Limits: "limits",
    SearchSettings: "search",
    RecipeSettings: "recipe",
    FamilyRecipe: "recipe",
    CameraSettings: "camera",
}
"""Where the keys of a model stand in the page of space files; those of a family stand under its name."""


def test_every_key_of_a_space_file_has_its_place(site: Path) -> None:
    page = (site / "reference" / "space-file.html").read_text()
    models = [each for each in parts(Strict) if each.model_fields]
    assert set(HEADINGS) <= set(models)
    assert {each.__name__ for each in models} - {each.__name__ for each in HEADINGS} == set(FAMILIES)
    for model in models:
        shown = rows(section(page, HEADINGS.get(model, model.__name__)))
        assert model.model_fields.keys() <= shown.keys(), model
        assert all(value and default and meaning for value, default, meaning in shown.values()), model
    assert {"recipe", "default", "network"} <= rows(section(page, "families")).keys()
    search = rows(section(page, "search"))
    assert search["trials"][:2] == ["integer (at least 1)", "<code>16</code>"]
    assert "knowledge gradient" in search["strategy"][2]
    assert rows(section(page, "recipe"))["ema_decay"][0] == "number (at least 0, below 1)"
    assert rows(section(page, "safmn"))["features"][:2] == ["multiple of 4", "must be given"]


def test_a_space_file_of_all_defaults_of_the_page_is_read(site: Path, tmp_path: Path) -> None:
    """A file that says what the page says is the default means the same as one that says nothing."""
    page = (site / "reference" / "space-file.html").read_text()
    text = "scale: 2\nfamilies: {drn: {features: 8, blocks: 1, stages: 1}}\n"
    short, long = tmp_path / "short.yaml", tmp_path / "long.yaml"
    short.write_text(text)
    for key in ("search", "recipe", "camera"):
        text += f"{key}:\n"
        for name, (_, default, _) in rows(section(page, key)).items():
            if value := re.fullmatch(r"<code>(.*)</code>", default):
                text += f"  {name}: {unescape(value[1])}\n"
    assert text.count("\n  ") == len(rules()) + len(SearchSettings.model_fields) - 1 + 2
    long.write_text(text)
    silent, said = read_space_file(short), read_space_file(long)
    assert said.search == silent.search
    assert said.common_recipe == silent.common_recipe
    assert Camera(**said.camera.given()) == Camera()


def test_what_stands_in_a_journal_has_its_place(site: Path) -> None:
    """Columns, and keys of the documents, as a journal that was shipped has them."""
    page = (site / "reference" / "journal.html").read_text()
    with closing(sqlite3.connect(ROOT / "tests/golden/journal-v2.sqlite")) as database:
        database.row_factory = sqlite3.Row
        for table in TABLES:
            beneath = page.partition(f'<h2 id="{table}">')[2].partition("<h2 ")[0]
            columns = {name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")}
            shown = rows(beneath)
            assert columns == shown.keys()
            assert all(meaning for _, _, meaning in shown.values()), table
            fields = dict(re.findall(r"<li><code>(\w+)</code>, ([^<]*\S.*)", beneath))
            assert all(re.search(r": [A-Z`<]", each) for each in fields.values()), table
            for row in database.execute(f"SELECT * FROM {table}"):
                document = json.loads(row["document"]) if "document" in columns else {}
                assert document.keys() <= fields.keys(), table
                assert {row[name] for name in ("key", "kind") if name in columns & {"key", "kind"}} <= {
                    unescape(each) for each in re.findall(rf">{table}: ([^<]*)<", beneath)
                }
    for kind, form in FORMS.items():
        texts = re.findall(rf'<h3 id="(?:results|events)-{kind}">(.*?)(?=<h[23])', page, re.DOTALL)
        assert texts, kind
        assert all(f"<code>{name}</code>" in text for text in texts for name in form.model_fields), kind


def test_notebooks_can_be_fetched(site: Path) -> None:
    page = (site / "notebooks.html").read_text()
    names = sorted(path.name for path in (ROOT / "docs/notebooks").glob("*.ipynb"))
    assert sorted(re.findall(r'<a download="([^"]*)" href="notebooks/\1">', page)) == names
    for name in names:
        assert (site / "notebooks" / name).read_bytes() == (ROOT / "docs/notebooks" / name).read_bytes()


def test_measurements_lead_to_the_scripts_that_made_them(site: Path) -> None:
    """Every measurement is named by the page that says how they were made."""
    page = (site / "measurements/index.html").read_text()
    made = {each.name for each in (site / "measurements").glob("*.html")} - {"index.html"}
    assert made == {f"{each.stem}.html" for each in (ROOT / "experiments/results").glob("*.md")}
    article = page.partition("<article")[2].partition("</article>")[0]
    assert made <= set(re.findall(r'href="([^"/]*\.html)"', article))
