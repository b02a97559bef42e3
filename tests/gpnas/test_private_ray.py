"""What gpnas uses of Ray beside its promises: in one module, all of it there, and nothing left changed."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
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
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    replaced = [node.args[1] for node in calls if node.func.id == "_replaced"]  # type: ignore[attr-defined]
    named = {part for name in private_ray.NAMES for part in name.split(".")}
    assert len(replaced) >= 6
    assert {each.value for each in replaced if isinstance(each, ast.Constant)} <= named
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    private = [alias.name for node in imported if PRIVATE.search(str(node.module)) for alias in node.names]
    assert {"services", "worker"} <= set(private) <= named


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


UPLOADED = """
from ray._private import worker
from ray._private.runtime_env.uv_runtime_env_hook import _get_uv_run_cmdline
from gpnas.dispatch import private_ray
assert _get_uv_run_cmdline()
assert worker._maybe_modify_runtime_env(None, False)["working_dir"]
with private_ray.starting(on_loopback=True):
    assert worker._maybe_modify_runtime_env(None, False) is None
"""


def test_a_driver_that_uv_runs_uploads_no_folder(tmp_path: Path) -> None:
    """Ray knows `uv run` by the name and the first argument of the process above the driver."""
    shutil.copy(shutil.which("bash") or "bash", tmp_path / "uv")
    (tmp_path / "check.py").write_text(UPLOADED)
    (tmp_path / "run").write_text(f"{sys.executable} check.py\nexit $?\n")
    done = subprocess.run(
        [str(tmp_path / "uv"), "run", "check.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
