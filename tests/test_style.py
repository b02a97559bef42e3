"""What the house rules say of the code, where no linter says it."""

import ast
import io
import re
import tokenize
import tomllib
from importlib.metadata import version
from pathlib import Path

import gpnas

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "gpnas").rglob("*.py"), *(ROOT / "trainers" / "gpnas_trainers").rglob("*.py")])
MOST_LINES = 60
"""How long a function may be, unless a comment `# long: …` on its first line says why it is longer."""


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def reasons(path: Path) -> set[int]:
    """Lines that say why what begins there is long."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return {token.start[0] for token in tokens if token.string.startswith("# long: ")}


def test_no_function_is_long_without_a_reason() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {node.name}": lines
        for path in FILES
        for node in functions(path)
        if (lines := length(node)) > MOST_LINES and node.lineno not in reasons(path)
    }
    assert long == {}


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its name to its end, but for its docstring."""
    assert node.end_lineno is not None
    lines = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def test_the_package_offers_what_its_type_checker_sees() -> None:
    tree = ast.parse((ROOT / "gpnas" / "__init__.py").read_text())
    declared = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gpnas.")
        for alias in node.names
    }
    assert declared == {(module, name) for module, names in gpnas.HOMES.items() for name in names}
    for _, name in declared:
        assert name in dir(gpnas)
        assert getattr(gpnas, name).__name__ == name


def test_the_version_is_written_once() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == gpnas.__version__
    assert gpnas.__version__ == version("gpnas")


def test_no_docstring_begins_in_the_air() -> None:
    hanging = re.compile(r'^\s*"""(Of|For|In|From|With|By|On|At|To|Beside|Beneath|As) ', re.MULTILINE)
    assert [str(path.relative_to(ROOT)) for path in FILES if hanging.search(path.read_text())] == []
