"""The families of a space file: axes that span a product, or architectures that are listed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)

from gpnas.config.axes import VALUES, AnyAxis, CountAxis, NameAxis, OwnAxis, SwitchAxis
from gpnas.config.mistakes import Strict, in_words, mistake, moving, refuse_unknown
from gpnas.config.recipes import FamilyRecipe
from gpnas.config.tables import read_rows, table_path
from gpnas.errors import SpaceError
from gpnas.records import AxisValue
from gpnas.space import Family, SearchSpace
from gpnas.space.tables import Columns
from gpnas_trainers import FAMILIES, NetworkAxis, NetworkFamily
from gpnas_trainers.own import FORM, Code, OwnError, read_code

ARCHITECTURES = 10_000_000
"""Most architectures that the families of a file may span."""
OWN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
"""Names of families with networks of one's own: they stand in names of files, and before a colon."""
DEFAULT: TypeAdapter[dict[str, AxisValue]] = TypeAdapter(
    Annotated[dict[str, AxisValue], Field(min_length=1)], config=ConfigDict(strict=True)
)
"""The form of the architecture that a search begins with in a family."""


@dataclass(frozen=True)
class Reading:
    """What validation needs to know of the file that is read."""

    file: Path | None = None
    """Tables are looked for beside it; None allows none."""
    own_families: bool = False
    """Whether families that the trainers do not know are allowed."""


class OwnAxes(BaseModel):
    """Axes of a user's own family, of any name."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)
    __pydantic_extra__: dict[str, OwnAxis]

    @model_validator(mode="after")
    def _is_not_empty(self) -> OwnAxes:
        if not self.__pydantic_extra__:
            raise ValueError("a family must have at least one axis, but got none")
        return self


def _axes_model(family: NetworkFamily) -> type[Strict]:
    """The schema of a built-in family's axes."""
    fields: dict[str, Any] = {}
    for axis in family.axes:
        form: Any = CountAxis
        if axis.is_switch:
            form = SwitchAxis
        elif isinstance(axis.default, str):
            form = NameAxis
        form = Annotated[form, AfterValidator(partial(_allowed, axis))]
        fields[axis.name] = (form, ...) if axis.default is None else (form | None, None)
    return create_model(family.name, __base__=Strict, **fields)


def _allowed(axis: NetworkAxis, written: AnyAxis) -> AnyAxis:
    for value in written.axis(axis.name).values:
        axis.check(value)
    return written


AnyAxes = Strict | OwnAxes


class ListingForm(Strict):
    """How a family lists its architectures: in a CSV file, or in place."""

    table: str | None = None
    """A CSV file in the folder of the space file or below: a line with the names of the axes, then a line for
    each architecture."""
    architectures: list[dict[str, Any]] | None = Field(default=None, min_length=1)
    """The architectures, each a mapping with one value for every axis that the first names; instead of a
    table."""
    canonical: str | None = None
    """Column that is no axis but tells which rows are equivalent: of those, the first stands for all."""

    @model_validator(mode="after")
    def _is_one(self) -> ListingForm:
        if (self.table is None) == (self.architectures is None):
            raise ValueError("a family must have a `table` or `architectures`, not both")
        return self


@dataclass(frozen=True)
class Listing:
    """The architectures of a family, one by one."""

    rows: Columns
    canonical: str | None


def _listing(value: dict[str, Any], model: type[AnyAxes], reading: Reading) -> Listing:
    form = ListingForm.model_validate(value)
    rows = _Rows(model, form.canonical)
    if form.architectures is not None:
        for number, row in enumerate(form.architectures):
            with moving("architectures", number):
                rows.add(row)
    else:
        assert form.table is not None
        if reading.file is None:
            raise ValueError(f"a table must be named in a file, but got {form.table!r}")
        path = table_path(reading.file, form.table)
        for header, line, row in read_rows(path):
            try:
                rows.add(row)
            except ValidationError as error:
                names = {each["type"] for each in error.errors()} & {"unknown_key", "missing"}
                raise SpaceError(f"{path}:{header if names else line}: {in_words(error)[1]}") from None
    assert rows.columns is not None
    return Listing(rows.columns, form.canonical)


class _Rows:
    """Takes listed architectures one by one; each value of a column is checked once."""

    def __init__(self, model: type[AnyAxes], canonical: str | None) -> None:
        self.columns: Columns | None = None
        self._model, self._canonical = model, canonical
        self._checked: dict[str, dict[Any, AxisValue]] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Adds an architecture; a ValidationError where it breaks a rule."""
        known = self._known(row)
        if known is None:
            checked = _row(row, self._model, self._canonical, self.columns.names if self.columns else None)
            if self.columns is None:
                self.columns = Columns(list(checked))
            known = [checked[name] for name in self.columns.names]
            for name, value in checked.items():
                if name != self._canonical and isinstance(row[name], bool | int | float | str):
                    of_axis = self._checked.setdefault(name, {})
                    of_axis[type(row[name]), row[name]] = value
                    if len(of_axis) > VALUES:
                        raise mistake((name,), f"an axis must have at most {VALUES} values")
        assert self.columns is not None
        self.columns.add(known)

    def _known(self, row: dict[str, Any]) -> list[AxisValue] | None:
        """The values of a row whose like have been checked; None where one is new."""
        if self.columns is None or len(row) != len(self.columns.names):
            return None
        values = []
        try:
            for name in self.columns.names:
                value = row[name]
                if name != self._canonical:
                    value = self._checked[name][type(value), value]
                elif not isinstance(value, int | float | str):
                    return None
                values.append(value)
        except (KeyError, TypeError):
            return None
        return values


def _row(
    row: dict[str, Any], model: type[AnyAxes], canonical: str | None, first: Sequence[str] | None
) -> dict[str, AxisValue]:
    """A listed architecture, checked against its family's axes and against the first of the list."""
    axes = {name: value for name, value in row.items() if name != canonical}
    checked = {name: _only(name, axis) for name, axis in axes_of(model.model_validate(axes))}
    if canonical is not None:
        key = row.get(canonical)
        if key is None:
            names = ", ".join(row)
            raise mistake((canonical,), f"every row must have this canonical key, but one has {names}")
        if not isinstance(key, int | float | str):
            raise mistake((canonical,), f"a canonical key must be a number or a name, but got {key!r}")
        checked[canonical] = key
    if first is not None and set(first) != set(checked):
        names = ", ".join(first)
        raise mistake((), f"must name {names}, as the first one does, but names {', '.join(checked)}")
    return checked


def _only(name: str, axis: AnyAxis) -> AxisValue:
    values = axis.axis(name).values
    if len(values) != 1:
        what = f"a listed architecture must have one value for each axis, but got {list(values)}"
        raise mistake((name,), what)
    return values[0]


def axes_of(axes: AnyAxes) -> Iterator[tuple[str, AnyAxis]]:
    """The axes that are given, in the order of their family."""
    return ((name, axis) for name, axis in axes if axis is not None)


def _form(model: type[AnyAxes]) -> BeforeValidator:
    def form(value: Any, info: ValidationInfo) -> AnyAxes | Listing:
        if isinstance(value, dict) and value.keys() & {"table", "architectures"}:
            return _listing(value, model, info.context or Reading())
        return value if isinstance(value, Listing) else model.model_validate(value)

    return BeforeValidator(form)


class AnyFamilies(BaseModel):
    """The families of networks that compete in one search."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, arbitrary_types_allowed=True)
    __pydantic_extra__: dict[str, Annotated[OwnAxes | Listing, _form(OwnAxes)]]

    _recipes: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)
    _codes: dict[str, Code] = PrivateAttr(default_factory=dict)
    _defaults: dict[str, dict[str, AxisValue]] = PrivateAttr(default_factory=dict)

    @property
    def defaults(self) -> dict[str, dict[str, AxisValue]]:
        """The architecture near which a search begins in a family, by family, where the file says so."""
        return self._defaults

    @property
    def recipes(self) -> dict[str, dict[str, Any]]:
        """The settings in which a family's recipe differs from the common one, by family."""
        return self._recipes

    @property
    def codes(self) -> dict[str, Code]:
        """The source of a family's networks, by family, where these are the file's own."""
        return self._codes

    @model_validator(mode="wrap")
    @classmethod
    def _with_recipes(
        cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        recipes, codes, defaults = {}, {}, {}
        if isinstance(value, dict):
            _refuse_unknown_families(cls.__name__, value, info.context or Reading())
            value = dict(value)
            for name, axes in value.items():
                if not isinstance(axes, dict):
                    continue
                axes = value[name] = dict(axes)
                if _names_network(name, axes):
                    codes[name] = _code(name, axes, info.context or Reading())
                    del axes["network"]
                if name in FAMILIES or name in codes:
                    with moving(name, "recipe"):
                        if "recipe" in axes:
                            recipes[name] = FamilyRecipe.model_validate(axes.pop("recipe")).given()
                    with moving(name, "default"):
                        if "default" in axes:
                            defaults[name] = DEFAULT.validate_python(axes.pop("default"))
        families = handler(value)
        families._recipes, families._codes, families._defaults = recipes, codes, defaults
        return families

    @model_validator(mode="after")
    def _is_not_empty(self) -> Families:
        if not any(axes is not None for _, axes in self):
            raise ValueError(f"a space must name at least one family ({', '.join(FAMILIES)}), but got none")
        return self

    def space(self) -> SearchSpace:
        """All that the families span or list.

        Raises:
            SpaceError: they span too many.
        """
        spaces = [_space(name, axes) for name, axes in self if axes is not None]
        count = sum(len(space) for space in spaces)
        if count > ARCHITECTURES:
            raise SpaceError(f"axes must span at most {ARCHITECTURES} architectures, but span {count}")
        return SearchSpace.joined(spaces)


def _refuse_unknown_families(title: str, value: dict[Any, Any], reading: Reading) -> None:
    if reading.own_families:
        return
    hint = (
        "; a family of your own names its network, such as `network: nets.py:Mine`, or is searched from "
        "Python: load_space(..., own_families=True)"
    )
    unknown = {name: axes for name, axes in value.items() if not _names_network(name, axes)}
    refuse_unknown(title, unknown, tuple(FAMILIES), hint)


def _names_network(name: Any, axes: Any) -> bool:
    """Whether a family has networks of the file's own."""
    return name not in FAMILIES and isinstance(axes, dict) and "network" in axes


def _code(name: Any, axes: dict[str, Any], reading: Reading) -> Code:
    """The source of a family's networks.

    Raises:
        ValidationError: there is none, or the family has a name or an axis that it cannot have.
    """
    network, key = axes["network"], "network"
    try:
        if not isinstance(network, str):
            raise ValueError(f"a network {FORM}, but got {network!r:.100}")
        if reading.file is None:
            raise ValueError(f"a network must be named in a file, but got {network!r:.100}")
        if not OWN_NAME.fullmatch(str(name)):
            raise ValueError(
                f"a family with a network of its own must be named by at most 32 letters, digits, - and _, "
                f"a letter first, but got {name!r:.60}"
            )
        for key in axes:
            if key == "scale" or not str(key).isidentifier():
                raise ValueError(
                    f"an axis must be an argument of its network other than `scale`, but got {key!r:.60}"
                )
        key = "network"
        return read_code(network, reading.file.parent)
    except (OwnError, ValueError) as error:
        raise mistake((str(name), str(key)), str(error)) from None


if TYPE_CHECKING:
    Families = AnyFamilies
else:
    _MODELS = {name: _axes_model(family) for name, family in FAMILIES.items()}
    Families = create_model(
        "Families",
        __base__=AnyFamilies,
        **{name: (Annotated[model | Listing, _form(model)] | None, None) for name, model in _MODELS.items()},
    )


def _space(name: str, axes: AnyAxes | Listing) -> SearchSpace:
    if isinstance(axes, Listing):
        return SearchSpace.from_table(axes.rows, family=name, canonical=axes.canonical)
    return SearchSpace([Family(name, tuple(axis.axis(key) for key, axis in axes_of(axes)))])
