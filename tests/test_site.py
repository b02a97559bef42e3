"""The site: it builds without a warning, its search answers newcomers, and every error has its place."""

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from gpnas.cli import main
from gpnas.cli.parser import command_line

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
    "mine.zip: a bundle must be a folder or a .zip file, but there is nothing": ("reference/errors.html",),
    "space.yaml:2: `families.drn.stages` must be given, but is missing": ("reference/errors.html",),
    "`hr_patch` must be a multiple of the scale, but got hr_patch=49": ("reference/errors.html",),
}
"""What newcomers ask, the errors among it, and the pages that answer it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
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


def test_every_error_says_what_to_do() -> None:
    """In its own text, after the semicolon, or in the table of remarks, which names no other."""
    pages = runpy.run_path(str(ROOT / "docs" / "site" / "pages.py"))
    templates = {each.template for each in pages["messages"]()}
    silent = {each for each in templates if pages["advice"](each) is None}
    assert silent - pages["remarks"]().keys() == set(), "give these a remedy, or an entry in remarks.yaml"
    assert pages["remarks"]().keys() - silent == set(), "these are gone from the source, or say it themselves"


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
        WebDriverWait(browser, 30).until(lambda opened: not opened.find_elements(By.CSS_SELECTOR, LINK))
        # every key starts a search, and what the last one finds counts
        browser.execute_script("arguments[0].value = arguments[1]", field, question[:-1])
        field.send_keys(question[-1])
        pages = WebDriverWait(browser, 30).until(lambda opened: hits(opened, site))
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
