"""What gpnas uses of Ray beside its promises: in one module, all of it there, and nothing left changed."""

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpnas.dispatch import private_ray

PACKAGE = Path(private_ray.__file__).parents[1]
PRIVATE = re.compile(r"ray\._(private|raylet|common)|class_cache|RAY_ENABLE|TUNE_\w+|_global_node")


@pytest.mark.parametrize("name", private_ray.NAMES)
def test_each_private_name_is_still_there(name: str) -> None:
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return
    raise AssertionError(name)


def test_they_are_all_named_and_stand_in_one_module() -> None:
    for file in PACKAGE.rglob("*.py"):
        if file != Path(private_ray.__file__):
            assert not PRIVATE.search(file.read_text()), file
    tree = ast.parse(Path(private_ray.__file__).read_text())
    owners = {"ray_constants", "services", "utils", "worker", "class_cache", "_raylet"}
    used = {
        (node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute | ast.Name)
        and (node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id) in owners
    }
    patched = {
        (node.args[0].id, node.args[1].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "_replaced"
        and isinstance(node.args[0], ast.Name)
        and isinstance(node.args[1], ast.Constant)
    }
    named = {pair for name in private_ray.NAMES for pair in pairwise(name.split("."))}
    assert used | patched <= named | {("util", "remove_placement_group")}
    assert len(patched) >= 6


def test_importing_what_dispatch_has_changes_no_environment() -> None:
    script = """
import os
before = dict(os.environ)
import gpnas.dispatch.report, gpnas.dispatch.search, gpnas.dispatch.trial, gpnas.dispatch.final
import gpnas.dispatch.together
changed = {name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)}
assert not [name for name in changed if name.startswith(("RAY_AUTH", "RAY_USAGE", "TUNE_", "PYTHON"))]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = dict(os.environ)
    with private_ray.environment():
        assert os.environ["PYTHONSAFEPATH"] == "1"
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert dict(os.environ) == before
