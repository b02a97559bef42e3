"""The schema of a space file, and how one is read.

A space file (YAML) says what is searched, how each architecture is trained, and how much of it is
granted; `search_spaces/drn.yaml` is a commented example. Every mistake in one is a `SpaceError`
whose line names the file, the line where possible, the rule and the value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gpnas.errors import SpaceError
from gpnas.space import Axis, CategoricalAxis, Family, IntegerAxis, SearchSpace

Scale = Literal[2, 3, 4]
"""Super-resolution factors for which networks exist; a test holds it against the trainers'."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AxisRange(_Strict):
    """An ordered integer axis: `low`, `low + step`, … up to `high`."""

    low: int
    high: int
    step: int = Field(default=1, ge=1)
    spacing: Literal["linear", "log"] = "linear"
    """How the surrogate measures distance along the axis."""

    @model_validator(mode="after")
    def _is_ordered(self) -> AxisRange:
        if self.low > self.high:
            raise ValueError(f"`low <= high` must hold, but got (low={self.low}, high={self.high})")
        if self.low < 1:
            raise ValueError(f"`low >= 1` must hold, but got low={self.low}")
        return self


def _spread(value: Any) -> Any:
    """Reads the short forms of an axis: a number is a fixed axis, a list its values."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"an axis is an integer, a list of integers or {{low, high}}, but got {value!r}")
    if isinstance(value, int):
        return {"low": value, "high": value}
    if isinstance(value, list):
        return {"values": value}
    return value


class AxisValues(_Strict):
    """An ordered integer axis with its values listed."""

    values: list[int]
    spacing: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _has_values(self) -> AxisValues:
        if not self.values:
            raise ValueError("an axis must have at least one value, but got []")
        if min(self.values) < 1:
            raise ValueError(f"axis values must be at least 1, but got {min(self.values)}")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"axis values must differ from each other, but got {self.values}")
        return self


def _axis_form(value: Any) -> Any:
    spread = _spread(value)
    if not isinstance(spread, dict):
        raise ValueError(f"an axis is an integer, a list of integers or {{low, high}}, but got {value!r}")
    # chosen here, not by a union, so that a mistake is reported against the form that was meant
    form = AxisValues if "values" in spread else AxisRange
    return form.model_validate(spread)


AxisSpec = Annotated[AxisRange | AxisValues, BeforeValidator(_axis_form)]


class Switch(_Strict):
    """A categorical axis of on and off."""

    choices: list[bool] = Field(min_length=1)


def _switch_form(value: Any) -> Any:
    if isinstance(value, bool):
        return Switch(choices=[value])
    if isinstance(value, list):
        return Switch.model_validate({"choices": value})
    raise ValueError(f"a switch is true, false or a list of both, but got {value!r}")


SwitchSpec = Annotated[Switch, BeforeValidator(_switch_form)]


class DrnAxes(_Strict):
    """Axes of the paper's dense residual network: F, D and L, and its documented options."""

    features: AxisSpec
    blocks: AxisSpec
    stages: AxisSpec
    fuse: AxisSpec | None = None
    global_skip: SwitchSpec | None = None
    image_skip: SwitchSpec | None = None


class RcanAxes(_Strict):
    """Axes of the residual channel attention network, and its documented options."""

    features: AxisSpec
    groups: AxisSpec
    blocks: AxisSpec
    reduction: AxisSpec | None = None
    image_skip: SwitchSpec | None = None


class Families(_Strict):
    """The families of networks that compete in one search."""

    drn: DrnAxes | None = None
    rcan: RcanAxes | None = None

    @model_validator(mode="after")
    def _is_not_empty(self) -> Families:
        if self.drn is None and self.rcan is None:
            raise ValueError("a space must name at least one family (drn, rcan), but got none")
        return self


class Limits(_Strict):
    """What no architecture may exceed; checked before anything is trained."""

    parameters: float = Field(default=math.inf, gt=0)
    """Trainable and fixed parameters of the network."""
    gmacs: float = Field(default=math.inf, gt=0)
    """10⁹ multiply-accumulates of one forward pass at 120×120 LR pixels, the paper's tile."""


class SearchSettings(_Strict):
    """How much is granted to the search, and how it chooses."""

    trials: int = Field(default=16, ge=1)
    concurrent: int = Field(default=2, ge=1)
    strategy: Literal["mi+nei", "published", "random"] = "mi+nei"
    portfolio: int = Field(default=3, ge=1)
    validation_images: int = Field(default=10, ge=1)
    """At most so many validation images score a trial."""


class RecipeSettings(_Strict):
    """How every architecture of the search is trained; what is left out takes the trainers' default.

    A test holds the names against `gpnas_trainers.Recipe`, which checks the values.
    """

    steps: int | None = None
    batch_size: int | None = None
    hr_patch: int | None = None
    learning_rate: float | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    clip_norm: float | None = None
    l1_weight: float | None = None
    ms_ssim_weight: float | None = None
    evaluate_every: int | None = None

    def given(self) -> dict[str, Any]:
        """The settings that the file names."""
        return self.model_dump(exclude_none=True)


class CameraSettings(_Strict):
    """The synthetic camera (Eq. 1 of the paper) that makes LR images of photographs without pairs.

    What is left out takes the trainers' default; a test holds the names against `gpnas_trainers`.
    """

    kernel_sigma: tuple[float, float] | None = None
    noise_sigma: tuple[float, float] | None = None

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class SpaceFile(_Strict):
    """A whole space file."""

    scale: Scale
    families: Families
    limits: Limits = Limits()
    search: SearchSettings = SearchSettings()
    recipe: RecipeSettings = RecipeSettings()
    camera: CameraSettings = CameraSettings()

    def search_space(self) -> SearchSpace:
        """The search space that the file describes, without costs (those need the networks)."""
        return SearchSpace([_family(name, axes) for name, axes in self.families if axes is not None])


def _family(name: str, axes: DrnAxes | RcanAxes) -> Family:
    return Family(name, tuple(_axis(key, spec) for key, spec in axes if spec is not None))


def _axis(name: str, spec: AxisRange | AxisValues | Switch) -> Axis:
    match spec:
        case AxisRange():
            return IntegerAxis(name, tuple(range(spec.low, spec.high + 1, spec.step)), spec.spacing)
        case AxisValues():
            return IntegerAxis(name, tuple(sorted(spec.values)), spec.spacing)
        case Switch():
            return CategoricalAxis(name, tuple(spec.choices))


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
    package = Path(__file__).parent
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


def read_space_file(space: str | Path) -> SpaceFile:
    """What a space file says.

    Args:
        space: path of a YAML file, or the name of a shipped one (`drn.yaml`, `drn`).

    Raises:
        SpaceError: it cannot be read, or breaks a rule; one line with file, line, rule and value.
    """
    path = find_space(space)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: a space file must be readable UTF-8 text, but {error}") from None
    try:
        root = yaml.compose(text, Loader=_Loader)
        lines = dict(_lines(root, ())) if root is not None else {}
        document = _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpaceError(f"{path}:{line}: a space file must be valid YAML, but {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpaceError(f"{path}: a space file must be valid YAML, but {first}") from None
    if not isinstance(document, dict):
        raise SpaceError(f"{path}: a space file must be a mapping with `scale` and `families`, but got "
                         f"{type(document).__name__}")  # fmt: skip
    try:
        return SpaceFile.model_validate(document)
    except ValidationError as error:
        raise SpaceError(_one_line(path, error, lines)) from None


def load_space(space: str | Path) -> SearchSpace:
    """The search space of a space file.

    Args:
        space: path of a YAML file, or the name of a shipped one (`drn.yaml`, `drn`).

    Raises:
        SpaceError: as `read_space_file`.
    """
    return read_space_file(space).search_space()


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


def _one_line(path: Path, error: ValidationError, lines: dict[tuple[str, ...], int]) -> str:
    """The first mistake that pydantic found, as one line; how many more there are behind it."""
    # a misspelt key is also a missing one: the misspelling says more
    mistakes = sorted(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    first, count = mistakes[0], len(mistakes)
    location = tuple(str(part) for part in first["loc"])
    # pydantic's location may go deeper than the file does: the nearest line that exists is named
    known = next((location[:end] for end in range(len(location), -1, -1) if location[:end] in lines), ())
    key = ".".join(location)
    match first["type"]:
        case "extra_forbidden":
            what = f"unknown key `{key}`; {_allowed(location)}"
        case "missing":
            what = f"`{key}` must be given, but is missing"
        case "value_error":
            what = f"`{key}`: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
        case "literal_error":
            what = f"`{key}` must be {first['ctx']['expected']}, but got {first['input']!r}"
        case _:
            what = f"`{key}`: {first['msg'][0].lower()}{first['msg'][1:]}, but got {first['input']!r}"
    more = f" (and {count - 1} more)" if count > 1 else ""
    return f"{path}:{lines.get(known, 1)}: {what}{more}"


def _allowed(location: tuple[str, ...]) -> str:
    """The keys that may stand where an unknown one was found."""
    model: type[BaseModel] = SpaceFile
    for part in location[:-1]:
        if part not in model.model_fields:
            break
        annotation = model.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        models = [each for each in options if isinstance(each, type) and issubclass(each, BaseModel)]
        if len(models) != 1:
            # an axis: its form depends on what was written
            return "an axis takes low, high, step and spacing, or values and spacing"
        model = models[0]
    return f"allowed here: {', '.join(model.model_fields)}"
