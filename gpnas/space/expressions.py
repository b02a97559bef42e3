"""Short expressions between axes, such as `features * blocks <= 512`, over whole arrays of values.

Nothing of an expression is run as Python. It is parsed, each part is held against a short list of
what may stand there, and then worked out on arrays, with Python's meaning: `and` and `or` look at
their right side only where the left one leaves it open, `//` and `%` round down. Numbers are float64
and must stay where all integers are exact.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnas.errors import SpaceError

CHARACTERS = 500
"""Longest expression."""
PARTS = 100
"""Most names, numbers and operations in an expression; it also bounds how deep it nests."""
LARGEST = 2.0**53
"""Largest number that may come up, also on the way: up to here float64 holds every integer."""
EXPONENT = 64
"""Largest exponent."""

Values = NDArray[Any]
"""float64 for numbers, bool for what is true or false, object for names."""

_ARITHMETIC: dict[type[ast.operator], Callable[[Values, Values], Values]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.remainder,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Values, Values], Values]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS = {"min": (2, PARTS), "max": (2, PARTS), "abs": (1, 1), "log2": (1, 1)}
"""Name to the least and largest number of arguments."""


@dataclass(frozen=True)
class Expression:
    """An expression whose every part is known to be harmless; made by `parse`."""

    text: str
    tree: ast.expr = field(repr=False, compare=False)
    names: tuple[str, ...]
    """The axes that it names, each once, as written: `features` or `drn.features`."""
    equalities: tuple[tuple[str, str], ...]
    """Pairs of an axis and the text that it is compared with."""


def parse(text: str) -> Expression:
    """Reads an expression without working it out.

    Raises:
        SpaceError: it is too long, no expression, or has a part that may not stand in one.
    """
    if len(text) > CHARACTERS:
        raise SpaceError(f"an expression must have at most {CHARACTERS} characters, but has {len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise SpaceError(f"an expression must be like `a * b <= 9`, but got {cut(text)} ({reason})") from None
    parts = sum(isinstance(node, ast.expr) for node in ast.walk(tree))
    if parts > PARTS:
        raise SpaceError(f"an expression must have at most {PARTS} parts, but has {parts}")
    names: dict[str, None] = {}
    equalities: list[tuple[str, str]] = []
    _check(tree, names, equalities)
    if not names:
        raise SpaceError(f"an expression must name an axis, but got {cut(text)}")
    return Expression(text.strip(), tree, tuple(names), tuple(equalities))


def cut(part: str | ast.expr) -> str:
    """An expression or a part of it as a message quotes it."""
    text = part if isinstance(part, str) else ast.unparse(part)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _check(node: ast.expr, names: dict[str, None], equalities: list[tuple[str, str]]) -> None:
    """Refuses what may not stand in an expression; collects the axes and what they must equal."""
    inner: list[ast.expr] = []
    match node:
        case ast.Constant(value=bool() | str()):
            pass
        case ast.Constant(value=int() | float() as number):
            if not abs(number) <= LARGEST:
                raise SpaceError(f"a number must be at most 2**53, but got {cut(node)}")
        case ast.Name() | ast.Attribute(value=ast.Name()):
            names[ast.unparse(node)] = None
        case ast.Attribute():
            raise SpaceError(f"a dot must follow the name of a family, but got {cut(node)}")
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() | ast.Not(), operand=operand):
            inner = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC or isinstance(op, ast.Pow):
            inner = [left, right]
        case ast.BoolOp(values=operands):
            inner = operands
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(op) in _COMPARISONS for op in ops):
            inner = [left, *rest]
            for one, other in zip(inner, rest, strict=False):
                equalities.extend(_equality(one, other) + _equality(other, one))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            least, most = _FUNCTIONS[name]
            if not least <= len(arguments) <= most:
                what = "one argument" if most == 1 else f"at least {least} arguments"
                raise SpaceError(f"{name} must have {what}, but got {cut(node)}")
            inner = arguments
        case ast.Call():
            known = ", ".join(_FUNCTIONS)
            raise SpaceError(f"a function must be one of {known}, with plain arguments, but got {cut(node)}")
        case _:
            raise SpaceError(
                "an expression may have numbers, axes, + - * / // % **, comparisons, and, or, not, "
                f"{', '.join(_FUNCTIONS)}, but got {cut(node)}"
            )
    for each in inner:
        _check(each, names, equalities)


def _equality(axis: ast.expr, text: ast.expr) -> list[tuple[str, str]]:
    match axis, text:
        case ast.Name() | ast.Attribute(value=ast.Name()), ast.Constant(value=str() as wanted):
            return [(ast.unparse(axis), wanted)]
    return []


def evaluate(expression: Expression, values: Mapping[str, Values], count: int) -> Values:
    """What an expression is for each of n architectures.

    Args:
        expression: made by `parse`.
        values: (n,) each, by the names that the expression uses.
        count: n.

    Returns:
        (n,) of float64, bool or object.

    Raises:
        SpaceError: a division by zero, a number too large, or names taken for numbers.
    """
    with np.errstate(all="ignore"):
        result = _value(expression.tree, values, count)
    return np.broadcast_to(result, (count,))


def _value(node: ast.expr, values: Mapping[str, Values], count: int) -> Values:
    """(count,), numbers too, so that nothing is wrong with a division that no row comes to."""
    match node:
        case ast.Constant(value=str() as text):
            return np.full(count, text, dtype=object)
        case ast.Constant(value=bool() as truth):
            return np.full(count, truth)
        case ast.Constant(value=number):
            return np.full(count, number, dtype=np.float64)
        case ast.Name() | ast.Attribute():
            return values[ast.unparse(node)]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_truth(operand, values, count)
        case ast.UnaryOp(op=op, operand=operand):
            result = _number(operand, values, count)
            return -result if isinstance(op, ast.USub) else result
        case ast.BoolOp(op=op, values=operands):
            return _joined(isinstance(op, ast.Or), operands, values, count)
        case ast.Compare(left=left, ops=[_, _, *_] as ops, comparators=others):
            pairs = zip([left, *others], ops, others, strict=False)
            return _joined(False, [ast.Compare(a, [op], [b]) for a, op, b in pairs], values, count)
        case ast.Compare(left=left, ops=[op], comparators=[other]):
            return _compared(node, _value(left, values, count), op, _value(other, values, count))
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _number(left, values, count), _number(right, values, count)
            if isinstance(op, ast.Pow):
                return _bounded(_power(a, b, node), node)
            if isinstance(op, ast.Div | ast.FloorDiv | ast.Mod) and not np.all(b):
                raise SpaceError(f"a divisor must not be zero, but {cut(right)} is in {cut(node)}")
            return _bounded(_ARITHMETIC[type(op)](a, b), node)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            numbers = [_number(each, values, count) for each in arguments]
            return _called(name, numbers, node)
    raise AssertionError(f"unchecked part {ast.dump(node)}")


def _joined(either: bool, operands: list[ast.expr], values: Mapping[str, Values], count: int) -> Values:
    """`or` where `either`, else `and`; each operand is worked out where those before leave it open."""
    result = np.broadcast_to(_truth(operands[0], values, count), (count,)).copy()
    for operand in operands[1:]:
        left_open = np.flatnonzero(result != either)
        part = {name: each[left_open] for name, each in values.items()}
        result[left_open] = _truth(operand, part, len(left_open))
    return result


def _compared(node: ast.Compare, a: Values, op: ast.cmpop, b: Values) -> Values:
    if (a.dtype == object) != (b.dtype == object):
        raise SpaceError(f"a name must be compared with a name, but got {cut(node)}")
    if a.dtype == object and not isinstance(op, ast.Eq | ast.NotEq):
        raise SpaceError(f"names must be compared with == or !=, but got {cut(node)}")
    if a.dtype != object:
        a, b = a.astype(np.float64), b.astype(np.float64)
    return np.asarray(_COMPARISONS[type(op)](a, b), dtype=bool)


def _truth(node: ast.expr, values: Mapping[str, Values], count: int) -> Values:
    value = _value(node, values, count)
    if value.dtype != bool:
        raise SpaceError(f"and, or and not must join what is true or false, but got {cut(node)}")
    return value


def _number(node: ast.expr, values: Mapping[str, Values], count: int) -> Values:
    value = _value(node, values, count)
    if value.dtype == object:
        raise SpaceError(f"a name must only be compared with == or !=, but got {cut(node)} as a number")
    return value.astype(np.float64)


def _bounded(value: Values, node: ast.expr) -> Values:
    if not np.all(np.abs(value) <= LARGEST):  # not a number is refused as well
        raise SpaceError(f"a number must be at most 2**53 on the way, but {cut(node)} exceeds it")
    return value


def _power(base: Values, exponent: Values, node: ast.expr) -> Values:
    """A power by multiplication, so that integers stay exact."""
    if not np.all((exponent >= 0) & (exponent <= EXPONENT) & (exponent == np.floor(exponent))):
        raise SpaceError(f"an exponent must be an integer from 0 to {EXPONENT}, but got {cut(node)}")
    base, exponent = np.broadcast_arrays(base, exponent)
    result, power = np.ones_like(base), np.ones_like(base)
    for step in range(1, int(exponent.max(initial=0)) + 1):
        power = power * base
        result = np.where(exponent == step, power, result)
    return result


def _called(name: str, numbers: list[Values], node: ast.expr) -> Values:
    match name:
        case "min":
            return reduce(np.minimum, numbers)
        case "max":
            return reduce(np.maximum, numbers)
        case "abs":
            return np.abs(numbers[0])
    if not np.all(numbers[0] > 0):
        raise SpaceError(f"log2 must have a positive argument, but got {cut(node)}")
    # through the few different values, since math.log2 is exact where numpy's need not be
    levels, places = np.unique(numbers[0], return_inverse=True)
    logs = np.array([math.log2(level) for level in levels], dtype=np.float64)
    return logs[places].reshape(numbers[0].shape)
