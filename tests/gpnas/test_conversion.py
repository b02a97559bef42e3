"""A bundle's networks in other formats are those networks."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from gpnas.bundle import Bundle, Licence, Member, read_bundle, write_bundle
from gpnas.conversion import convert
from gpnas.ensemble import load_networks
from gpnas.errors import BundleError
from gpnas.records import Architecture
from gpnas_trainers import build
from gpnas_trainers.weights import load_rcan
from tests.builders import description

SIZES = (
    Architecture("drn", {"features": 4, "blocks": 1, "stages": 1}),
    Architecture("rcan", {"features": 8, "groups": 1, "blocks": 1, "reduction": 4}),
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    members = []
    for number, architecture in enumerate(SIZES):
        torch.manual_seed(number)
        state = build(architecture.family, 2, **architecture.axes).state_dict()
        members.append(Member(architecture, state, 0.5, {"psnr": 20.0}))
    described = description(data={"fingerprint": "9a01"}, versions={"gpnas": "0.1.0"})
    write_bundle(tmp_path / "bundle", members, described, licence=Licence("CC-BY-4.0"))
    return read_bundle(tmp_path / "bundle")


def test_each_network_becomes_onnx(bundle: Bundle, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    written = convert(bundle, None, tmp_path / "onnx", lambda done, of: told.append((done, of)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert [row["network"] for row in written] == ["network-1", "network-2"]
    lr = torch.rand(1, 3, 7, 10)
    for row, network, architecture in zip(written, load_networks(bundle), SIZES, strict=True):
        assert 0 <= row["difference"] < 1e-4
        session = onnxruntime.InferenceSession(row["file"], providers=["CPUExecutionProvider"])
        (found,) = session.run(["sr"], {"lr": lr.numpy()})
        with torch.inference_mode():
            assert np.abs(found - network(lr).numpy()).max() < 1e-4
        facts = {each.key: each.value for each in onnx.load(row["file"]).metadata_props}
        assert json.loads(facts["architectures"]) == {row["network"]: architecture.to_json()}
        assert (facts["scale"], facts["licence"], facts["data_fingerprint"]) == ("2", "CC-BY-4.0", "9a01")


def test_rcan_goes_to_its_official_names(bundle: Bundle, tmp_path: Path) -> None:
    (row,) = convert(bundle, "network-2", tmp_path / "rcan.pt")
    assert row == {"network": "network-2", "file": str(tmp_path / "rcan.pt")}
    network, scale, axes = load_rcan(tmp_path / "rcan.pt")
    assert (scale, axes) == (2, SIZES[1].axes)
    for name, value in network.state_dict().items():
        assert torch.equal(value, bundle.members[1].state[name])


@pytest.mark.parametrize(
    ("name", "output", "says"),
    [
        ("network-3", "a.onnx", "must be one of network-1, network-2, average, but got 'network-3'"),
        (None, "a.onnx", "one network must be named, but there are network-1, network-2"),
        ("network-1", "a.bin", "must end in .onnx, .safetensors, .pt, .pth, but ends in .bin"),
        ("network-1", "a.pt", "have official code, but this is DRN; convert it to .onnx instead"),
        ("average", "a.pt", "average: only networks of rcan, dual_regression, "),
    ],
)
def test_what_cannot_be_converted_is_named(
    bundle: Bundle, tmp_path: Path, name: str | None, output: str, says: str
) -> None:
    with pytest.raises(BundleError) as error:
        convert(bundle, name, tmp_path / output)
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / output).exists()
