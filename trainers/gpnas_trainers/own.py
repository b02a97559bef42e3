"""People's own networks: their source text, and the family that it makes.

A run is trained with the text that it began with, wherever it goes on; so a network is a file with those
that it imports from beside it, or one module of an installed package, and is always run from its text. What
else it imports must be installed.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gpnas_trainers.beside import PREFIX, module_of, text_of, texts_beside
from gpnas_trainers.beside import OwnError as OwnError
from gpnas_trainers.families import NetworkFamily

if TYPE_CHECKING:
    from torch import nn

FORM = "must be like nets.py:Mine, a file beside the space file, or package.module:name"


@dataclass(frozen=True)
class Code:
    """The source text that makes a family's networks."""

    network: str
    """How it was named: `nets.py:Mine`, or `package.module:name`."""
    text: str
    package: str = ""
    """The package of a module's relative imports; empty for a file."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts of the files that it imports from beside it, by their paths."""

    @property
    def sha256(self) -> str:
        """The digest of its text, with those of the files and their paths."""
        files = "".join(f"\0{path}\0{text}" for path, text in sorted(self.files.items()))
        return hashlib.sha256((self.text + files).encode()).hexdigest()

    @property
    def file(self) -> str:
        """The file or module, as errors name it."""
        return self.network.rpartition(":")[0]

    @property
    def entry(self) -> str:
        """The name in it that makes networks."""
        return self.network.rpartition(":")[2]

    def call(self, scale: int, axes: Mapping[str, Any]) -> str:
        """How a network is made, as errors show it."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in {"scale": scale, **axes}.items())
        return f"{self.entry}({arguments})"


def read_code(network: str, folder: Path, what: str = "network") -> Code:
    """The source text that a reference means.

    Args:
        network: `nets.py:Mine`, relative to the folder and within it, or `package.module:name`.
        folder: of the file that names it.
        what: is named, for the error.

    Raises:
        OwnError: it is not written so, leads out of the folder, or there is no such text.
    """
    place, _, entry = network.rpartition(":")
    is_file = place.endswith(".py")
    is_name = is_file or all(part.isidentifier() for part in place.split("."))
    if not is_name or not entry.isidentifier():
        form = FORM.replace("nets.py:Mine", "train.py:train") if what == "trainer" else FORM
        raise OwnError(f"a {what} {form}, but got {network!r:.100}")
    if is_file:
        path = _within(place, folder, what)
        text = text_of(path, place, what)
        return Code(network, text, files=texts_beside(text, path.parent, place, what))
    try:
        found = find_spec(place)
    except Exception as error:  # whatever its parents raise when they are imported
        raise OwnError(f"{place}: must be importable, but {type(error).__name__}: {_line(error)}") from None
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise OwnError(f"{place}: must be a module in Python of an installed package, but is not; install it")
    package = place if found.submodule_search_locations is not None else place.rpartition(".")[0]
    return Code(network, text_of(Path(found.origin), place, what), package)


def read_named(source: str, what: str = "network") -> Code:
    """The source text that a user names, not a file: `nets.py:Mine` of any folder, or `package.module:name`.

    Raises:
        OwnError: as `read_code`.
    """
    place, _, entry = source.rpartition(":")
    path = Path(place)
    return read_code(f"{path.name if place.endswith('.py') else place}:{entry}", path.parent, what)


def own_family(name: str, code: Code, known: Mapping[str, tuple[int, float]] | None = None) -> NetworkFamily:
    """The family that a text makes; the text is run once a network is built.

    Args:
        name: of the family.
        code: its source.
        known: parameters and GMACs of its networks that were counted before, by `label`.
    """

    return NetworkFamily(name, lambda scale, **axes: _made(code, scale, axes), axes=(), known=known or {})


def place_of(error: BaseException, default: str = "") -> str:
    """The innermost file and line of someone's own code that an error came through, such as `nets.py:12`."""
    place, traceback = default, error.__traceback__
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__", "")).startswith(PREFIX):
            place = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def in_words(error: BaseException) -> str:
    """What someone's own code raised, in one line."""
    if isinstance(error, OwnError):
        return _line(error)
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno} must be Python, but {error.msg}"
    return f"{type(error).__name__}: {_line(error)}".removesuffix(": ")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _within(name: str, folder: Path, what: str) -> Path:
    path = folder / name
    try:
        inside = not Path(name).is_absolute() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError) as error:
        raise OwnError(f"a {what}'s file must be named as files are, but {error}") from None
    if not inside:
        raise OwnError(
            f"a {what}'s file must lie in the folder of the file that names it or below, but got {name!r}"
        )
    return path


def _made(code: Code, scale: int, axes: Mapping[str, Any]) -> nn.Module:
    """A network, padded where it says so; every failure is an `OwnError`."""
    from torch import nn

    from gpnas_trainers.networks.padded import Padded

    make = entry_of(code)
    call = code.call(scale, axes)
    try:
        inspect.signature(make).bind(scale=scale, **axes)
    except TypeError as error:
        raise OwnError(f"{defined(code, make)}: must be callable as {call}, but {_line(error)}") from None
    except ValueError:  # it has no signature, as some of C's
        pass
    try:
        network = make(scale=scale, **axes)
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        raise OwnError(
            f"{place_of(error, code.file)}: {call} must make a network, but {in_words(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        what = "None" if network is None else f"a {type(network).__name__}"
        raise OwnError(f"{defined(code, make)}: {call} must return a torch.nn.Module, but returned {what}")
    multiple = getattr(network, "multiple_of", getattr(make, "multiple_of", 1))
    if not isinstance(multiple, int) or isinstance(multiple, bool) or not 1 <= multiple <= 1024:
        raise OwnError(
            f"{defined(code, make)}: `multiple_of` must be an integer of 1 … 1024, but got {multiple!r:.60}"
        )
    return network if multiple == 1 else Padded(network, scale, multiple)


def entry_of(code: Code) -> Callable[..., Any]:
    """What a text's entry is, once the text has been run.

    Raises:
        OwnError: the text cannot be run, or has nothing callable of that name.
    """
    entry = getattr(_module(code.file, code.text, code.package, tuple(code.files.items())), code.entry, None)
    if not callable(entry):
        what = "has none" if entry is None else f"it is a {type(entry).__name__}"
        raise OwnError(f"{code.file}: must have a class or function `{code.entry}`, but {what}")
    return entry


def defined(code: Code, entry: Callable[..., Any]) -> str:
    """Where an entry is defined."""
    found = getattr(entry, "__init__", entry) if isinstance(entry, type) else entry
    lines = getattr(found, "__code__", None)
    if lines is None or lines.co_filename != code.file:
        return code.file
    return f"{code.file}:{lines.co_firstlineno}"


@lru_cache(maxsize=64)
def _module(file: str, text: str, package: str, files: tuple[tuple[str, str], ...]) -> ModuleType:
    name = PREFIX + hashlib.sha256(repr((file, text, package, files)).encode()).hexdigest()[:16]
    try:
        return module_of(name, file, text, package, dict(files))
    except MemoryError:
        raise
    except SyntaxError as error:
        raise OwnError(f"{error.filename or file}:{error.lineno}: must be Python, but {error.msg}") from None
    except ModuleNotFoundError as error:
        missing = str(error.name).removeprefix(f"{name}_beside.")
        raise OwnError(
            f"{place_of(error, file)}: may import only what is installed or lies beside it, since it is sent "
            f"to other machines, but there is no {missing}; put it beside {file}, or install it"
        ) from None
    except (Exception, SystemExit) as error:
        raise OwnError(f"{place_of(error, file)}: must be importable, but {in_words(error)}") from error
