"""YAML 1.2 as files of settings need it: plain values, each with its line, bounded in time and memory.

PyYAML reads YAML 1.1, in which `010` is 8, `1:30` is 90 and `no` is false. Of its work only parsing is
used here; what a scalar means follows the core schema of YAML 1.2.2, section 10.3.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

MOST_CHARACTERS = 4_000_000
"""Longest file; longer lists of architectures belong into a table."""
DEPTH = 20
"""Most levels of nesting."""
REPEATED = 10_000
"""Most values that aliases and merge keys may repeat, so that a few lines do not become billions."""
LARGEST = 2**62
"""Integers lie below it, and above its negative."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": re.compile(r"(?:~|null|Null|NULL|)"),
    "bool": re.compile(r"(?:true|True|TRUE|false|False|FALSE)"),
    "int": re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)"),
    "float": re.compile(
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
    ),
}
"""Tag to what a plain scalar of it looks like; the first that fits counts, and any other is text."""


class YamlError(Exception):
    """A mistake in a file, and its line; the message completes "must be valid YAML, but …"."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a YAML document, and its node, by which `line_of` knows lines.

    Args:
        text: of the file.

    Returns:
        The value is of dicts with keys of text, lists, str, int, float, bool and None.

    Raises:
        YamlError: it is no YAML, or needs more than the bounds allow.
    """
    if len(text) > MOST_CHARACTERS:
        raise YamlError(f"it has {len(text):,} characters, more than {MOST_CHARACTERS:,}", 1)
    try:
        root = _Composer(yaml.parse(text, Loader=LOADER)).root()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem, number = str(error.problem or error.context), mark.line + 1 if mark else 1
        lines = text.split("\n")  # YAML may count more of them
        if "\t" in lines[min(number, len(lines)) - 1]:
            problem += "; it may be a tab: indent with spaces"
        raise YamlError(problem, number) from None
    except (yaml.YAMLError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise YamlError(first, 1) from None
    return (None if root is None else _Reader().value(root, 0)), root


class _Composer:
    """Makes nodes from the parser's events, no deeper than allowed: PyYAML's own overflows the stack."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, yaml.Node] = {}

    def root(self) -> yaml.Node | None:
        """The node of the only document; None where the file holds no document."""
        found: list[yaml.Node] = []
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                if found:
                    line: int = event.start_mark.line + 1  # type: ignore[union-attr]
                    raise YamlError("there is a second document", line)
                found.append(self._node(event, 0))
        return found[0] if found else None

    def _node(self, event: Any, depth: int) -> yaml.Node:
        start: Any = event.start_mark
        line = start.line + 1
        if depth > DEPTH:
            raise YamlError(f"it nests deeper than {DEPTH} levels", line)
        if type(event) is yaml.AliasEvent:
            if event.anchor not in self._anchors:
                raise YamlError(f"the alias `{event.anchor:.60}` has no anchor", line)
            return self._anchors[event.anchor]
        node: yaml.Node
        if type(event) is yaml.ScalarEvent:
            tag = event.tag if event.tag not in (None, "!") else _TAG + _kind(event.value, event.implicit[0])
            node = yaml.ScalarNode(tag, event.value, start, start, event.style)
        elif type(event) is yaml.SequenceStartEvent:
            node = yaml.SequenceNode(event.tag or f"{_TAG}seq", [], start)
        else:
            node = yaml.MappingNode(event.tag or f"{_TAG}map", [], start)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if isinstance(node, yaml.SequenceNode):
            node.value.extend(self._inside(yaml.SequenceEndEvent, depth + 1))
        elif isinstance(node, yaml.MappingNode):
            inside = self._inside(yaml.MappingEndEvent, depth + 1)
            node.value.extend(zip(inside, inside, strict=True))
        return node

    def _inside(self, end: type[yaml.Event], depth: int) -> Iterator[yaml.Node]:
        while not isinstance(event := next(self._events), end):
            yield self._node(event, depth)


def _kind(text: str, is_plain: bool) -> str:
    """What a scalar without a tag is."""
    if not is_plain:
        return "str"
    return next((kind for kind, form in _SCALARS.items() if form.fullmatch(text)), "str")


class _Reader:
    """Makes values of nodes."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._repeated = 0

    def value(self, node: yaml.Node, depth: int) -> Any:
        line = _line(node)
        if depth > DEPTH:
            raise YamlError(f"it nests deeper than {DEPTH} levels", line)
        if id(node) in self._seen:  # reached by an alias, or merged
            self._repeated += 1
            if self._repeated > REPEATED:
                raise YamlError(f"its aliases repeat more than {REPEATED:,} values", line)
        self._seen.add(id(node))
        tag = node.tag.removeprefix(_TAG)
        match node:
            case yaml.ScalarNode():
                return _scalar(node, tag, line)
            case yaml.SequenceNode() if tag == "seq":
                return [self.value(each, depth + 1) for each in node.value]
            case yaml.MappingNode() if tag == "map":
                return self._mapping(node, depth + 1)
        raise YamlError(f"the tag {node.tag!r:.60} has no meaning here", line)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                kind = "list" if isinstance(key, yaml.SequenceNode) else "mapping"
                raise YamlError(
                    f"a key must be text, but is a {kind}, as in a template that is not filled in", line
                )
            if key.value == "<<" and not key.style:  # the merge key of YAML 1.1, which many files use
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            if key.value in own:
                raise YamlError(f"the key `{key.value:.60}` is given twice", line)
            own[key.value] = self.value(value, depth)
        for each in merged:
            more = self.value(each, depth)
            if not isinstance(more, dict):
                raise YamlError("`<<` must be followed by a mapping or a list of some", _line(each))
            self._repeated += len(more)
            own = more | own
        return own


def _scalar(node: yaml.ScalarNode, tag: str, line: int) -> Any:
    text = node.value
    if tag == "str":
        return text
    form = _SCALARS.get(tag)
    if form is None:
        raise YamlError(f"the tag {node.tag!r:.60} has no meaning here", line)
    if not form.fullmatch(text):
        raise YamlError(f"a value of the tag {tag} must be written so, but got {text!r:.60}", line)
    match tag:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return _integer(text, line)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _integer(text: str, line: int) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    digits = text[2:] if base != 10 else text
    number = int(digits, base) if len(digits) <= 80 else LARGEST
    if not -LARGEST < number < LARGEST:
        raise YamlError(
            f"an integer must lie within 2**62 of 0, but got {text:.40} of {len(text)} digits", line
        )
    return number


def _line(node: yaml.Node) -> int:
    """Counted from 1."""
    return int(node.start_mark.line) + 1


def line_of(location: tuple[str | int, ...], root: yaml.Node | None) -> int:
    """The line of a key or a list place; of what it is part of, where the file does not go as deep."""
    line, node = 1, root
    if node is not None:
        line = _line(node)
    for step in location:
        match node:
            case yaml.MappingNode():
                entries = [
                    (key, value) for key, value in node.value if getattr(key, "value", None) == str(step)
                ]
                if not entries:
                    return line
                line, node = _line(entries[0][0]), entries[0][1]
            case yaml.SequenceNode() if isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = _line(node)
            case _:
                return line
    return line
