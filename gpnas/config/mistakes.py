"""Mistakes in a file: where they are, and one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from gpnas.errors import SpaceError

Location = tuple[str | int, ...]
"""Keys and list places from the root of a file."""


class Strict(BaseModel):
    """A part of a file: nothing is converted, and an unknown key is refused together with what may stand."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_its_keys(cls, value: Any) -> Any:
        if isinstance(value, dict) and cls.model_config.get("extra") == "forbid":
            refuse_unknown(cls.__name__, value, tuple(cls.model_fields))
        return value


def refuse_unknown(title: str, value: Mapping[Any, Any], allowed: tuple[str, ...], hint: str = "") -> None:
    """Raises a `ValidationError` for each key of `value` that is not allowed; hint: what to do."""
    what = f"{', '.join(allowed)}{hint}"
    kind = PydanticCustomError("unknown_key", "{what}", {"what": what})
    unknown = [
        InitErrorDetails(type=kind, loc=(str(key),), input=each)
        for key, each in value.items()
        if key not in allowed
    ]
    if unknown:
        raise ValidationError.from_exception_data(title, unknown)


def mistake(location: Location, what: str) -> ValidationError:
    """One mistake, at a place of what is being validated."""
    detail = InitErrorDetails(type="value_error", loc=location, input=None, ctx={"error": ValueError(what)})
    return ValidationError.from_exception_data("mistake", [detail])


@contextmanager
def moving(*location: str | int) -> Iterator[None]:
    """Tells of mistakes within that they are deeper in the file: at `location`."""
    try:
        yield
    except ValidationError as error:
        details = []
        for each in error.errors():
            kind, context = each["type"], each.get("ctx", {})
            known = kind != "unknown_key"
            details.append(
                InitErrorDetails(
                    type=kind if known else PydanticCustomError("unknown_key", "{what}", context),
                    loc=(*location, *each["loc"]),
                    input=each["input"],
                    ctx=context,
                )
            )
        raise ValidationError.from_exception_data(error.title, details) from None


class LocatedError(SpaceError):
    """A mistake that shows only once the space is built."""

    def __init__(self, location: Location, message: str) -> None:
        super().__init__(f"`{dotted(location)}`: {message}")
        self.location = location


@contextmanager
def located(*location: str | int) -> Iterator[None]:
    """Tells where in the file a `SpaceError` from within comes from."""
    try:
        yield
    except LocatedError:
        raise
    except SpaceError as error:
        raise LocatedError(location, str(error)) from None


def dotted(location: Location) -> str:
    return ".".join(map(str, location))


def in_words(error: ValidationError) -> tuple[Location, str]:
    """Where the first mistake is, and what it is; how many more there are behind it."""
    # a misspelt key is also a missing one: the misspelling says more
    mistakes = sorted(error.errors(), key=lambda mistake: mistake["type"] != "unknown_key")
    first, count = mistakes[0], len(mistakes)
    key = dotted(first["loc"])
    match first["type"]:
        case "unknown_key":
            what = f"unknown key `{key}`; allowed here: {first['msg']}"
        case "missing":
            what = f"`{key}` must be given, but is missing"
        case "value_error":
            what = f"`{key}`: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
        case "literal_error":
            what = f"`{key}` must be {first['ctx']['expected']}, but got {first['input']!r}"
        case _:
            what = f"`{key}`: {first['msg'][0].lower()}{first['msg'][1:]}, but got {first['input']!r}"
    return first["loc"], what + (f" (and {count - 1} more)" if count > 1 else "")
