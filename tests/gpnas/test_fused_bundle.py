"""A bundle with weights for each pixel: read back, refused where damaged, at work, measured, as ONNX."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from gpnas.bundle import Bundle, StoredFusion, read_bundle, write_bundle
from gpnas.conversion import convert
from gpnas.ensemble import load_fusion, load_networks, upscale_files, weights_of
from gpnas.errors import BundleError, DataError
from gpnas.evaluation import evaluate
from gpnas.evaluation.results import row_name
from gpnas_trainers.fusion import Fusion, Gate, Table
from gpnas_trainers.images import read_levels
from gpnas_trainers.infer import Levels, dihedral, undo_dihedral, upscale
from gpnas_trainers.metrics import psnr
from gpnas_trainers.pairs import Rules, open_pairs, prepare_folder
from tests.builders import bundle, description, folder_of_pairs

SHARES = torch.tensor([0.5, 0.3, 0.2])


def fusion(kind: str) -> Fusion:
    """One whose weights differ much from pixel to pixel."""
    generator = torch.Generator().manual_seed(1)
    if kind == "table":
        edges = [torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.05, 0.1]), torch.tensor([0.01, 0.02])]
        rows = torch.rand(36, 3, generator=generator) ** 3
        return Table(SHARES, edges, rows / rows.sum(dim=1, keepdim=True))
    gate = Gate(SHARES, 2).requires_grad_(False)
    for parameter in gate.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return gate.eval()


def fused(folder: Path, kind: str) -> Bundle:
    plain = bundle(folder)
    stored = StoredFusion(kind, fusion(kind).state_dict(), 0.021, 0.004, 10)
    write_bundle(folder / "fused", plain.members, description(), fusion=stored)
    return read_bundle(folder / "fused")


@pytest.mark.parametrize("kind", ["table", "gate"])
def test_what_was_written_is_read(tmp_path: Path, kind: str) -> None:
    made = fused(tmp_path, kind)
    assert made.fusion is not None
    assert made.manifest.fusion is not None
    for name, value in fusion(kind).state_dict().items():
        assert torch.equal(made.fusion.state[name], value), name
    content = (tmp_path / "fused/fusion.safetensors").read_bytes()
    assert made.manifest.fusion.sha256 == hashlib.sha256(content).hexdigest()
    assert (made.fusion.gain, made.fusion.error, made.fusion.images) == (0.021, 0.004, 10)
    card = (tmp_path / "fused/README.md").read_text()
    assert f"weights for each pixel ({kind}; +0.021 ± 0.004 dB" in card
    assert "fusion.safetensors" in (tmp_path / "fused/SHA256SUMS").read_text()
    assert bundle(tmp_path).fusion is None


def test_a_fusion_that_is_not_as_it_was_written_is_refused(tmp_path: Path) -> None:
    fused(tmp_path, "table")
    path = tmp_path / "fused/fusion.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"files must be as they were written, but fusion\.safetensors"):
        read_bundle(tmp_path / "fused")
    path.unlink()
    with pytest.raises(BundleError, match=r"must hold fusion\.safetensors, but it is missing"):
        read_bundle(tmp_path / "fused")


def test_a_fusion_of_other_networks_is_one_line(tmp_path: Path) -> None:
    made = fused(tmp_path, "table")
    assert made.fusion is not None
    fewer = [made.members[0], made.members[1]]
    members = [type(each)(each.architecture, each.state, 0.5, each.metrics) for each in fewer]
    write_bundle(tmp_path / "two", members, description(), fusion=made.fusion)
    two = read_bundle(tmp_path / "two")
    with pytest.raises(BundleError, match="fusion must fit its networks, but its shares must be 2"):
        load_fusion(two)
    assert load_fusion(two, "weights") is None


@pytest.mark.parametrize("kind", ["table", "gate"])
def test_each_pass_of_a_file_is_fused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    source = folder_of_pairs(tmp_path / "pairs") / "LRx2/0.png"
    made, fuse = fused(tmp_path, kind), fusion(kind)
    lr = torch.from_numpy(read_levels(source).transpose(2, 0, 1).astype(np.float32) / 255)
    networks = load_networks(made)
    passes = []
    with torch.inference_mode():
        for transform in range(8):
            turned = dihedral(lr, transform)[None]
            outputs = [network(turned).clamp(0, 1) for network in networks]
            passes.append(undo_dihedral(fuse(outputs)[0], transform))
    expected = torch.stack(passes).mean(dim=0).numpy()
    (done,) = upscale_files(made, [source], tmp_path / "sr.png")
    written = read_levels(done.target).transpose(2, 0, 1).astype(np.float64)
    assert np.abs(written - 255 * expected).max() <= 0.51
    upscale_files(made, [source], tmp_path / "weights.png", average="weights")
    assert np.asarray(Image.open(tmp_path / "weights.png")).astype(int).tobytes() != written.tobytes()


def test_tiles_are_fused_as_the_image_is_and_an_outlier_is_dropped_without(tmp_path: Path) -> None:
    made, fuse = fused(tmp_path, "table"), fusion("table")
    networks = load_networks(made)
    lr = torch.rand(3, 40, 52, generator=torch.Generator().manual_seed(0))
    whole = upscale(networks, lr, 2, Levels(0, self_ensemble=False), fusion=fuse)
    # far from a tile's edge its pixels see what the image's do
    tiled = upscale(networks, lr, 2, Levels(40, 20, self_ensemble=False), fusion=fuse)
    torch.testing.assert_close(tiled[:, :, :40], whole[:, :, :40], rtol=0, atol=2e-2)
    equal = Table(SHARES, [torch.empty(0)] * 3, SHARES[None])
    torch.testing.assert_close(
        upscale(networks, lr, 2, Levels(24), fusion=equal),
        upscale(networks, lr, 2, Levels(24), weights=SHARES.tolist()),
    )
    with pytest.raises(ValueError, match=r"a fusion of 3 networks must fuse as many, .* but got 2"):
        upscale(networks[:2], lr, 2, fusion=fuse)
    with pytest.raises(ValueError, match="but got 3 and `drop_outlier`"):
        upscale(networks, lr, 2, Levels(drop_outlier=True), fusion=fuse)


def test_a_row_of_the_table_is_fused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    source = folder_of_pairs(tmp_path / "pairs")
    folder = prepare_folder(source, tmp_path / "prepared", 2, Rules(validation_fraction=0.4))
    pairs = open_pairs(folder, "validation")
    made, fuse = fused(tmp_path, "table"), fusion("table")
    evaluation = evaluate(made, [pairs], Levels(0), tiles=False)
    names = [row_name(row) for row in evaluation.rows]
    assert names.count("1 + 2 + 3, fused") == 2  # without and with self-ensemble
    for row in evaluation.rows:
        if "fused" not in row.levels:
            continue
        levels = Levels(0, self_ensemble="self_ensemble" in row.levels)
        for index, (found, _) in enumerate(row.per_image):
            lr, hr = pairs.tensors(index)
            expected = psnr(upscale(load_networks(made), lr, 2, levels, fusion=fuse), hr)
            assert found == pytest.approx(expected, abs=1e-6)
    weights = evaluate(made, [pairs], Levels(0), tiles=False, average="weights")
    assert [row.per_image for row in weights.rows] == [
        row.per_image for row in evaluation.rows if "fused" not in row.levels
    ]
    assert list(evaluation.weights) == weights_of(made, "fused") == [0.5, 0.3, 0.2]


@pytest.mark.parametrize("kind", ["table", "gate"])
def test_onnx_of_the_average_is_fused(tmp_path: Path, kind: str) -> None:
    made, fuse = fused(tmp_path, kind), fusion(kind)
    (row,) = convert(made, "average", tmp_path / "average.onnx")
    session = onnxruntime.InferenceSession(row["file"], providers=["CPUExecutionProvider"])
    lr = torch.rand(1, 3, 13, 21, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(["sr"], {"lr": lr.numpy()})
    with torch.inference_mode():
        expected = fuse([network(lr).clamp(0, 1) for network in load_networks(made)])
    # a pixel at the edge of a bin may fall on its other side
    assert (np.abs(found - expected.numpy()) > 1e-4).mean() < 0.01
    facts = {each.key: each.value for each in onnx.load(row["file"]).metadata_props}
    assert facts["fusion"] == kind
    assert len(json.loads(facts["architectures"])) == 3


def test_no_outlier_is_dropped_from_two(tmp_path: Path) -> None:
    """Levels are checked with the bundle's weights, fused or not."""
    made = bundle(tmp_path, (0.5, 0.5, 0.0))
    with pytest.raises(DataError, match="an outlier is one of at least 3 networks"):
        upscale_files(made, [tmp_path], tmp_path / "out", Levels(drop_outlier=True))
