"""Files of the source as syntax, for whoever reads the texts of errors in them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A file of the source."""

    file: str
    """Its path, beginning at the top of the repository."""
    module: str
    tree: ast.Module

    @cached_property
    def functions(self) -> Mapping[str, Function]:
        """Functions and methods by their names."""
        return {node.name: node for node in ast.walk(self.tree) if isinstance(node, FUNCTION)}

    @cached_property
    def classes(self) -> Mapping[str, ast.ClassDef]:
        return {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)}

    @cached_property
    def constants(self) -> Mapping[str, ast.expr]:
        """Texts that the file names at its top."""
        found: dict[str, ast.expr] = {}
        for node in self.tree.body:
            match node:
                case ast.Assign(targets=targets, value=ast.Constant(value=str()) as value):
                    found |= {each.id: value for each in targets if isinstance(each, ast.Name)}
        return found

    @cached_property
    def imported(self) -> Mapping[str, tuple[str, str]]:
        """The module and the name there of what is imported from one, by its name here."""
        return {
            each.asname or each.name: (node.module, each.name)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom) and node.module
            for each in node.names
        }

    @cached_property
    def caught(self) -> Mapping[tuple[int, str], list[ast.Raise]]:
        """What is raised to become a part of another error, by the function that catches it and the name.

        That is what the block of a `try`, or a function of this file that it calls, raises of a class that
        a handler catches, whose own error quotes it.
        """
        found: dict[tuple[int, str], list[ast.Raise]] = {}
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Try):
                continue
            for handler in node.handlers:
                if handler.name is None or not any(map(quoting(handler.name), handler.body)):
                    continue
                taken = {ast.unparse(each) for each in types_of(handler)} & {"ValueError"}
                block = ast.Module(list(node.body), [])
                raised = [
                    each
                    for place in (block, *self._called_in(block))
                    for each in within(place)
                    if isinstance(each, ast.Raise)
                    and isinstance(each.exc, ast.Call)
                    and name_of(each.exc) in taken
                ]
                if raised:
                    found.setdefault((id(self.scopes[id(node)]), handler.name), []).extend(raised)
        return found

    def _called_in(self, block: ast.AST, depth: int = 2) -> Iterator[ast.AST]:
        """Functions of this file that are called in a block."""
        for node in within(block) if depth else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) in self.functions:
                function = self.functions[ast.unparse(node.func)]
                yield function
                yield from self._called_in(function, depth - 1)

    @cached_property
    def scopes(self) -> Mapping[int, ast.AST]:
        """The function that each node is in, by the node's identity, or the whole file."""
        return {
            id(node): scope
            for scope in (self.tree, *(each for each in ast.walk(self.tree) if isinstance(each, FUNCTION)))
            for node in within(scope)
        }

    @cached_property
    def parents(self) -> Mapping[int, ast.AST]:
        """What each node is a part of, by the node's identity."""
        return {id(child): node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def assigned(self, name: ast.Name, scope: ast.AST) -> Iterator[ast.expr]:
        """What a name may stand for where it is used: what was assigned to it last, on each way there."""
        node: ast.AST = name
        added: list[ast.expr] = []
        while node is not scope and id(node) in self.parents:
            parent = self.parents[id(node)]
            for _, block in ast.iter_fields(parent):
                if not isinstance(node, ast.stmt) or not isinstance(block, list) or node not in block:
                    continue
                for statement in reversed(block[: block.index(node)]):
                    for each in (statement, *within(statement)):
                        match each:
                            case ast.AugAssign(ast.Name(id=target), ast.Add(), value) if target == name.id:
                                added.append(value)
                            case ast.Assign(targets=targets, value=value):
                                if any(is_name(target, name.id) for target in targets):
                                    yield value
                                    yield from (ast.BinOp(value, ast.Add(), more) for more in added)
                                    if each is statement:
                                        return
            node = parent
        for more in added:  # to a value
            yield from (ast.Constant("…"), ast.BinOp(ast.Constant("…"), ast.Add(), more))


@dataclass(frozen=True)
class Scope:
    """Where names are looked up: a function of a file, called with arguments that are known, or the file."""

    source: Source
    node: ast.AST
    arguments: Mapping[str, tuple[ast.expr, Scope]] = field(default_factory=dict)
    """What the function's parameters are here, and where that stands."""


def source_of(path: Path) -> Source:
    """A file, read."""
    file = path.relative_to(ROOT)
    parts = [part for part in file.with_suffix("").parts if part not in ("trainers", "__init__")]
    return Source(file.as_posix(), ".".join(parts), ast.parse(path.read_text()))


def within(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, without those of functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, FUNCTION):
            yield child
            yield from within(child)


def returned(function: ast.AST) -> Iterator[ast.expr]:
    for node in within(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield node.value


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def is_list(node: ast.expr) -> bool:
    """Whether an expression puts texts one after the other, with a sign between them."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=between), attr="join")):
            return bool(str(between).strip())
    return False


def types_of(handler: ast.ExceptHandler) -> list[ast.expr]:
    """The classes that a handler takes."""
    return (
        handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type] if handler.type else []
    )


def quoting(name: str) -> Callable[[ast.AST], bool]:
    """Whether a statement raises an error whose text has this name in it."""

    def quotes(node: ast.AST) -> bool:
        return isinstance(node, ast.Raise) and any(
            isinstance(each, ast.FormattedValue) and is_name(each.value, name) for each in ast.walk(node)
        )

    return quotes
