"""The forms in which a space file writes an axis."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gpnas.config.mistakes import Strict
from gpnas.space import Axis, CategoricalAxis, IntegerAxis

VALUES = 10_000
"""Most values of one axis."""
AXIS = "an axis is an integer, a list of integers or {low, high}"
OWN_AXIS = "an axis is an integer, a name, a list of either, {low, high} or {choices}"


class AxisRange(Strict):
    """An ordered integer axis: `low`, `low + step` or `low · factor`, … up to `high`."""

    low: int
    """The least value."""
    high: int
    """The largest value; where the steps miss it, the last one below it is."""
    step: int = Field(default=1, ge=1)
    """Difference of a value to the next; not beside a factor."""
    factor: int | None = Field(default=None, ge=2)
    """Ratio of a value to the one before, instead of a step."""
    spacing: Literal["linear", "log"] | None = None
    """How the surrogate measures distance along the axis; left out, log with a factor, else linear."""

    @model_validator(mode="after")
    def _is_ordered(self) -> AxisRange:
        if self.low > self.high:
            raise ValueError(f"`low <= high` must hold, but got (low={self.low}, high={self.high})")
        if self.factor is not None:
            if "step" in self.model_fields_set:
                raise ValueError(
                    f"an axis takes a step or a factor, but got (step={self.step}, factor={self.factor})"
                )
            if self.low < 1:
                raise ValueError(f"`low >= 1` must hold with a factor, but got low={self.low}")
        elif (count := (self.high - self.low) // self.step + 1) > VALUES:
            raise ValueError(f"an axis must have at most {VALUES} values, but got {count}")
        _check_spacing(self.spacing, self.low)
        return self

    def axis(self, name: str) -> Axis:
        if self.factor is None:
            values = list(range(self.low, self.high + 1, self.step))
        else:
            values = [self.low]
            while values[-1] * self.factor <= self.high:
                values.append(values[-1] * self.factor)
        return IntegerAxis(name, tuple(values), self.spacing or ("log" if self.factor else "linear"))


class AxisValues(Strict):
    """An ordered integer axis with its values listed."""

    values: list[int] = Field(max_length=VALUES)
    """The values, all different, in any order."""
    spacing: Literal["linear", "log"] = "linear"
    """How the surrogate measures distance along the axis; log needs positive values."""

    @model_validator(mode="after")
    def _has_values(self) -> AxisValues:
        if not self.values:
            raise ValueError("an axis must have at least one value, but got []")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"axis values must differ from each other, but got {self.values}")
        _check_spacing(self.spacing, min(self.values))
        return self

    def axis(self, name: str) -> Axis:
        return IntegerAxis(name, tuple(sorted(self.values)), self.spacing)


class AxisChoices(Strict):
    """An axis without order."""

    choices: list[Any] = Field(max_length=VALUES)
    """The values, all different: finite numbers, names or switches."""

    @model_validator(mode="after")
    def _has_choices(self) -> AxisChoices:
        for choice in self.choices:
            if not isinstance(choice, int | float | str) or (
                isinstance(choice, float) and not math.isfinite(choice)
            ):
                raise ValueError(f"a choice must be a finite number, a name or a switch, but got {choice!r}")
        if not self.choices:
            raise ValueError("an axis must have at least one choice, but got []")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"choices must differ from each other, but got {self.choices}")
        return self

    def axis(self, name: str) -> Axis:
        return CategoricalAxis(name, tuple(self.choices))


AnyAxis = AxisRange | AxisValues | AxisChoices


def _check_spacing(spacing: str | None, least: int) -> None:
    if spacing == "log" and least < 1:
        raise ValueError(f"log spacing needs positive values, but got {least}")


def _count_form(value: Any) -> AnyAxis:
    """Reads the short forms of a count: a number is a fixed axis, a list its values."""
    match value:
        case AxisRange() | AxisValues() | AxisChoices():
            return value
        case int() if not isinstance(value, bool):
            return AxisRange(low=value, high=value)
        case list():
            return AxisValues.model_validate({"values": value})
        case dict():
            # chosen here, not by a union, so that a mistake is reported against the form that was meant
            form = AxisValues if "values" in value else AxisChoices if "choices" in value else AxisRange
            return form.model_validate(value)
    raise ValueError(f"{AXIS}, but got {value!r}")


def _at_least_one(axis: AnyAxis) -> AnyAxis:
    match axis:
        case AxisRange():
            if axis.low < 1:
                raise ValueError(f"`low >= 1` must hold, but got low={axis.low}")
        case AxisValues():
            if min(axis.values) < 1:
                raise ValueError(f"axis values must be at least 1, but got {min(axis.values)}")
        case AxisChoices():
            for choice in axis.choices:
                if not isinstance(choice, int) or isinstance(choice, bool) or choice < 1:
                    raise ValueError(f"choices must be integers of at least 1, but got {choice!r}")
    return axis


def _choices_of(kind: type, value: Any) -> AxisChoices:
    """Reads the short forms of an axis whose choices are all of one kind.

    Raises:
        TypeError: of what is something else.
    """
    if isinstance(value, kind):
        value = [value]
    if isinstance(value, list):
        value = AxisChoices.model_validate({"choices": value})
    if not isinstance(value, AxisChoices):
        raise TypeError(f"{value!r}")
    for choice in value.choices:
        if not isinstance(choice, kind):
            raise TypeError(f"{choice!r}")
    return value


def _switch_form(value: Any) -> AxisChoices:
    try:
        return _choices_of(bool, value)
    except TypeError as error:
        raise ValueError(f"a switch is true, false or a list of both, but got {error}") from None


def _name_form(value: Any) -> AxisChoices:
    try:
        return _choices_of(str, value)
    except TypeError as error:
        raise ValueError(f"this axis is a name or a list of names, but got {error}") from None


def _own_form(value: Any) -> AnyAxis:
    """Reads the short forms of an axis of a user's own family."""
    match value:
        case bool() | str() | float():
            return AxisChoices(choices=[value])
        case list() if value and all(isinstance(each, bool | str) for each in value):
            return AxisChoices.model_validate({"choices": value})
        case list() if any(isinstance(each, float | bool | str) for each in value):
            raise ValueError(
                "a list must hold integers (ordered), or names or switches (without order); "
                f"anything else is written {{choices: [...]}}, but got {value!r}"
            )
        case int() | list() | dict() | AxisRange() | AxisValues() | AxisChoices():
            return _count_form(value)
    raise ValueError(f"{OWN_AXIS}, but got {value!r}")


CountAxis = Annotated[AnyAxis, BeforeValidator(_count_form), AfterValidator(_at_least_one)]
"""An axis of integers of at least 1."""
SwitchAxis = Annotated[AxisChoices, BeforeValidator(_switch_form)]
"""An axis of true, false or both."""
NameAxis = Annotated[AxisChoices, BeforeValidator(_name_form)]
"""An axis of names, without order."""
OwnAxis = Annotated[AnyAxis, BeforeValidator(_own_form)]
"""An axis of a family that only its user knows."""
