"""The pages of the site that are made from the source: MkDocs calls this file while it builds.

The references come from what they describe, such as the command line's from its parser, the index of errors
from what the source raises, the home page from the README, and measurements from `experiments/results/`.
Links that lead from a page out of `docs/` are turned to where the site has the same.
"""

from __future__ import annotations

import argparse
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from gpnas.cli.parser import command_line

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs loads this file alone
from error_index import error_index
from http_reference import http_reference
from journal_reference import journal_reference
from search_words import search_words
from space_reference import space_reference

ROOT = Path(__file__).parents[2]
COPIES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "measurements/index.md": "experiments/README.md",
}
"""Pages that are files outside `docs/`, and which."""
MEASUREMENTS = "measurements"
"""The site's folder of what `experiments/results/` holds."""
BOOST = {"": 2.0, "tutorials": 1.5, "reference": 0.5, "reference/errors.md": 0.9, MEASUREMENTS: 0.5}
"""How much a page, or one of a folder, counts in the search: who asks how to do something comes first."""
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)((?:#[^)]*)?)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts every measurement into the navigation; it names all other pages itself."""
    sections: list[dict[str, Any]] = list(config.nav or ())
    measurements = [f"{MEASUREMENTS}/{source.name}" for source in _measurements()]
    for section in sections:
        if "Measurements" in section:
            section["Measurements"] = [*section["Measurements"], *measurements]
    config.nav = sections
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made here."""
    made = {page: (ROOT / source).read_text() for page, source in COPIES.items()}
    for source in _measurements():
        made[f"{MEASUREMENTS}/{source.name}"] = source.read_text()
    made["reference/command-line.md"] = "\n".join(command_reference())
    made["reference/http.md"] = "\n".join(http_reference())
    made["reference/journal.md"] = "\n".join(journal_reference())
    made["reference/errors.md"] = "\n".join(error_index())
    made["assets/search-words.js"] = search_words()
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links to pages of the site, or into plain text."""
    here = posixpath.dirname(page.file.src_uri)
    boost = 0.5 if page.file.src_uri in COPIES else BOOST.get(page.file.src_uri, BOOST[here])
    page.meta.setdefault("search", {"boost": boost})
    if page.file.src_uri == "reference/space-file.md":
        markdown = "\n".join([markdown, *space_reference()])
    source = COPIES.get(page.file.src_uri)
    if source:
        folder = posixpath.dirname(source)
    elif here == MEASUREMENTS:
        folder = "experiments/results"
    else:
        folder = posixpath.join("docs", here)

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        uri = _page_of(target)
        if files.get_file_from_path(uri) is not None:
            # a browser keeps a notebook instead of showing its text
            kept = f'{{: download="{posixpath.basename(uri)}" }}' if uri.endswith(".ipynb") else ""
            return f"[{match[1]}]({posixpath.relpath(uri, here or '.')}{match[3]}){kept}"
        # what only the repository has, such as source, is named
        return match[1] if (ROOT / target).exists() else match[0]

    return LINK.sub(turned, markdown)


def _measurements() -> list[Path]:
    return sorted((ROOT / "experiments" / "results").glob("*.md"))


def _page_of(target: str) -> str:
    """Where the site has a file of the repository."""
    for page, source in COPIES.items():
        if target == source:
            return page
    if target.startswith("experiments/results/"):
        return f"{MEASUREMENTS}/{posixpath.basename(target)}"
    return target.removeprefix("docs/")


def command_reference() -> Iterator[str]:
    """Every command with its usage and its options, as `--help` has them."""
    os.environ["COLUMNS"] = "100"  # by which argparse breaks its lines
    yield "# Command line\n"
    yield "Every command takes `--json`: one document on stdout, everything else on stderr.\n"
    yield from _command(command_line(), 2)


def _command(parser: argparse.ArgumentParser, depth: int) -> Iterator[str]:
    beneath: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            beneath = dict(action.choices)
    yield f"{'#' * min(depth, 6)} {parser.prog}\n"
    yield f"```text\n{parser.format_help().rstrip()}\n```\n"
    for each in beneath.values():
        yield from _command(each, depth + (0 if depth > 2 else 1))
