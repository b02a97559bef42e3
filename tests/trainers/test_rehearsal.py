"""Sources that harm the process that runs them: each costs a line, with its place, and nothing else."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from torch import nn

from gpnas_trainers import build
from gpnas_trainers.families import declare
from gpnas_trainers.own import Code, OwnError, own_family, read_code
from gpnas_trainers.rehearsal import Rehearsal, rehearse

GOOD = """\
from torch import nn

def Net(scale, width):
    return nn.Sequential(nn.Conv2d(3, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
"""
SEGFAULT = "import ctypes\nctypes.string_at(0)\n"


def tried(
    text: str,
    how: Literal["import", "pass", "contract"] = "import",
    files: Mapping[str, str] | None = None,
    seconds: float = 60,
) -> str:
    """What trying a source says."""
    code = Code("nets.py:Net", text, files=files or {})
    with pytest.raises(OwnError) as caught:
        rehearse([Rehearsal(code, how, ({"width": 4},))], 2, seconds=seconds)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\n\nos._exit(3)\n", r"nets.py:3: importing nets.py must not end its process.* code 3"),
        (SEGFAULT, r"nets.py:2: importing nets.py must not crash Python, but SIGSEGV did"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", r"nets.py: .*must not be killed"),
        ("x = bytearray(1 << 60)\n", r"nets.py:1: it must be tried without harm, but it takes more memory"),
        ("raise KeyboardInterrupt\n", r"nets.py:1: it must be tried without harm, but KeyboardInterrupt"),
        ("import os\nif os.fork():\n    1 / 0\n", r"nets.py:3: must be importable, but ZeroDivisionError"),
        ("import os, time\nif os.fork():\n    time.sleep(99)\n", r"nets.py:3: .*within 5 s, but went on"),
        ('print(\'{"error": ""}\', flush=True)\n', r"nets.py: must have a class or function `Net`"),
    ],
)
def test_what_harms_its_process_is_one_line(text: str, message: str) -> None:
    told = tried(text, seconds=5 if "went on" in message else 60)
    assert re.search(message, told), told


def test_a_network_that_hangs_is_ended_and_told_with_its_place() -> None:
    slow = GOOD.replace("    return", "    while width > 3:\n        pass\n    return")
    told = tried(slow, "contract", seconds=5)
    assert re.match(r"nets.py:[45]: Net\(scale=2, width=4\) must be done within 5 s, but went on", told), told


def test_one_that_keeps_the_contract_passes_and_is_not_run_here() -> None:
    text = f"import os, sys\nassert os.getpid() != {os.getpid()}\nprint('heard by nobody')\n{GOOD}"
    rehearse([Rehearsal(Code("nets.py:Net", text), "contract", ({"width": 4},))], 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network whose parts lie in files beside it."""
    files = {
        "nets.py": "import parts.blocks as b\nfrom shapes import shuffled\n\n\ndef Net(scale, width):\n"
        "    import late\n    return shuffled(b.Block, scale, late.KERNEL)\n",
        "shapes.py": "from torch import nn\nfrom parts import blocks\n\n\ndef shuffled(block, *arguments):\n"
        "    assert block is blocks.Block\n"
        "    return nn.Sequential(block(*arguments), nn.PixelShuffle(arguments[0]))\n",
        "parts/__init__.py": "",
        "parts/blocks.py": "from torch import nn\nfrom .base import channels\n\n\nclass Block(nn.Conv2d):\n"
        "    def __init__(self, scale, kernel):\n"
        "        super().__init__(3, channels(scale), kernel, padding=kernel // 2)\n",
        "parts/base.py": "def channels(scale):\n    return 3 * scale**2\n",
        "late.py": "KERNEL = 3\n",
        "unused.py": "raise AssertionError\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_beside_a_source_travel_with_it(folder: Path) -> None:
    code = read_code("nets.py:Net", folder)
    assert list(code.files) == [
        "late.py",
        "parts/__init__.py",
        "parts/base.py",
        "parts/blocks.py",
        "shapes.py",
    ]
    for path in folder.rglob("*.py"):
        path.unlink()  # texts are run, not files
    rehearse([Rehearsal(code, "contract", ({"width": 4},))], 2)
    declare(own_family("beside", code))
    network = build("beside", 2, width=4)
    assert isinstance(network, nn.Sequential)
    assert type(network[0]).__name__ == "Block"
    other = Code(code.network, code.text, files={**code.files, "late.py": "KERNEL = 5\n"})
    assert other.sha256 != code.sha256
    larger = own_family("other", other).build(2, width=4)
    assert [each.shape[-1] for each in larger.parameters()] == [5, 12]


def test_an_error_in_a_file_beside_a_source_has_its_place(folder: Path) -> None:
    (folder / "parts" / "base.py").write_text("def channels(scale):\n    return 1 / 0\n")
    code = read_code("nets.py:Net", folder)
    with pytest.raises(OwnError, match=r"^parts/base.py:2: Net\(scale=2, width=4\) must make a network"):
        own_family("mine", code).build(2, width=4)
    assert tried(code.text, files={**code.files, "late.py": SEGFAULT}, how="contract").startswith(
        "late.py:2: "
    )
    with pytest.raises(OwnError, match=r"^nets.py:6: .*, but late.py:1 must be Python"):
        own_family("mine", Code(code.network, code.text, files={**code.files, "late.py": "x = ("})).build(
            2, width=4
        )


def test_what_is_beside_a_source_never_leads_out_of_its_folder(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside.py"
    outside.write_text("KERNEL = 3\n")
    (folder / "late.py").unlink()
    (folder / "late.py").symlink_to(outside)
    with pytest.raises(
        OwnError, match=r"nets.py: what it imports must lie in its folder, but late.py leads out"
    ):
        read_code("nets.py:Net", folder)
    (folder / "late.py").unlink()
    (folder / "nets.py").write_text("from ..outside import x\nimport nonesuch\n")
    assert read_code("nets.py:Net", folder).files == {}
    (folder / "nets.py").write_text("".join(f"import m{number}\n" for number in range(33)))
    for number in range(33):
        (folder / f"m{number}.py").write_text("")
    with pytest.raises(OwnError, match=r"nets.py: it must import at most 32 files"):
        read_code("nets.py:Net", folder)
