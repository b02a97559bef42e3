"""Reads space files: safe YAML whose mistakes are told with their line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gpnas.config.families import Reading
from gpnas.config.mistakes import LocatedError, Location, in_words
from gpnas.config.schema import RecipeSettings, SpaceFile
from gpnas.errors import SpaceError
from gpnas.space import SearchSpace


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 2e-4 is a number, as in YAML 1.2 and as people write it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def find_space(space: str | Path) -> Path:
    """The path of a space file: `space` itself if it exists, else the shipped one of that name.

    Raises:
        SpaceError: neither exists.
    """
    path = Path(space)
    if path.is_file():
        return path
    # shipped files sit beside the package in a wheel, one folder up in a checkout
    package = Path(__file__).parent.parent
    shipped = [folder / "search_spaces" for folder in (package, package.parent)]
    if path.parent == Path():
        for folder in shipped:
            for name in (path.name, path.name + ".yaml"):
                if (folder / name).is_file():
                    return folder / name
    names = sorted({file.name for folder in shipped for file in folder.glob("*.yaml")})
    raise SpaceError(
        f"{space}: a space must be a file or the name of a shipped one, but neither exists; "
        f"shipped are {', '.join(names)}"
    )


def read_space_file(space: str | Path, *, own_families: bool = False) -> SpaceFile:
    """What a space file says.

    Args:
        space: path of a YAML file, or the name of a shipped one (`drn.yaml`, `drn`).
        own_families: whether it may name families that the trainers do not know.

    Raises:
        SpaceError: it cannot be read, or breaks a rule; one line with file, line, rule and value.
    """
    path = find_space(space)
    document, lines = _document(path, "a space file", "with `scale` and `families`")
    try:
        file = SpaceFile.model_validate(document, context=Reading(path, own_families))
        file.search_space()
    except ValidationError as error:
        location, what = in_words(error)
        raise SpaceError(f"{path}:{_line(location, lines)}: {what}") from None
    except LocatedError as error:
        raise SpaceError(f"{path}:{_line(error.location, lines)}: {error}") from None
    return file


def read_recipe_file(path: Path) -> RecipeSettings:
    """What a file says of how networks are trained: the settings of a space file's `recipe`, by themselves.

    Raises:
        SpaceError: it cannot be read, or breaks a rule; one line with file, line, rule and value.
    """
    document, lines = _document(path, "a recipe file", "of settings, such as `steps: 1000`")
    try:
        return RecipeSettings.model_validate(document)
    except ValidationError as error:
        location, what = in_words(error)
        raise SpaceError(f"{path}:{_line(location, lines)}: {what}") from None


def _document(path: Path, what: str, of: str) -> tuple[dict[Any, Any], dict[tuple[str, ...], int]]:
    """A YAML file's mapping, and the line of each of its keys."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: {what} must be readable UTF-8 text, but {error}") from None
    try:
        root = yaml.compose(text, Loader=_Loader)
        lines = dict(_lines(root, ())) if root is not None else {}
        document = _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpaceError(f"{path}:{line}: {what} must be valid YAML, but {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpaceError(f"{path}: {what} must be valid YAML, but {first}") from None
    if not isinstance(document, dict):
        raise SpaceError(f"{path}: {what} must be a mapping {of}, but got {type(document).__name__}")
    return document, lines


def load_space(space: str | Path, *, own_families: bool = False) -> SearchSpace:
    """The search space of a space file, without costs and therefore without its `limits`.

    Args:
        space: path of a YAML file, or the name of a shipped one (`drn.yaml`, `drn`).
        own_families: whether it may name families that the trainers do not know, for trainings of
            your own.

    Raises:
        SpaceError: as `read_space_file`.
    """
    return read_space_file(space, own_families=own_families).search_space()


def _lines(node: yaml.Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Pairs of (keys from the root, line counted from 1); refuses a key given twice."""
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key `{key.value}` is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
            for child, line in _lines(value, (*path, str(key.value))):
                yield child, key.start_mark.line + 1 if child == (*path, str(key.value)) else line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*path, str(index)))


def _line(location: Location, lines: dict[tuple[str, ...], int]) -> int:
    """The line of a location; of what it is part of, where the file does not go as deep."""
    keys = tuple(map(str, location))
    return next((lines[keys[:end]] for end in range(len(keys), -1, -1) if keys[:end] in lines), 1)
