"""What lies in the folder where a command is run is not run, whatever it is called."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

SPACE = """\
scale: 2
families:
  drn: {features: [4, 6], blocks: 1, stages: 1}
search: {trials: 2, concurrent: 2, validation_images: 1, early_stopping: false, portfolio: 2}
recipe: {steps: 6, batch_size: 2, hr_patch: 48, evaluate_every: 3, warmup_steps: 2}
"""
MODULES = (
    "random", "types", "queue", "socket", "tempfile", "struct", "enum", "site", "usercustomize",
    "numpy/__init__", "yaml/__init__", "torch/__init__", "ray/__init__", "gpnas/__init__",
    "gpnas_trainers/__init__", "psutil", "aiohttp", "setproctitle", "cloudpickle",
)  # fmt: skip


def test_modules_in_the_working_folder_are_not_imported(home: Path, tmp_path: Path) -> None:
    """Not by the command, nor by Ray's processes, nor by those that prepare pairs; the run folder is the same
    one, as where several people share it. What the user names in PYTHONPATH is found as ever."""
    here, ran, named = tmp_path / "here", tmp_path / "ran", tmp_path / "named"
    for module in MODULES:
        path = here / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(ran)!r}, 'a').write('{module}\\n')\n")
    named.mkdir()
    (named / "sitecustomize.py").write_text(
        f"import sys\nopen({str(tmp_path / 'customized')!r}, 'a').write(f'{{sys.orig_argv}}\\n')\n"
    )
    (here / "space.yaml").write_text(SPACE)
    command = [str(Path(sys.executable).with_name("gpnas")), "search", "--space", "space.yaml", "--run", "."]
    environment = os.environ | {"PYTHONPATH": str(named), "GPNAS_CACHE": str(tmp_path / "cache")}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [*command, "--json"], cwd=here, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["observed"] == 2
    assert not ran.exists(), ran.read_text()
    customized = (tmp_path / "customized").read_text()
    assert "default_worker.py" in customized
    assert "dashboard.py" in customized
