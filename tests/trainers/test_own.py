"""Networks of one's own: what is read, what is built, and what breaks the contract, each in one line."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import pad

from gpnas_trainers import build
from gpnas_trainers.contract import check_contract
from gpnas_trainers.families import declare
from gpnas_trainers.networks.padded import Padded
from gpnas_trainers.own import Code, OwnError, own_family, read_code

START = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, scale, width):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3 * scale**2, 3, padding=1)
        self.end = nn.PixelShuffle(scale)

"""
GOOD = (
    START
    + """\
    def forward(self, x):
        return self.end(self.last(self.first(x).relu()))
"""
)


def passing(body: str) -> str:
    """A network whose pass is a line."""
    return START + f"    def forward(self, x):\n        {body}\n"


def tried(text: str, entry: str = "Net", **axes: Any) -> None:
    code = Code(f"nets.py:{entry}", text)
    check_contract(own_family("mine", code), code, 2, axes or {"width": 4})


def test_a_network_that_keeps_the_contract_is_built_from_its_text() -> None:
    tried(GOOD)
    declare(own_family("mine", Code("nets.py:Net", GOOD)))
    network = build("mine", 3, width=5)
    with torch.no_grad():
        assert network(torch.rand(1, 3, 5, 7)).shape == (1, 3, 15, 21)
    assert type(network).__module__ in sys.modules


def test_a_built_in_family_is_never_replaced() -> None:
    with pytest.raises(ValueError, match="drn is built in"):
        declare(own_family("drn", Code("nets.py:Net", GOOD)))


EVERY_EIGHT = """\
    def forward(self, x):
        b, c, h, w = x.shape
        x = x.view(b, c, h // 8, 8, w // 8, 8).reshape(b, c, h, w)
        return self.end(self.last(self.first(x).relu()))
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def Net(scale, width):\n    return None\n",
            r"nets.py:1: .*must return a torch.nn.Module, but returned None",
        ),
        ("Net = 3\n", r"nets.py: must have a class or function `Net`.*it is a int"),
        ("\n\nimport nonesuch\n", r"nets.py:3: may import only what is installed.*no nonesuch"),
        ("x = (\n", r"nets.py:1: must be Python, but"),
        ("x = 1\ny = 1 / 0\n", r"nets.py:2: must be importable, but ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", r"nets.py:2: must be importable, but it called sys.exit\(3\)"),
        (
            START.replace("scale, width", "scale, depth"),
            r"nets.py:5: must be callable as Net\(scale=2, width=4\)",
        ),
        (
            START.replace("super", "raise KeyError('a'); super"),
            r"nets.py:6: Net\(.*\) must make a network, but KeyError",
        ),
        (START, r"nets.py: Net\(scale=2, width=4\) must take an image of 13×9 LR pixels"),
        (passing("return x"), r"must make \(2, 3, 26, 18\) of \(2, 3, 13, 9\), but made \(2, 3, 13, 9\)"),
        (passing("return [x]"), r"must return a tensor, but returned a list"),
        (passing("return None"), r"must return a tensor, but returned None"),
        (passing("return self.end(self.last(self.first(x))) / 0 * 0"), r"must return finite numbers"),
        (
            passing("return self.end(self.last(self.first(x))).detach()"),
            r"must be differentiable, but its output",
        ),
        (
            passing("return self.end(self.last(self.first(x))).double()"),
            r"must return float32, but returned float64",
        ),
        (passing("return self.end(self.last(self.first(x.mul_(2))))"), r"must leave its input as it is"),
        (passing("import sys; sys.exit()"), r"nets.py:12: .*but it called sys.exit\(None\)"),
        (
            passing("return self.end(self.last(self.first(x.sqrt() * 0 + (x - x).sqrt()).relu()))").replace(
                "x.sqrt() * 0 + (x - x).sqrt()", "(self.first.weight - self.first.weight).sum().sqrt() + x"
            ),
            r"must have finite gradients",
        ),
        (
            GOOD.replace("self.end =", "self.register_buffer('on', torch.ones(3) > 0); self.end ="),
            r"`on` is bool; register it with `persistent=False`",
        ),
        (START + EVERY_EIGHT, r"nets.py:13: .*multiples of 8: say so by `multiple_of = 8`"),
        (
            START.replace("def __init__", "multiple_of = 4\n    def __init__", 1) + EVERY_EIGHT,
            r"`multiple_of = 4` does not suffice",
        ),
        (
            GOOD.replace("def __init__", "multiple_of = 0\n    def __init__", 1),
            r"`multiple_of` must be an integer of 1",
        ),
        (
            "from torch import nn\ndef Net(scale, width):\n    return nn.Upsample(scale_factor=scale)\n",
            r"have parameters",
        ),
    ],
)
def test_what_breaks_the_contract_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(OwnError) as caught:
        tried(text)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("nets.py")


def test_a_network_that_needs_multiples_is_padded() -> None:
    text = START.replace("def __init__", "multiple_of = 8\n    def __init__", 1) + EVERY_EIGHT
    tried(text)
    network = own_family("mine", Code("nets.py:Net", text)).build(2, width=4)
    assert isinstance(network, Padded)
    lr = torch.rand(1, 3, 13, 10)
    with torch.no_grad():  # PyTorch's own mirror
        expected = network.network(pad(lr, (0, 6, 0, 3), mode="reflect"))[..., :26, :20]
        assert torch.equal(network(lr), expected)
    # its weights fit the network alone
    assert list(network.state_dict()) == list(network.network.state_dict())
    network.load_state_dict(network.network.state_dict())


def test_the_file_lies_beside_the_space_file_or_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "nets.py").write_text(GOOD)
    (tmp_path / "outside.py").write_text(GOOD)
    assert read_code("nets.py:Net", tmp_path / "below").text == GOOD
    assert read_code("below/nets.py:Net", tmp_path).file == "below/nets.py"
    (tmp_path / "below" / "link.py").symlink_to(tmp_path / "outside.py")
    for network in ("../outside.py:Net", str(tmp_path / "outside.py") + ":Net", "link.py:Net"):
        with pytest.raises(OwnError, match="must lie in the folder of the file that names it or below"):
            read_code(network, tmp_path / "below")
    for network in ("nets.py", "nets:1", ":Net", "a b:Net", "nets.py:Net()"):
        with pytest.raises(OwnError, match=r"must be like nets\.py:Mine"):
            read_code(network, tmp_path)
    with pytest.raises(OwnError, match=r"nets\.py: a network's file must be readable"):
        read_code("nets.py:Net", tmp_path)


def test_a_module_of_a_package_keeps_its_relative_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "somebodys_networks"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("from torch.nn import Conv2d as Part\n")
    (package / "nets.py").write_text(GOOD.replace("import torch\n", "from .parts import Part\n"))
    monkeypatch.syspath_prepend(tmp_path)
    code = read_code("somebodys_networks.nets:Net", Path())
    assert code.package == "somebodys_networks"
    check_contract(own_family("mine", code), code, 2, {"width": 4})
    # the text is run, not what is installed by then
    (package / "nets.py").write_text("")
    assert own_family("mine", code).build(2, width=4)
    with pytest.raises(OwnError, match="must be a module in Python of an installed package"):
        read_code("nonesuch_package:Net", Path())
