"""Reads space files: safe YAML whose mistakes are told with their line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from yaml import Node

from gpnas.config.families import Reading
from gpnas.config.mistakes import LocatedError, in_words
from gpnas.config.schema import RecipeSettings, SpaceFile
from gpnas.config.yaml12 import MOST_CHARACTERS, YamlError, line_of, parse
from gpnas.errors import SpaceError
from gpnas.files import did_you_mean, nearby, read
from gpnas.space import SearchSpace


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
        f"shipped are {', '.join(names)}" + (nearby(path, Path.is_file) or did_you_mean(str(space), names))
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
    document, root = _document(path, "a space file", "with `scale` and `families`")
    own_families |= document.get("trainer") is not None
    with _with_lines(path, root):
        file = SpaceFile.model_validate(document, context=Reading(path, own_families))
        file.search_space()
        file.check_recipes(own_families=own_families)
    return file


def read_recipe_file(path: Path) -> RecipeSettings:
    """What a file says of how networks are trained: the settings of a space file's `recipe`, by themselves.

    Raises:
        SpaceError: it cannot be read, or breaks a rule; one line with file, line, rule and value.
    """
    document, root = _document(path, "a recipe file", "of settings, such as `steps: 1000`")
    with _with_lines(path, root):
        return RecipeSettings.model_validate(document)


@contextmanager
def _with_lines(path: Path, root: Node | None) -> Iterator[None]:
    """Tells the line of a mistake in a file."""
    try:
        yield
    except ValidationError as error:
        location, what = in_words(error)
        raise SpaceError(f"{path}:{line_of(location, root)}: {what}") from None
    except LocatedError as error:
        raise SpaceError(f"{path}:{line_of(error.location, root)}: {error}") from None


def _document(path: Path, what: str, of: str) -> tuple[dict[str, Any], Node | None]:
    """A YAML file's mapping, and the node by which `line_of` knows the line of each key."""
    try:
        text = read(path, MOST_CHARACTERS, follow=True).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: {what} must be readable UTF-8 text, but {error}") from None
    try:
        document, root = parse(text)
    except YamlError as error:
        raise SpaceError(f"{path}:{error.line}: {what} must be valid YAML, but {error}") from None
    if not isinstance(document, dict):
        raise SpaceError(f"{path}: {what} must be a mapping {of}, but got {type(document).__name__}")
    return document, root


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
