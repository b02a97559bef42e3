"""What the source may tell a user who meets an error, read from its syntax.

An error's text is put together where it is raised, in helpers of the same or of another file, by classes of
errors, from local names and from lists of lines; all of these are followed. `…` stands for values.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from error_sources import (
    FUNCTION,
    ROOT,
    Function,
    Scope,
    Source,
    is_list,
    name_of,
    returned,
    source_of,
    within,
)

FOLDERS = (ROOT / "gpnas", ROOT / "trainers")

ARGUMENTS = "Arguments of a command"
PRINTED = "Lines of the command line"
FAILURES = "Failures of candidates"
FINDINGS = "Findings of gpnas doctor"
"""What is no exception of Python's to a user, by what the index calls it."""
HOMES = {
    "gpnas/cli/": PRINTED,
    "gpnas/config/": "SpaceError",
    "gpnas/space/": "SpaceError",
    "gpnas/journal/": "JournalError",
    "gpnas/bundle/": "BundleError",
    "gpnas/dispatch/": "TrialError",
    "gpnas/own_process": FAILURES,
    "gpnas/run/": "TrialError",
    "gpnas/results/": "TrialError",
    "gpnas/service/": "Problem",
    "trainers/gpnas_trainers/images/": "ImageError",
    "trainers/gpnas_trainers/pairs/": "PairsError",
    "trainers/gpnas_trainers/weights": "WeightsError",
}
"""The class of the errors whose texts a folder of the source states without raising them there."""
ERRORS = re.compile(
    r"^(?!Assertion|Attribute|Index|Key|Import|NotImplemented|Pydantic|Runtime)"
    r".*(Error|Excluded|Interrupted|Problem)$"
)
KINDS = {
    "ArgumentTypeError": ARGUMENTS,
    "CandidateError": FAILURES,
    "KilledError": FAILURES,
    "Error": "ImageError",  # of pyvips
}
"""What the index calls classes that no user sees by their name."""
VALUES = ("did_you_mean", "explain", "in_words", "nearby")
"""Helpers whose text is a value: a name that is like another, what another library or a user's code says."""
STATED = re.compile(r"\bmust\b|, but |\bunknown key\b|; the same command goes on")
"""Words of a text that states a rule, what broke it or what to do."""
DEPTH = 5
"""Names and helpers that are followed from a text to a part of it."""
SHALLOW = 1
"""The same for texts of which it is not known whether they are an error's."""
MOST = 24
"""Texts that one place may make; where it makes more, a part of it stands for a value."""


@dataclass(frozen=True)
class Message:
    """What one line of the source may tell a user."""

    kind: str
    """The exception's class, or what the index calls it."""
    template: str
    """The text, with `…` where a value stands."""
    file: str
    """The source file, from the repository's top."""
    line: int


def messages() -> list[Message]:
    """What the source can tell in an error."""
    paths = (path for folder in FOLDERS for path in sorted(folder.rglob("*.py")))
    return sorted(
        set(Reader([source_of(path) for path in paths]).all()), key=lambda each: (each.file, each.line)
    )


class Reader:
    """Reads the texts of several files that import each other."""

    def __init__(self, sources: list[Source]) -> None:
        self._sources = {each.module: each for each in sources}
        self._used: set[int] = set()
        """Nodes that are a part of a text that was read; alone they are none."""

    def all(self) -> Iterator[Message]:
        """Everything, each text where it is told."""
        sources = list(self._sources.values())
        # what is left by one, the next takes
        for read in (self._raised, self._told, self._made, self._stated):
            for source in sources:
                yield from read(source)

    def _raised(self, source: Source) -> Iterator[Message]:
        """Texts of what is raised."""
        parts = {id(each) for caught in source.caught.values() for each in caught}
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                function = source.scopes[id(node)]
                public = isinstance(function, FUNCTION) and not function.name.startswith("_")
                for message in self._of(node.exc, source):
                    if id(node) not in parts or (public and STATED.search(message.template)):
                        yield message

    def _told(self, source: Source) -> Iterator[Message]:
        """Texts that are told without being raised: on the terminal, or of a candidate that failed."""
        in_cli = source.file.startswith("gpnas/cli/")
        for node in ast.walk(source.tree):
            match node:
                case ast.Call(func=ast.Name(id="fail"), args=[text]) if in_cli:
                    yield from self._texts_of(PRINTED, text, source)
                case ast.Call(func=ast.Attribute(attr="error"), args=[text]) if in_cli:
                    yield from self._texts_of(ARGUMENTS, text, source)
                case ast.Call(func=ast.Name(id="failed"), args=[text, *_]):
                    yield from self._texts_of(FAILURES, text, source)
                case ast.Call(func=ast.Attribute(attr="_tell_failure"), args=[_, text]):
                    yield from self._texts_of(FAILURES, text, source)
                case ast.keyword(arg="reason", value=text):
                    yield from self._texts_of(FAILURES, text, source)
                case ast.Call(func=ast.Name(id="Check"), args=[_, _, text, _]):  # neither is good
                    found = self._texts_of(FINDINGS, text, source)
                    yield from (each for each in found if "; " in each.template)
                case ast.Call(func=ast.Name()):
                    yield from self._answered(node, source)
                case ast.Constant(value=str(said)) if said.startswith("error: "):
                    parent = source.parents[id(node)]
                    text = parent if isinstance(parent, ast.JoinedStr) else node
                    for template in self._templates(text, self._scope(node, source)):
                        yield Message(PRINTED, template.removeprefix("error: "), source.file, node.lineno)

    def _answered(self, call: ast.Call, source: Source) -> Iterator[Message]:
        """Texts of answers of the service that a helper makes, `detail` in them."""
        helper = self._helper(call, self._scope(call, source))
        if helper is None or helper.source is not source:
            return
        for value in returned(helper.node):
            for node in ast.walk(value):
                match node:
                    case ast.Dict(keys=[ast.Constant(value="detail")], values=[text]):
                        for template in self._templates(text, helper):
                            yield Message("Problem", template, source.file, call.lineno)

    def _made(self, source: Source) -> Iterator[Message]:
        """Texts of errors that are made, to be raised elsewhere."""
        for node in ast.walk(source.tree):
            made = isinstance(node, ast.Call) and ERRORS.search(name_of(node))
            if isinstance(node, ast.Call) and made and id(node) not in self._used:
                yield from self._of(node, source)

    def _stated(self, source: Source) -> Iterator[Message]:
        """Texts that state a rule and are raised elsewhere, as those of a space file's keys are."""
        kind = next((kind for place, kind in HOMES.items() if source.file.startswith(place)), "ValueError")
        # docstrings and help are no errors, and parts of a text are no text
        passed = {id(node.value) for node in ast.walk(source.tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(source.tree):
            match node:
                case ast.keyword(arg="help", value=value):
                    passed.add(id(value))
                case ast.Compare() | ast.Call(func=ast.Attribute(attr="startswith" | "replace")):
                    passed |= {id(part) for part in ast.walk(node)}
        for form in (ast.JoinedStr | ast.BinOp, ast.Constant):  # parts of texts after these
            for node in ast.walk(source.tree):
                if not isinstance(node, form) or id(node) in passed or id(node) in self._used:
                    continue
                found = list(self._templates(node, self._scope(node, source), SHALLOW))
                self._used |= {id(part) for part in ast.walk(node)}
                for template in found:
                    if STATED.search(template) and len(words(template)) > 1:
                        yield Message(kind, template, source.file, node.lineno)

    def _texts_of(self, kind: str, text: ast.expr, source: Source) -> Iterator[Message]:
        for template in self._templates(text, self._scope(text, source)):
            if words(template):
                yield Message(kind, template, source.file, text.lineno)

    def _of(self, call: ast.Call, source: Source) -> Iterator[Message]:
        for kind, template in self._called(call, self._scope(call, source)):
            yield Message(KINDS.get(kind, kind), template, source.file, call.lineno)

    def _scope(self, node: ast.AST, source: Source) -> Scope:
        return Scope(source, source.scopes.get(id(node), source.tree))

    def _called(self, call: ast.Call, scope: Scope, depth: int = DEPTH) -> Iterator[tuple[str, str]]:
        """The class and the templates of a call that makes an error, itself or by a helper."""
        name = name_of(call)
        if not ERRORS.search(name):
            helper = self._helper(call, scope) if depth else None
            for value in returned(helper.node) if helper is not None else ():
                if isinstance(value, ast.Call):
                    yield from self._called(value, helper or scope, depth - 1)
            return
        self._used.add(id(call))
        texts = [*call.args, *(each.value for each in call.keywords)]
        places = [(text, scope) for text in texts]
        made = self._constructor(call, name, scope) if depth else None
        if made is not None and list(self._parts(*made[0], depth)):
            places = made
        for text, place in places:
            for template in self._templates(text, place):
                if words(template):
                    yield name, template

    def _constructor(self, call: ast.Call, name: str, scope: Scope) -> list[tuple[ast.expr, Scope]] | None:
        """What a class of errors makes its text of, where it does so itself."""
        found = self._class(name, scope.source)
        if found is None:
            return None
        source, definition = found
        for node in definition.body:
            if isinstance(node, FUNCTION) and node.name == "__init__":
                inner = Scope(source, node, self._bound(node, call, scope, method=True))
                for each in within(node):
                    if (
                        isinstance(each, ast.Call)
                        and ast.unparse(each.func) == "super().__init__"
                        and each.args
                    ):
                        return [(each.args[-1], inner)]
        return None

    def _class(self, name: str, source: Source) -> tuple[Source, ast.ClassDef] | None:
        if name in source.classes:
            return source, source.classes[name]
        module, known = source.imported.get(name, ("", ""))
        other = self._sources.get(module)
        return self._class(known, other) if other is not None else None

    def _helper(self, call: ast.Call, scope: Scope) -> Scope | None:
        """The function that is called, with its arguments."""
        found = self._function(call.func, scope.source)
        if found is None:
            return None
        source, function = found
        method = isinstance(call.func, ast.Attribute) and source is scope.source
        return Scope(source, function, self._bound(function, call, scope, method=method))

    def _function(self, called: ast.expr, source: Source) -> tuple[Source, Function] | None:
        match called:
            case ast.Name(id=name) if name in source.functions:
                return source, source.functions[name]
            case ast.Name(id=name) if name in source.imported:
                module, known = source.imported[name]
                other = self._sources.get(module)
                return None if other is None else self._function(ast.Name(known), other)
            case ast.Attribute(value=ast.Name(id=place), attr=name) if place in source.imported:
                other = self._sources.get(".".join(source.imported[place]))
                return None if other is None else self._function(ast.Name(name), other)
            case ast.Attribute(attr=name) if name in source.functions:
                return source, source.functions[name]
        return None

    def _bound(
        self, function: Function, call: ast.Call, scope: Scope, *, method: bool
    ) -> dict[str, tuple[ast.expr, Scope]]:
        """What a function's parameters are in a call."""
        names = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
        if method and names[:1] in (["self"], ["cls"]):
            names = names[1:]
        bound = {name: (value, scope) for name, value in zip(names, call.args, strict=False)}
        return bound | {each.arg: (each.value, scope) for each in call.keywords if each.arg}

    def _templates(self, node: ast.expr, scope: Scope, depth: int = DEPTH) -> Iterator[str]:
        """The texts that an expression may make, with `…` where a value stands."""
        for text in dict.fromkeys(self._parts(node, scope, depth)):
            yield re.sub(r"…(\s*…)+", "…", " ".join(text.split()))

    def _parts(self, node: ast.expr, scope: Scope, depth: int) -> Iterator[str]:
        """The texts that an expression may make; nothing where it is a value."""
        if depth < 0:
            return
        match node:
            case ast.Constant(value=str(text)):
                self._used.add(id(node))
                yield text
            case ast.JoinedStr(values=values):
                self._used |= {id(part) for part in ast.walk(node)}
                yield from _joined([list(self._filled(each, scope, depth)) for each in values])
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                self._used.add(id(node))
                sides = [list(self._any(each, scope, depth)) for each in (left, right)]
                if sides != [["…"], ["…"]]:
                    yield from _joined(sides)
            case ast.IfExp() | ast.BoolOp():
                texts = list(self._any(node, scope, depth))
                yield from texts if any(text != "…" for text in texts) else ()
            case ast.Name():
                yield from self._named(node, scope, depth - 1)
            case ast.Call(
                func=ast.Attribute(value=ast.Constant(value=" "), attr="join"),
                args=[ast.Call(func=ast.Attribute(value=text, attr="split"), args=[])],
            ):  # makes one line of it
                yield from self._parts(text, scope, depth - 1)
            case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[lines]):
                yield from self._lines(lines, scope, depth - 1)
            case ast.Call(func=ast.Name(id="str" | "printable"), args=[text]):
                yield from self._parts(text, scope, depth - 1)
            case ast.Call(
                func=ast.Attribute(value=text, attr="replace"),
                args=[ast.Constant(value=str(old)), ast.Constant(value=str(new))],
            ):
                yield from (each.replace(old, new) for each in self._parts(text, scope, depth - 1))
            case ast.Call(func=ast.Name(id=name)) if name in VALUES:
                pass
            case ast.Call():
                helper = self._helper(node, scope) if depth else None
                values = list(returned(helper.node)) if helper is not None else []
                texts = [text for value in values for text in self._any(value, helper or scope, depth - 1)]
                yield from texts if any(text != "…" for text in texts) else ()

    def _any(self, node: ast.expr, scope: Scope, depth: int) -> Iterator[str]:
        """The texts that an expression may make, `…` among them where it may be a value."""
        match node:
            case ast.IfExp(body=ast.JoinedStr() as text, orelse=ast.Constant(value="")):
                texts = list(self._parts(text, scope, depth))
                yield from [*texts, ""] if any("; " in each for each in texts) else ["…"]
            case ast.IfExp(body=body, orelse=orelse):
                for side in (body, orelse):
                    yield from self._any(side, scope, depth)
            case ast.BoolOp(values=values):
                for side in values:
                    yield from self._any(side, scope, depth)
            case _ if is_list(node):  # members that may be many
                yield "…"
            case _:
                yield from list(self._parts(node, scope, depth)) or ["…"]

    def _named(self, node: ast.Name, scope: Scope, depth: int) -> Iterator[str]:
        """The texts that a name may stand for."""
        if node.id in scope.arguments:
            value, place = scope.arguments[node.id]
            yield from self._parts(value, place, depth)
            return
        constant = self._constant(node.id, scope.source)
        if constant is not None:
            yield from self._parts(constant, scope, depth)
        for raised in scope.source.caught.get((id(scope.node), node.id), ()):
            assert isinstance(raised.exc, ast.Call)
            yield from self._parts(raised.exc.args[0], self._scope(raised, scope.source), depth)
            yield "…"
        for assigned in scope.source.assigned(node, scope.node):
            if not is_list(assigned):
                yield from self._parts(assigned, scope, depth)

    def _constant(self, name: str, source: Source) -> ast.expr | None:
        """The text that a name stands for in a whole file, here or where it is imported from."""
        module, known = source.imported.get(name, (source.module, name))
        return self._sources[module].constants.get(known) if module in self._sources else None

    def _lines(self, node: ast.expr, scope: Scope, depth: int) -> Iterator[str]:
        """The texts of a list's members."""
        if depth < 0:
            return
        match node:
            case ast.List(elts=members) | ast.Tuple(elts=members):
                for line in members:
                    yield from self._parts(line, scope, depth)
            case ast.ListComp(elt=member) | ast.GeneratorExp(elt=member):
                yield from self._parts(member, scope, depth)
            case ast.Name(id=name):
                for each in within(scope.node):
                    match each:
                        case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                            yield from self._lines(value, scope, depth - 1)
                        case ast.AugAssign(target=ast.Name(id=target), value=value) if target == name:
                            yield from self._lines(value, scope, depth - 1)
                        case ast.Call(func=ast.Attribute(ast.Name(id=target), "append"), args=[line]):
                            if target == name:
                                yield from self._parts(line, scope, depth - 1)
            case ast.Call():
                helper = self._helper(node, scope)
                for value in returned(helper.node) if helper is not None else ():
                    yield from self._lines(value, helper or scope, depth - 1)

    def _filled(self, node: ast.expr, scope: Scope, depth: int) -> Iterator[str]:
        """What a part of an f-string may be: itself, or the texts that a choice, a name or a helper makes."""
        match node:
            case ast.Constant(value=value):
                yield str(value)
            case ast.FormattedValue(value=ast.Name(id=name) as value) if self._constant(name, scope.source):
                yield from self._named(value, scope, depth - 1)
            case ast.FormattedValue(value=ast.IfExp() as value):
                yield from self._any(value, scope, depth - 1)
            case ast.FormattedValue(value=ast.Name() | ast.BoolOp() | ast.Call() as value):
                texts = list(self._any(value, scope, depth - 1))
                whole = all(" " in each.strip() for each in texts if each not in ("", "…"))
                yield from texts if whole else ["…"]  # a word may be what a value is compared with


def words(template: str) -> list[str]:
    """The words of a template that no value takes the place of."""
    return [word for word in template.split() if re.search(r"\w", word) and "…" not in word]


def _joined(parts: list[list[str]]) -> Iterator[str]:
    """Every text that parts make one after the other; `…` for the longest choices where they are too many."""
    parts = [each or ["…"] for each in parts]
    while len(list(itertools.islice(itertools.product(*parts), MOST + 1))) > MOST:
        longest = max(range(len(parts)), key=lambda place: len(parts[place]))
        parts[longest] = ["…"]
    yield from map("".join, itertools.product(*parts))
