"""The pages of the site that are made from the source: MkDocs calls this file while it builds.

The command line's reference comes from its parser, the index of errors from what the source raises, the home
page from the README, and measurements from `experiments/results/`. Links that lead from a page out of `docs/`
are turned to where the site has the same.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import posixpath
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from gpnas.cli.parser import command_line

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs loads this file alone
from http_reference import http_reference
from journal_reference import journal_reference

ROOT = Path(__file__).parents[2]
COPIES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
"""Pages that are files of the repository's top, and which."""
MEASUREMENTS = "measurements"
"""The site's folder of what `experiments/results/` holds."""
BOOST = {"": 2.0, "tutorials": 1.5, "reference": 0.5, "reference/errors.md": 1.6, MEASUREMENTS: 0.5}
"""How much a page, or one of a folder, counts in the search: who asks how to do something comes first."""
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)((?:#[^)]*)?)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts every measurement into the navigation, and every page of `docs/` that it does not name."""
    sections: list[dict[str, Any]] = list(config.nav or ())
    named = {page for section in sections for page in _targets(section)}
    pages = [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in named]
    for section in sections:
        if "How to" in section:
            section["How to"] = [*section["How to"], *pages]
    measurements = [f"{MEASUREMENTS}/{source.name}" for source in _measurements()]
    config.nav = [*sections, {"Measurements": measurements}]
    return config


def _targets(item: Any) -> Iterator[str]:
    """The pages that an item of the navigation leads to."""
    if isinstance(item, str):
        yield item
    else:
        for each in item.values() if isinstance(item, dict) else item:
            yield from _targets(each)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made here."""
    made = {page: (ROOT / source).read_text() for page, source in COPIES.items()}
    for source in _measurements():
        made[f"{MEASUREMENTS}/{source.name}"] = source.read_text()
    made["reference/command-line.md"] = "\n".join(command_reference())
    made["reference/http.md"] = "\n".join(http_reference())
    made["reference/journal.md"] = "\n".join(journal_reference())
    made["reference/errors.md"] = "\n".join(error_index())
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links to pages of the site, or into plain text."""
    here = posixpath.dirname(page.file.src_uri)
    boost = 0.5 if page.file.src_uri in COPIES else BOOST.get(page.file.src_uri, BOOST[here])
    page.meta.setdefault("search", {"boost": boost})
    source = COPIES.get(page.file.src_uri)
    if page.file.src_uri.startswith(f"{MEASUREMENTS}/"):
        folder = "experiments/results"
    else:
        folder = "" if source else posixpath.join("docs", here)

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        uri = _page_of(target)
        if files.get_file_from_path(uri) is not None:
            return f"[{match[1]}]({posixpath.relpath(uri, here or '.')}{match[3]})"
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


@dataclass(frozen=True)
class Message:
    """What one line of the source may tell a user."""

    kind: str
    """The exception's class."""
    template: str
    """The text, with `…` where a value stands."""
    file: str
    """The source file, from the repository's top."""
    line: int


WHY = {
    "SpaceError": (
        "A space file, or a space built in Python, breaks a rule.",
        "Nothing has been trained. Correct the line that the message names; `gpnas space FILE` shows what a "
        "file means before anything is trained.",
    ),
    "YamlError": (
        "A space file is not YAML as gpnas reads it (YAML 1.2, no tags, no aliases that multiply).",
        "Correct the line that the message names.",
    ),
    "DataError": (
        "Photographs or pairs cannot be used.",
        "`gpnas data check DIR --scale N` says of every file what is wrong with it.",
    ),
    "PairsError": (
        "A folder of pairs or a prepared set cannot be used.",
        "`gpnas data check DIR --scale N` says of every file what is wrong with it; a prepared set in the "
        "cache is made anew where it is missing.",
    ),
    "ImageError": (
        "An image cannot be read or written as it is.",
        "`--convert` of `gpnas upscale` makes RGB of what is grey, indexed or transparent; a damaged file "
        "must be copied again.",
    ),
    "JournalError": (
        "The journal of a run folder is missing, damaged, in use, or belongs to another search.",
        "Nothing was changed. `gpnas doctor RUN` looks at the whole folder; a journal that is torn is "
        "recovered from the backup beside it, where that is whole.",
    ),
    "DamageError": (
        "A stored document or a database is not as gpnas writes it.",
        "`gpnas doctor RUN` names what is damaged; bring the file back from a copy, or begin a new run.",
    ),
    "BundleError": (
        "A bundle cannot be written, or what was read is no bundle that can be trusted.",
        "Fetch it again, or export it again from its run; `gpnas doctor BUNDLE` verifies one.",
    ),
    "TrialError": (
        "Trainings cannot be started or cannot go on.",
        "What was observed is kept: the same command goes on once the cause is gone.",
    ),
    "WeightsError": (
        "A file does not hold weights that gpnas can use.",
        "Give published weights of one of the families, in any of the usual wrappers.",
    ),
    "ConversionError": (
        "A network cannot be converted.",
        "Convert another one, or use the bundle itself.",
    ),
    "ArgumentTypeError": (
        "An option on the command line has a value that it cannot take.",
        "The command's `--help` says what it takes.",
    ),
    "LeaseError": (
        "A candidate is leased to someone else, or the lease has run out.",
        "Ask for another candidate; what was reported before is kept, and the first observation counts.",
    ),
    "OwnError": (
        "A network or a training of your own breaks its contract.",
        "Correct the line of your file that the message names; nothing has been observed for it.",
    ),
    "Excluded": (
        "A pair is left out of a set.",
        "`gpnas data check` has an option for each bound; mend the images rather than lowering one.",
    ),
    "Problem": (
        "The service refuses a request, or cannot do what it asks.",
        "The answer's `status` says whose fault it is (4xx the request's, 5xx the service's), its `detail` "
        "has the message.",
    ),
    "ServiceError": (
        "`gpnas serve` cannot start as it is told to.",
        "Correct the option that the message names; nothing has been started.",
    ),
    "Interrupted": (
        "A command was ended by a signal or by its time budget, in good order.",
        "The same command goes on where it stopped.",
    ),
    "StartError": (
        "Ray does not start on this machine.",
        "It is tried again by itself; what was observed is kept, and the same command goes on.",
    ),
    "TokenError": (
        "The service's file of tokens cannot be used, or a token is not what was asked for.",
        "`gpnas token list --runs DIR` shows what there is.",
    ),
    "CollapseError": (
        "A training's loss or its pixels ceased to be finite or left every bound, and did so again.",
        "Lower the learning rate or give the architecture's family a recipe of its own.",
    ),
    "ResidualError": (
        "What a training's errors have in common with others' is missing or damaged.",
        "Train the candidate that the message names again, or choose without it.",
    ),
}
"""What is said of each class of errors: why it is met, and what to do in general."""
OTHERS = (
    "A value breaks a rule of a function or of a record.",
    "Give a value as the message asks for; from the command line it names the option or the key.",
)
HOMES = {
    "gpnas/config/": "SpaceError",
    "gpnas/space/": "SpaceError",
    "gpnas/journal/": "JournalError",
    "gpnas/bundle/": "BundleError",
    "gpnas/dispatch/": "TrialError",
    "gpnas/run/": "TrialError",
    "gpnas/results/": "TrialError",
    "trainers/gpnas_trainers/images/": "ImageError",
    "trainers/gpnas_trainers/pairs/": "PairsError",
    "trainers/gpnas_trainers/weights": "WeightsError",
}
"""The class of the errors whose texts a folder of the source states without raising them there."""
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
Functions = Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef]
ERRORS = re.compile(
    r"^(?!Assertion|Attribute|Index|Key|Import|NotImplemented|Runtime).*(Error|Excluded|Interrupted|Problem)$"
)


def error_index() -> Iterator[str]:
    """Every message that the source can raise, by the class of the error, with what to do about it."""
    yield "# Errors by their message\n"
    yield (
        "Every error is one line: the rule, the value that broke it, what to do. Search this page for a part "
        "of yours that holds no name or number of your own; `…` stands for those. The rule is why it was "
        "raised; beneath it stands what to do. The search of this site takes a whole line, but for words "
        "that begin with a minus sign, which it takes for what must not be there.\n"
    )
    found, said = messages(), remarks()
    kinds = sorted({each.kind for each in found}, key=lambda kind: (kind not in WHY, kind))
    for kind in kinds:
        why, general = WHY.get(kind, OTHERS)
        yield f"## {kind}\n\n**Why.** {why}\n\n**What to do.** {general}\n"
        files: dict[str, set[str]] = {}
        for each in found:
            if each.kind == kind:
                files.setdefault(each.template, set()).add(f"`{each.file}`")
        for template, places in sorted(files.items()):
            remedy = advice(template) or said.get(template, "")
            yield f"#### `` {template} ``\n\n{remedy} *Raised in* {', '.join(sorted(places))}.\n"
        yield ""


def advice(template: str) -> str | None:
    """What a message itself says is to be done, after its last semicolon; None where it says nothing."""
    _, _, text = template.rpartition(";")
    least = 3 if text.endswith("…") else 2
    if text == template or len([word for word in text.split() if "…" not in word]) < least:
        return None
    text = text.strip()
    return f"{text[0].upper()}{text[1:]}."


def remarks() -> dict[str, str]:
    """What `remarks.yaml` says is to be done, by message."""
    groups = yaml.safe_load((Path(__file__).parent / "remarks.yaml").read_text())
    return {message: group["do"] for group in groups for message in group["messages"].splitlines()}


def messages() -> list[Message]:
    """What the source can tell in an error, read from its syntax."""
    found: list[Message] = []
    for folder in (ROOT / "gpnas", ROOT / "trainers"):
        for path in sorted(folder.rglob("*.py")):
            found.extend(_messages_of(path))
    return found


def _messages_of(path: Path) -> Iterator[Message]:
    tree = _with_constants(ast.parse(path.read_text()))
    scopes = [node for node in ast.walk(tree) if isinstance(node, FUNCTION)]
    functions = {node.name: node for node in scopes}
    file = path.relative_to(ROOT).as_posix()
    raised: set[str] = set()
    within: set[int] = set()
    for scope in [tree, *scopes]:
        for node in _within(scope):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            for kind, template in _texts(node.exc, scope, functions):
                raised.add(template)
                within |= {id(part) for part in ast.walk(node.exc)}
                yield Message(kind, template, file, node.lineno)
    yield from _rules(tree, file, raised, within)


def _with_constants(tree: ast.Module) -> ast.Module:
    """The same with the texts of the module's constants where f-strings name them."""
    texts: dict[str, ast.expr] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=targets, value=ast.Constant(value=str()) as value):
                texts |= {each.id: value for each in targets if isinstance(each, ast.Name)}
    for text in ast.walk(tree):
        if isinstance(text, ast.JoinedStr):
            for place, part in enumerate(text.values):
                if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name):
                    text.values[place] = texts.get(part.value.id, part)
    return tree


def _rules(tree: ast.Module, file: str, raised: set[str], within: set[int]) -> Iterator[Message]:
    """Texts that state a rule and are raised elsewhere, as those of a space file's keys are."""
    kind = next((kind for place, kind in HOMES.items() if file.startswith(place)), "ValueError")
    # docstrings and help are no errors, and parts of a text are no text
    passed = within | {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "help":
            passed.add(id(node.value))
        if isinstance(node, ast.JoinedStr | ast.BinOp):
            passed |= {id(part) for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and id(node) not in passed:
            for template in _templates(node, tree, {}):
                stated = re.search(r"\b(must|but got|is missing|unknown key)\b", template)
                if stated and template not in raised and " " in template.strip("… "):
                    yield Message(kind, template, file, node.lineno)


def _within(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, without those of functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, FUNCTION):
            yield child
            yield from _within(child)


def _texts(call: ast.Call, scope: ast.AST, functions: Functions) -> Iterator[tuple[str, str]]:
    """The class and the templates of a raised call, through local names and helpers of the same file."""
    name = ast.unparse(call.func).rpartition(".")[2]
    if not ERRORS.search(name):
        helper = functions.get(name)
        if helper is not None:
            for node in _within(helper):
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
                    yield from _texts(node.value, helper, functions)
        return
    for argument in [*call.args, *(each.value for each in call.keywords)]:
        for template in _templates(argument, scope, functions):
            if " " in template.strip("… "):
                yield name, template


def _templates(node: ast.AST, scope: ast.AST, functions: Functions, depth: int = 3) -> Iterator[str]:
    """The texts that an expression may make, with `…` where a value stands."""
    for text in _parts(node, scope, functions, depth):
        yield re.sub(r"…(\s*…)+", "…", " ".join(text.split()))


def _parts(node: ast.AST, scope: ast.AST, functions: Functions, depth: int) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [list(_filled(each, scope, functions, depth)) or ["…"] for each in node.values]
        yield from map("".join, itertools.product(*parts))
    elif isinstance(node, ast.BinOp):
        sides = [list(_parts(each, scope, functions, depth)) for each in (node.left, node.right)]
        if any(sides):
            yield from map("".join, itertools.product(*(each or ["…"] for each in sides)))
    elif isinstance(node, ast.IfExp):
        for side in (node.body, node.orelse):
            yield from _parts(side, scope, functions, depth)
    elif isinstance(node, ast.Name) and depth:
        for other in _within(scope):
            if isinstance(other, ast.Assign) and any(
                isinstance(each, ast.Name) and each.id == node.id for each in other.targets
            ):
                yield from _parts(other.value, scope, functions, depth - 1)
    elif isinstance(node, ast.Call) and depth:
        helper = functions.get(ast.unparse(node.func))
        for other in _within(helper) if helper is not None else ():
            if isinstance(other, ast.Return) and other.value is not None:
                yield from _parts(other.value, helper or scope, functions, depth - 1)


def _filled(node: ast.AST, scope: ast.AST, functions: Functions, depth: int) -> Iterator[str]:
    """What a part of an f-string may be: itself, or one of the texts that a choice or a name stands for."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.IfExp):
        for side in (node.value.body, node.value.orelse):
            yield str(side.value) if isinstance(side, ast.Constant) else "…"
    elif isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name) and depth:
        texts = list(_parts(node.value, scope, functions, depth - 1))
        if all(" " in each.strip() for each in texts):  # a word may be what a value is compared with
            yield from texts
