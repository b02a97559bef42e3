"""The keys of a space file as a page, from the schema that checks them and what the source says of each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fields import Schema, arguments, kind, meanings, sentence
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from gpnas.config import CameraSettings, Limits, RecipeSettings, SearchSettings, SpaceFile
from gpnas.config.axes import AXIS, OWN_AXIS, AxisChoices, AxisRange, AxisValues
from gpnas.config.families import DEFAULT, ListingForm
from gpnas.config.recipes import SHARED
from gpnas.config.schema import ObjectiveSettings
from gpnas_trainers import FAMILIES, NetworkAxis, NetworkFamily
from gpnas_trainers.own import FORM
from gpnas_trainers.pairs import Camera
from gpnas_trainers.recipe import Recipe, Rule, rules

PARTS: dict[str, tuple[str, type[BaseModel]]] = {
    "Limits": ("limits", Limits),
    "SearchSettings": ("search", SearchSettings),
    "RecipeSettings": ("recipe", RecipeSettings),
    "CameraSettings": ("camera", CameraSettings),
    "ObjectiveSettings": ("objective", ObjectiveSettings),
}
"""Names of the schemas of a file's parts, each with the key under which it stands, and its model."""
FORMS: dict[str, tuple[str, type[BaseModel]]] = {
    "AxisRange": ("A range of integers", AxisRange),
    "AxisValues": ("Listed integers", AxisValues),
    "AxisChoices": ("Choices without order", AxisChoices),
}
"""The same of the forms of an axis, each with its heading."""
AXES = {
    "features": "channels of its layers: ",
    "width": "channels of its layers: ",
    "blocks": "blocks one after another: ",
    "groups": "groups of blocks: ",
    "stages": "stages of a block: ",
    "growth": "channels that each convolution of a dense block adds: ",
    "unshuffle": "the factor by which the image is made smaller first: ",
    "kernel": "side of the large kernel: ",
    "split": "the share of features with a large kernel: ",
    "reduction": "the factor of the reduction ",
    "convolutions": "convolutions one after another: ",
    "window": "side of a window of attention in LR pixels: ",
}
"""What an axis is, before what its network says of it, which is short where a letter stands for it."""
Row = tuple[str, str, str, str]
"""A key, what its value may be, what counts where it is left out, and what it means."""


class _Schema(GenerateJsonSchema):
    """Leaves out what a file cannot hold: listed architectures as they are once they are read."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}


def space_reference() -> Iterator[str]:
    """Every key of a space file: what it may be, what counts where it is left out, what it means."""
    yield "## Keys of the file\n"
    yield from _table(_rows(SpaceFile))
    yield "## families\n"
    yield (
        f"Each key is the name of a family: {_and(FAMILIES, 'or')}; or any other name, where the family "
        "names its `network` or the trainings are your own. A family has its axes, by name, and beside them "
        "any of these:\n"
    )
    yield from _table(_of_any_family())
    yield "Or it lists its architectures, in place of axes:\n"
    yield from _table(_rows(ListingForm))
    for family in FAMILIES.values():
        yield f"### {family.name}\n"
        yield f"{_scales(family)}\n"
        yield from _table(_axes(family))
    yield "## Forms of an axis\n"
    yield (
        f"In a family that ships with gpnas {AXIS}, a switch is `true`, `false` or a list of both, and an "
        f"axis of names is a name or a list of names. In any other family {OWN_AXIS}. What stands in braces "
        "is one of these:\n"
    )
    for heading, form in FORMS.values():
        yield f"### {heading}\n"
        yield from _table(_rows(form))
    for key, part in PARTS.values():
        yield f"## {key}\n"
        if part is RecipeSettings:
            yield (
                "A family's own `recipe` may have each of these but "
                f"{_and([f'`{each}`' for each in SHARED], 'and')}, which all families share. `gpnas "
                "train` has an option for each.\n"
            )
        yield from _table(_rows(part))


def schema_of(model: type[BaseModel]) -> Schema:
    """The JSON schema of a part of a space file."""
    found: Schema = model.model_json_schema(schema_generator=_Schema)
    return found


def _rows(model: type[BaseModel]) -> Iterator[Row]:
    """The keys of a part, in its order."""
    schema, texts, defaults = schema_of(model), meanings(model), _defaults(model)
    for name, each in schema["properties"].items():
        given = [form for form in each.get("anyOf", ()) if form.get("type") != "null"]
        form, text = kind({"anyOf": given} if given else each, _link), texts.get(name, "")
        if issubclass(model, RecipeSettings):
            form, text = _ruled(rules()[name]), rules()[name].text
        default = _default(defaults.get(name, each.get("default")))
        yield name, form, "must be given" if name in schema.get("required", ()) else default, sentence(text)


def _defaults(model: type[BaseModel]) -> Mapping[str, Any]:
    """What the trainers take for a setting that a file leaves out."""
    if issubclass(model, RecipeSettings):
        return Recipe().to_json()
    return vars(Camera()) if model is CameraSettings else {}


def _ruled(rule: Rule) -> str:
    """What a setting of a recipe may be, by the rule of the trainers, which check it."""
    types: dict[type, str] = {int: "integer", float: "number", str: "string"}
    bounds = {"minimum": rule.least, "exclusiveMinimum": rule.above, "exclusiveMaximum": rule.below}
    schema: dict[str, Any] = {"type": types[rule.kind]}
    schema |= {name: bound for name, bound in bounds.items() if bound is not None}
    return kind({"enum": rule.allowed} if rule.allowed else schema, _link)


def _of_any_family() -> Iterator[Row]:
    """The keys that stand beside a family's axes, which are read before its model is."""
    yield (
        "recipe",
        "mapping, its keys those of [recipe](#recipe)",
        "none",
        "Settings in which trainings of this family differ from the file's recipe.",
    )
    yield (
        "default",
        kind(DEFAULT.json_schema(), _link),
        "the published network",
        "The architecture near which a search begins in this family: the first trial is the feasible "
        "architecture nearest to it.",
    )
    yield (
        "network",
        "text",
        "none",
        f"The source of the networks of a family of your own; it {FORM}. Its axes are the arguments of "
        "that class or function.",
    )


def _scales(family: NetworkFamily) -> str:
    scales = _and([f"×{each}" for each in family.scales], "and")
    values = [f"`{axis.name}: {axis.published}`" for axis in family.axes if axis.published is not None]
    return f"For {scales}. The published network, near which a search begins, has {_and(values, 'and')}."


def _axes(family: NetworkFamily) -> Iterator[Row]:
    assert isinstance(family.network, str), family.name
    texts = arguments(family.network)
    for axis in family.axes:
        default = "must be given" if axis.default is None else _default(axis.default)
        yield axis.name, _allowed(axis), default, sentence(AXES.get(axis.name, "") + texts[axis.name])


def _allowed(axis: NetworkAxis) -> str:
    """The values of an axis; any of its forms may hold them."""
    if axis.allowed:
        return _and([f"`{each}`" for each in axis.allowed], "or")
    if axis.is_switch:
        return "true or false"
    if axis.odd:
        return "odd integer (at least 1)"
    return "integer (at least 1)" if axis.multiple == 1 else f"multiple of {axis.multiple}"


def _link(name: str) -> str:
    """The place on the page of what another schema describes."""
    heading = FORMS[name][0] if name in FORMS else PARTS[name][0] if name in PARTS else name
    return f"[{heading[0].lower()}{heading[1:]}](#{heading.lower().replace(' ', '-')})"


def _default(value: Any) -> str:
    if value is None or value in (math.inf, [], {}):
        return "none"
    if isinstance(value, Mapping):
        return "that of each of its keys"
    if value == "":
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _table(rows: Iterable[Row]) -> Iterator[str]:
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    for name, form, default, text in rows:
        form, text = (each.replace("|", "\\|") for each in (form, text))
        yield f"| `{name}` | {form} | {default} | {text} |"
    yield ""


def _and(names: Iterable[str], word: str) -> str:
    *others, last = names
    return f"{', '.join(others)} {word} {last}"
