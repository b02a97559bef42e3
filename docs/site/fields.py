"""What a class says of its fields, and what a JSON schema allows, in words, for pages that list keys."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]
OWN = ("gpnas", "gpnas_trainers", "journal_reference")
"""Packages and modules whose classes say what their fields mean."""
NAMES = {"string": "text", "boolean": "true or false", "object": "mapping", "array": "list"}
"""What a page calls the types that JSON names otherwise."""


def meanings(kind: type[Any]) -> dict[str, str]:
    """The meaning of each field of a class and its bases, from the literals that stand beneath the fields."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each.__module__.partition(".")[0] in OWN:
            found |= _literals(each.__module__).get(each.__name__, {})
    return found


@lru_cache
def _literals(module: str) -> dict[str, dict[str, str]]:
    """The literals beneath fields, by class and field."""
    return {
        node.name: {
            field.target.id: " ".join(text.value.value.split())
            for field, text in zip(node.body, node.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        }
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.ClassDef)
    }


def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    return ast.parse(Path(spec.origin).read_text())


def arguments(name: str) -> dict[str, str]:
    """The meaning of each argument of a class, `module:Class`, from the section `Args:` of its docstring."""
    module, _, wanted = name.partition(":")
    (node,) = (each for each in _tree(module).body if isinstance(each, ast.ClassDef) and each.name == wanted)
    _, _, section = inspect.cleandoc(ast.get_docstring(node) or "").partition("\nArgs:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {argument: " ".join(text.split()) for argument, text in found}


def sentence(text: str) -> str:
    """A text with a capital letter first and a full stop last, in one line."""
    text = " ".join(text.split())
    return text and f"{text[0].upper()}{text[1:]}{'' if text[-1] in '.:' else '.'}"


def kind(schema: Schema, link: Callable[[str], str]) -> str:
    """What a value may be, with its bounds.

    Args:
        schema: of the value.
        link: called with the name of another schema, gives what stands for it.
    """
    if "$ref" in schema:
        return link(str(schema["$ref"]).rpartition("/")[2])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            if {each.get("type") for each in schema[key]} == {"boolean", "integer", "number", "string"}:
                return "number, text or switch"
            return " or ".join(dict.fromkeys(kind(each, link) for each in schema[key]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        listed = ", ".join(f"`{each if isinstance(each, str) else json.dumps(each)}`" for each in values)
        return f"one of {listed}" if len(values) > 1 else listed
    found = str(schema.get("type", "anything"))
    if found == "array":
        return _listed(schema, link)
    if found == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"mapping of names to {kind(schema['additionalProperties'], link)}"
    return NAMES.get(found, found) + _bounds(schema)


def _listed(schema: Schema, link: Callable[[str], str]) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    inner = kind({"anyOf": schema["prefixItems"]} if "prefixItems" in schema else schema["items"], link)
    if least and least == most:
        return f"list of {least} entries, each {inner}"
    if most is not None:
        return f"list of at most {most:,} entries, each {inner}"
    return f"list of {inner}" + (f" (at least {least} of them)" if least else "")


def _bounds(schema: Schema) -> str:
    words = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
        "minLength": "at least {} long",
        "maxLength": "at most {} characters",
        "pattern": "of the form `{}`",
    }
    found = [
        text.format(f"{schema[key]:,}" if isinstance(schema[key], int) else schema[key])
        for key, text in words.items()
        if key in schema
    ]
    return f" ({', '.join(found)})" if found else ""
