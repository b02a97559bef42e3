"""Files beside someone's own source that it imports: found by its import statements, run from their texts.

What is found is what is sent: nothing is run to find it. A name is looked for in the folder of the source
first, as Python does for a script, and for the source and its files alone.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import linecache
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from gpnas_trainers.files import read

MOST = 2**20
"""Bytes that a source may have, with all that it imports from beside it."""
MOST_FILES = 32
"""Files that it may so import."""
PREFIX = "gpnas_own_"
"""A prefix of the names of modules that are made of texts."""
INIT = "__init__.py"


class OwnError(ValueError):
    """Someone's own network that cannot be used; one line, with file and line where these are known."""


def text_of(path: Path, name: str, what: str) -> str:
    """The text of a source file.

    Args:
        path: of the file.
        name, what: name the file and what it is of, for the error.

    Raises:
        OwnError: it is too large, no UTF-8, or cannot be read.
    """
    try:
        return read(path, MOST, follow=True).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OwnError(f"{name}: a {what}'s file must be readable UTF-8 text, but {reason}") from None


def texts_beside(text: str, folder: Path, name: str, what: str) -> dict[str, str]:
    """The texts of all files that a source imports from its folder, and that these import, by their paths.

    Args:
        text: of the source.
        folder: where it lies; none of the files lies outside.
        name, what: name the source and what it is of, for the error.

    Raises:
        OwnError: they are too many or too large, cannot be read, or lead out of the folder.
    """
    found: dict[str, str] = {}
    waiting: list[tuple[str, tuple[str, ...]]] = [(text, ())]
    while waiting:
        source, package = waiting.pop()
        for dotted in _imported(source, package):
            for path in _files(folder, dotted):
                if path in found:
                    continue
                if not (folder / path).resolve().is_relative_to(folder.resolve()):
                    raise OwnError(
                        f"{name}: what it imports must lie in its folder, but {path} leads out of it"
                    )
                found[path] = text_of(folder / path, path, what)
                size = len(text.encode()) + sum(len(each.encode()) for each in found.values())
                if len(found) > MOST_FILES or size > MOST:
                    raise OwnError(
                        f"{name}: it must import at most {MOST_FILES} files of {MOST:,} bytes in all from "
                        "beside it, but imports more; make them a package, install it where trials run, and "
                        "name it as package.module:name"
                    )
                waiting.append((found[path], tuple(path.split("/")[:-1])))
    return dict(sorted(found.items()))


def module_of(name: str, file: str, text: str, package: str, files: Mapping[str, str]) -> ModuleType:
    """A module that is made of a text: registered, and run.

    Args:
        name: of the module; begins with `PREFIX`.
        file: names the text in tracebacks.
        text: its source.
        package: that its relative imports start from; empty for a file, where it is the file's folder.
        files: texts of the files beside it, by their paths.

    Raises:
        Exception: whatever the text raises.
    """
    base = f"{name}_beside"
    module = ModuleType(name)
    module.__file__, module.__package__ = file, package or base
    sys.modules[name] = module  # where dataclasses and pickles look for it
    texts = _Texts(base, {} if package else files)
    if not package:
        folder = ModuleType(base)
        folder.__path__ = []
        sys.modules[base] = folder
        if files:
            sys.meta_path.append(texts)
    texts.run(module, file, text)
    return module


class _Texts(MetaPathFinder, Loader):
    """Imports the files beside a source from their texts, beneath a package of its own."""

    def __init__(self, base: str, files: Mapping[str, str]) -> None:
        self._base, self._files = base, files
        self._tops = {path.split("/")[0].removesuffix(".py") for path in files}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{self._base}."):
            return None
        place = fullname.removeprefix(f"{self._base}.").replace(".", "/")
        if f"{place}/{INIT}" in self._files:
            return ModuleSpec(fullname, self, origin=f"{place}/{INIT}", is_package=True)
        if f"{place}.py" in self._files:
            return ModuleSpec(fullname, self, origin=f"{place}.py")
        if any(each.startswith(f"{place}/") for each in self._files):
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None and spec.origin is not None:
            module.__file__ = spec.origin
            self.run(module, spec.origin, self._files[spec.origin])

    def run(self, module: ModuleType, file: str, text: str) -> None:
        """Runs a text as a module, which imports from beside it first."""
        if self._files:
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec"), module.__dict__)

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or top not in self._tops:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if fromlist:
            return builtins.__import__(f"{self._base}.{name}", globals, locals, fromlist, 0)
        importlib.import_module(f"{self._base}.{name}")
        return sys.modules[f"{self._base}.{top}"]


def _imported(text: str, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The names that a text's import statements may mean, from its folder on; none of what is no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # which is told where it is run
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom) and node.level <= len(package) + 1:
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = (*start, *(node.module.split(".") if node.module else ()))
            if base:
                yield base
            for alias in node.names:
                yield (*base, alias.name)


def _files(folder: Path, dotted: tuple[str, ...]) -> Iterator[str]:
    """The files in a folder that importing a name runs, by their paths in it."""
    for count in range(1, len(dotted) + 1):
        place = "/".join(dotted[:count])
        if (folder / place / INIT).is_file():
            yield f"{place}/{INIT}"
        elif (folder / f"{place}.py").is_file():
            yield f"{place}.py"
            return
        elif not (folder / place).is_dir():
            return
