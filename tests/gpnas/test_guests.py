"""Networks that no trial trained, in the portfolio of a run and in its bundle; without Ray."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gpnas.bundle import read_bundle
from gpnas.cli import main
from gpnas.data import prepared_pairs
from gpnas.ensemble import load_networks
from gpnas.errors import DataError
from gpnas.journal import Journal
from gpnas.results.delivery import deliver
from gpnas.results.guests import measured, read_guests
from gpnas.results.portfolio_report import portfolio_document
from gpnas.run.setup import Data
from gpnas_trainers import build, cost, families, graphs
from gpnas_trainers.converting import save_official, save_onnx
from gpnas_trainers.infer import Levels, upscale
from gpnas_trainers.metrics import psnr
from gpnas_trainers.pairs import MINIMUM_NCC, Camera, PairSet, Rules
from tests.builders import onnx_file, run_of_networks
from tests.gpnas import authors

LOAD = """\
from torch import nn
from torch.nn.functional import interpolate


class Fixed(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale, self.shift = scale, nn.Parameter(0.001 * __import__("torch").ones(3, 1, 1))

    def forward(self, x):
        return interpolate(x, scale_factor=self.scale, mode="bilinear") + self.shift


def load(scale):
    return Fixed(scale)
"""


class Ranged(nn.Module):
    """A network whose pixels are whole numbers of 0 … 255."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        sr: Tensor = self.network(x / 255) * 255
        return sr.round()


def nearest(family: str, scale: int = 2, **axes: Any) -> nn.Module:
    """EDSR or RCAN with weights by hand: it repeats each pixel, exactly."""
    network = build(family, scale, features=4, **axes)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "mean" not in name:
                parameter.zero_()
        state = dict(network.named_parameters())
        for channel in range(3):
            state["head.0.weight"][channel, channel, 1, 1] = 1
            state["tail.1.weight"][channel, channel, 1, 1] = 1
            for place in range(4):
                state["tail.0.0.weight"][4 * channel + place, channel, 1, 1] = 1
    return network.eval()


@pytest.fixture(scope="module")
def pairs(home: Path) -> PairSet:
    rules = Rules(minimum_side=48, minimum_ncc=MINIMUM_NCC)
    return prepared_pairs(None, 2, rules, camera=Camera()).validation.head(2)


@pytest.fixture(scope="module")
def run(home: Path, pairs: PairSet) -> Path:
    """A delivered run of three networks, validated on shipped photographs."""
    data = Data("0", pairs.fingerprint, "photographs", asdict(Camera()))
    run = run_of_networks(home / "run", pairs, data)
    with Journal.read(run) as journal:
        header = journal.header
    with Journal.create_or_open(run, header) as journal:
        deliver(run, journal, pairs, 3, time.monotonic())
    return run


@pytest.fixture(scope="module")
def networks(home: Path) -> dict[str, str]:
    """One file of each kind."""
    save_official(nearest("rcan", groups=1, blocks=1, reduction=2), home / "rcan_x2.pt")
    save_official(nearest("edsr", blocks=2), home / "edsr.safetensors")
    torch.manual_seed(0)
    drn = build("drn", 2, features=6, blocks=2, stages=2).eval()
    save_onnx(drn, home / "other.onnx")
    save_onnx(Ranged(nearest("edsr", blocks=1)), home / "bytes.onnx")
    luma = onnx.helper.make_node("Resize", ["y", "", "twice"], ["z"], mode="nearest")
    whole = [onnx.helper.make_node("Round", [each], [made]) for each, made in (("x", "y"), ("z", "sr"))]
    content = onnx_file([whole[0], luma, whole[1]], (1, 1, 24, 16))
    (home / "luma.onnx").write_bytes(content)  # whole numbers of 0 … 255
    (home / "nets.py").write_text(LOAD)
    names = ("rcan_x2.pt", "edsr.safetensors", "other.onnx", "bytes.onnx", "nets.py:load", "luma.onnx")
    return {name: str(home / name) for name in names}


def coloured(x: Tensor) -> Tensor:
    """Luma repeated, and colours interpolated: R - Y, G - Y and B - Y."""
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    bicubic = interpolate(x, scale_factor=2, mode="bicubic").clamp(0, 1)
    luma = interpolate((weights * x).sum(dim=1, keepdim=True), scale_factor=2, mode="nearest")
    return bicubic - (weights * bicubic).sum(dim=1, keepdim=True) + luma


def mean_psnr(network: Callable[[Tensor], Tensor], pairs: PairSet) -> float:
    values = []
    for index in range(len(pairs)):
        lr, hr = pairs.tensors(index)
        with torch.no_grad():
            values.append(psnr(network(lr[None])[0].clamp(0, 1), hr))
    return sum(values) / len(values)


def test_every_kind_is_measured_on_the_runs_own_images(
    networks: dict[str, str], run: Path, pairs: PairSet
) -> None:
    """Against PyTorch's own interpolation and the network that was exported."""
    guests = read_guests(list(networks.values()), pairs)
    with Journal.read(run) as journal:
        company = measured(run, journal.candidates(), guests, pairs)
    torch.manual_seed(0)
    drn = build("drn", 2, features=6, blocks=2, stages=2).eval()
    repeated = mean_psnr(lambda x: interpolate(x, scale_factor=2, mode="nearest"), pairs)
    expected = {
        "with-1": repeated,
        "with-2": repeated,
        "with-3": mean_psnr(drn, pairs),
        "with-4": repeated,
        "with-5": mean_psnr(lambda x: interpolate(x, scale_factor=2, mode="bilinear") + 0.001, pairs),
        "with-6": mean_psnr(coloured, pairs),
    }
    assert company.psnr == pytest.approx(expected, abs=0.01)
    ranges = [each.candidate.architecture.axes.get("takes") for each in guests]
    assert ranges == [None, None, None, "0..255", None, "0..255"]
    # errors of the two that repeat pixels are the same
    assert company.gram[:, 3, 4] == pytest.approx(company.gram[:, 3, 3], rel=1e-3)
    assert [each.parameters for each in guests[:2]] == [
        cost.parameters("rcan", 2, features=4, groups=1, blocks=1, reduction=2),
        cost.parameters("edsr", 2, features=4, blocks=2),
    ]


def test_networks_of_their_authors_code_join_with_equal_pixels(
    run: Path, pairs: PairSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of state dicts as EDSR-PyTorch and RCAN save them, beside what that code makes of an image."""
    made = {
        "EDSR_x2.pt": authors.trained(authors.edsr(2, 16, 3), 2),
        "RCAN_BIX2.pt": authors.trained(authors.rcan(2, 32, 2, 2, 16), 2),
    }
    files = []
    for name, network in made.items():
        torch.save(network.state_dict(), tmp_path / name)
        files.append(str(tmp_path / name))
    x = torch.rand(2, 3, 19, 14, generator=torch.Generator().manual_seed(1))
    for guest, network in zip(read_guests(files, pairs), made.values(), strict=True):
        with torch.inference_mode():
            expected = network(x * authors.RGB_RANGE) / authors.RGB_RANGE
            torch.testing.assert_close(guest.network(x), expected, atol=2e-6, rtol=0)
    output = tmp_path / "bundle"
    with_both = [each for file in files for each in ("--with", file)]
    assert main(["portfolio", str(run), *with_both, "--output", str(output), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    psnrs = {row["architecture"]["family"]: row["psnr"] for row in document["guests"]}
    assert set(psnrs) == {"edsr", "rcan"}
    assert all(psnr > 20 for psnr in psnrs.values())


def test_an_onnx_file_costs_what_its_network_does(networks: dict[str, str]) -> None:
    content, axes = Path(networks["other.onnx"]).read_bytes(), {"features": 6, "blocks": 2, "stages": 2}
    counted = graphs.gmacs(graphs.OnnxNetwork(content), 120, 120)
    assert counted == pytest.approx(cost.gmacs("drn", 2, 120, 120, **axes), rel=1e-6)
    assert graphs.parameters(content) == pytest.approx(cost.parameters("drn", 2, **axes), rel=0.02)


def test_every_operation_that_multiplies_is_counted() -> None:
    """A graph by hand: a convolution in groups, a transposed one, and a product with a matrix per row."""
    make, numbers = onnx.helper, np.random.default_rng(0)
    weights = {
        "a": numbers.random((6, 1, 3, 3), np.float32),  # 3 groups
        "b": numbers.random((6, 3, 2, 2), np.float32),
        "c": numbers.random((1, 5), np.float32),
        "d": numbers.random((5, 1), np.float32),
    }
    nodes = [
        make.make_node("Conv", ["lr", "a"], ["x"], group=3, pads=[1, 1, 1, 1]),
        make.make_node("ConvTranspose", ["x", "b"], ["y"], strides=[2, 2]),
        make.make_node("Unsqueeze", ["y", "last"], ["z"]),
        make.make_node("MatMul", ["z", "c"], ["wide"]),
        make.make_node("MatMul", ["wide", "d"], ["narrow"]),
        make.make_node("Squeeze", ["narrow", "last"], ["sr"]),
    ]
    images = [
        make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in ("lr", "sr")
    ]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    tensors.append(onnx.numpy_helper.from_array(np.array([-1]), "last"))
    graph = make.make_graph(nodes, "by hand", images[:1], images[1:], tensors)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=9)
    content = model.SerializeToString()
    assert graphs.parameters(content) == 6 * 9 + 6 * 3 * 4 + 5 + 5
    # of an LR pixel; its HR pixels are 2·2 in 3 channels
    each = 6 * 9 + 6 * 3 * 4 + 2 * (2 * 2 * 3) * 5
    network = graphs.OnnxNetwork(content)
    assert graphs.gmacs(network, 120, 100) == pytest.approx(each * 120 * 100 / 1e9, rel=1e-9)
    assert network(torch.rand(1, 3, 7, 5)).shape == (1, 3, 14, 10)


def test_the_choice_the_frontier_and_the_bundle_have_them(
    networks: dict[str, str], run: Path, pairs: PairSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [part for each in networks.values() for part in ("--with", each)]
    target = tmp_path / "bundle"
    assert main(["portfolio", str(run), *options, "--top", "3", "-o", str(target), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["networks"] == 9
    assert [each["id"] for each in document["guests"]] == [f"with-{number}" for number in range(1, 7)]
    # the cheapest there is: interpolations take no multiplications
    assert {*document["frontier"][0]["members"]} <= {"with-5", "with-6"}
    chosen = document["choice"]["members"]
    assert any(name.startswith("with-") for name in chosen)
    assert document["selection"]["self_ensemble"]
    bundle = read_bundle(target)
    # it was judged as it upscales: each network averaged over flips and transposes
    members = load_networks(bundle)
    values = []
    for index in range(len(pairs)):
        lr, hr = pairs.tensors(index)
        parts = [
            each.weight * upscale([own], lr, 2, Levels(0))
            for each, own in zip(bundle.members, members, strict=True)
        ]
        values.append(psnr(torch.stack(parts).sum(dim=0), hr))
    assert document["choice"]["ensemble"] == pytest.approx(sum(values) / len(values), abs=1e-3)
    families._OWN.clear()
    assert [member.weight for member in bundle.members] == pytest.approx(document["choice"]["weights"])


@pytest.fixture(scope="module")
def mixed(networks: dict[str, str], run: Path, home: Path, pairs: PairSet) -> Path:
    """A bundle of every kind: of the guests alone, in equal parts."""
    from gpnas.records import Portfolio
    from gpnas.results.choosing import Chosen
    from gpnas.results.exporting import write_portfolio
    from gpnas.selection import Selection

    guests = read_guests(list(networks.values()), pairs)
    with Journal.read(run) as journal:
        company = measured(run, journal.candidates(), guests, pairs)
        members = tuple(each.candidate for each in guests)
        portfolio = Portfolio(members, (1 / 6,) * 6, 20.0)
        chosen = Chosen(portfolio, 6, None, Selection.__new__(Selection), members)
        delivery = journal.result("delivery")
        assert delivery is not None
        write_portfolio(journal, chosen, delivery, home / "mixed", company=company)
    families._OWN.clear()
    return home / "mixed"


def test_a_bundle_of_every_kind_upscales_in_the_same_tiles_and_transforms(
    mixed: Path, networks: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert sorted(path.suffix for path in mixed.glob("network-*")) == [".onnx"] * 3 + [".safetensors"] * 3
    image = tmp_path / "lr.png"
    Image.fromarray(np.random.default_rng(0).integers(40, 200, (30, 41, 3), dtype=np.uint8)).save(image)
    command = ["upscale", str(mixed), str(image), "-o", str(tmp_path / "sr.png"), "--tile", "24"]
    assert main(command) == 1
    assert "name nets.py by --networks nets.py" in capsys.readouterr().err
    source = networks["nets.py:load"].removesuffix(":load")
    assert main([*command, "--networks", source]) == 0, capsys.readouterr()
    # by the networks that PyTorch has, in the same tiles and transforms
    torch.manual_seed(0)
    drn = build("drn", 2, features=6, blocks=2, stages=2)

    class Bilinear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return interpolate(x, scale_factor=2, mode="bilinear") + 0.001

    class Repeated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return interpolate(x, scale_factor=2, mode="nearest")

    lr = torch.from_numpy(np.asarray(Image.open(image))).permute(2, 0, 1) / 255

    class Coloured(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return coloured(x)

    parts = [Repeated(), drn, Bilinear(), Coloured()]
    expected = upscale(parts, lr, 2, Levels(24), weights=[3, 1, 1, 1])
    found = torch.from_numpy(np.asarray(Image.open(tmp_path / "sr.png"))).permute(2, 0, 1)
    assert ((expected * 255).round() - found).abs().max() <= 1


def test_an_onnx_member_is_converted_to_its_own_file(
    mixed: Path, networks: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = networks["nets.py:load"].removesuffix(":load")
    for name, code in (("network-3", 0), ("network-4", 1), ("average", 1)):
        command = ["convert", str(mixed), name, "-o", str(tmp_path / f"{name}.onnx"), "--networks", source]
        assert main(command) == code, capsys.readouterr()
    assert "an ONNX file has no other form" in capsys.readouterr().err
    assert (tmp_path / "network-3.onnx").read_bytes() == Path(networks["other.onnx"]).read_bytes()


def exported(path: Path, change: Callable[[Any], None] = lambda model: None, scale: int = 2) -> str:
    save_onnx(nearest("edsr", scale, blocks=1), path)
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    return str(path)


def outside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def bright(model: Any) -> None:
    """Its output is its output's negative."""
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["plain" if each == name else each for each in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", ["plain"], [name]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, r"must hold its weights itself"),
        (bright, r"must take and make RGB in \[0, 1\]"),
    ],
)
def test_onnx_files_that_cannot_be_used(
    change: Callable[[Any], None], message: str, tmp_path: Path, pairs: PairSet
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_guests([exported(tmp_path / "x.onnx", change)], pairs)
    assert "\n" not in str(caught.value)


def test_other_files_that_cannot_be_used(tmp_path: Path, pairs: PairSet, run: Path) -> None:
    save_official(build("rcan", 3, features=4, groups=1, blocks=1), tmp_path / "x3.pt")
    save_official(build("rcan", 2, features=4, groups=1, blocks=1), tmp_path / "noise.pt")
    (tmp_path / "torn.onnx").write_bytes(b"\x08\x07abc")
    (tmp_path / "nets.py").write_text(
        LOAD + "\n\ndef rcan(scale):\n    return 3\n\n\ndef bad(scale):\n    1 / 0\n"
    )
    for text, message in (
        ("x3.pt", "must be of the run's scale 2, but is of 3"),
        ("noise.pt", r"of a validation image it makes something else"),
        ("torn.onnx", "must be an ONNX file"),
        ("gone.onnx", "No such file"),
        ("gone.pt", "No such file"),
        ("nets.py:rcan", "rcan is a built-in family"),
        ("nets.py:bad", r"nets.py:\d+: bad\(scale=2\) must make a network, but ZeroDivisionError"),
        ("nets.py:Fixed.x", "must hold nothing but weights"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read_guests([str(tmp_path / text)], pairs)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"at scale 2, but made \(1, 3, 52, 36\)"):
        read_guests([exported(tmp_path / "x4.onnx", scale=4)], pairs)


def test_guests_leave_nothing_in_the_run(networks: dict[str, str], run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    document = portfolio_document(run, guests=[networks["other.onnx"]])
    assert document["guests"][0]["architecture"] == {
        "family": "onnx",
        "axes": {"file": "other.onnx"},
    }
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before if not path.name.startswith("journal")} == {
        path: when for path, when in before.items() if not path.name.startswith("journal")
    }
    assert set(after) - set(before) <= {run / "products.safetensors"}
