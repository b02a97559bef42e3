"""A bundle at work: what it reports and writes is what its networks give, added up by hand."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from gpnas.bundle import Bundle, Member
from gpnas.ensemble import load_networks, upscale_files
from gpnas.errors import BundleError, DataError
from gpnas.records import Architecture
from gpnas_trainers.images import read_levels
from gpnas_trainers.infer import Levels, upscale
from tests.builders import bundle, ensemble_by_hand, folder_of_pairs


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    return folder_of_pairs(tmp_path / "pairs")


def test_files_hold_the_average_of_all(tmp_path: Path, pairs: Path) -> None:
    made = bundle(tmp_path)
    (done,) = upscale_files(made, [pairs / "LRx2" / "0.png"], tmp_path / "sr.png")
    target = done.target
    assert target == tmp_path / "sr.png"
    lr = read_levels(pairs / "LRx2" / "0.png").transpose(2, 0, 1).astype(np.float32) / 255
    expected = ensemble_by_hand(load_networks(made), [0.5, 0.3, 0.2], lr, turns=True)
    written = read_levels(target).transpose(2, 0, 1).astype(np.float64)
    assert np.abs(written - 255 * expected).max() <= 0.51  # rounding to 8 bits


def test_the_outlier_of_each_pixel_is_left_out(tmp_path: Path, pairs: Path) -> None:
    made, weights = bundle(tmp_path), np.array([0.5, 0.3, 0.2])
    source = pairs / "LRx2" / "0.png"
    upscale_files(made, [source], tmp_path / "sr.png", Levels(self_ensemble=False, drop_outlier=True))
    lr = read_levels(source).transpose(2, 0, 1).astype(np.float32) / 255
    each = np.stack([ensemble_by_hand([network], [1.0], lr, turns=False) for network in load_networks(made)])
    far = ((each - np.median(each, axis=0)) ** 2).sum(axis=1).argmax(axis=0)
    counted = weights[:, None, None] * (np.arange(3)[:, None, None] != far)
    expected = (each * (counted / counted.sum(axis=0))[:, None]).sum(axis=0)
    written = read_levels(tmp_path / "sr.png").transpose(2, 0, 1).astype(np.float64)
    assert np.abs(written - 255 * expected).max() <= 0.51


def test_tiles_of_several_sides_are_averaged(tmp_path: Path, pairs: Path) -> None:
    made, source = bundle(tmp_path), pairs / "LRx2" / "0.png"
    sr = []
    for name, tile in (("16", 16), ("20", 20), ("both", (16, 20))):
        (done,) = upscale_files(
            made,
            [source],
            tmp_path / f"{name}.png",
            Levels(tile, 4, "constant", self_ensemble=False),
        )
        sr.append(read_levels(done.target).astype(np.float64))
    assert (sr[0] != sr[1]).any()
    assert np.abs(sr[2] - (sr[0] + sr[1]) / 2).max() <= 1.01  # each is rounded to 8 bits


def test_wrong_levels_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    made, levels = bundle(tmp_path, (0.5, 0.5, 0.0)), Levels(self_ensemble=False, drop_outlier=True)
    with pytest.raises(DataError, match="one of at least 3 networks with a weight above 0, but got 2"):
        upscale_files(made, [tmp_path / "none.png"], tmp_path / "sr.png", levels)


def test_one_unreadable_image_does_not_keep_the_others(tmp_path: Path, pairs: Path) -> None:
    (pairs / "LRx2" / "1.png").write_bytes(b"no image")
    said: list[str] = []
    results = upscale_files(
        bundle(tmp_path), [pairs / "LRx2"], tmp_path / "out", Levels(self_ensemble=False), say=said.append
    )
    assert [each.error for each in results] == [None, said[0], None, None, None]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png", "3.png", "4.png"]
    assert len(said) == 1
    assert "1.png" in said[0]


def test_rows_to_disk_are_the_whole_image(tmp_path: Path) -> None:
    """Of 8 bits to the last level, of 16 as near to float64 as float32 is."""
    made = bundle(tmp_path)
    levels = Levels((24, 20), 7, self_ensemble=False)
    lr = np.random.default_rng(0).integers(0, 65536, (45, 70, 3), dtype=np.uint16)
    Image.fromarray((lr >> 8).astype(np.uint8)).save(tmp_path / "lr.png")
    tifffile.imwrite(tmp_path / "lr.tif", lr, photometric="rgb")
    networks, weights = load_networks(made), [member.weight for member in made.members]
    given = torch.from_numpy(read_levels(tmp_path / "lr.png")).permute(2, 0, 1).float() / 255
    expected = (255 * upscale(networks, given, 2, levels, weights=weights)).round().byte().permute(1, 2, 0)
    upscale_files(made, [tmp_path / "lr.png"], tmp_path / "sr.png", levels)
    np.testing.assert_array_equal(read_levels(tmp_path / "sr.png"), expected.numpy())

    exact = torch.from_numpy(lr / 65535).permute(2, 0, 1)
    sr = upscale([network.double() for network in networks], exact, 2, levels, weights=weights)
    for name in ("sr16.png", "sr16.tif"):
        upscale_files(made, [tmp_path / "lr.tif"], tmp_path / name, levels)
        found = read_levels(tmp_path / name)
        assert found.dtype == np.uint16
        assert np.abs(found - 65535 * sr.permute(1, 2, 0).numpy()).max() <= 0.6
    said: list[str] = []
    upscale_files(made, [tmp_path / "lr.tif"], tmp_path / "sr.webp", levels, say=said.append)
    assert np.abs(read_levels(tmp_path / "sr.webp") - 255 * sr.permute(1, 2, 0).numpy()).max() <= 0.51
    (line,) = said
    assert line.endswith(f"sr.webp: holds 8 bits per channel; the 16 of {tmp_path / 'lr.tif'} are rounded")


def test_a_full_disk_does_not_keep_the_other_images(tmp_path: Path, small_disk: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "lr").mkdir()
    for name, side in (("a", 20), ("b", 320), ("c", 20)):
        image = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
        image.save(tmp_path / "lr" / f"{name}.png")
    said: list[str] = []
    results = upscale_files(
        bundle(tmp_path),
        [tmp_path / "lr"],
        small_disk,
        Levels(overlap=0, self_ensemble=False),
        say=said.append,
    )
    assert [each.error for each in results] == [None, *said, None]
    assert sorted(path.name for path in small_disk.iterdir()) == ["a.png", "c.png"]
    (line,) = said
    assert line.startswith(f"{small_disk / 'b.png'}: the image could not be written, since the disk is full")


def test_what_a_format_cannot_hold_is_told_before_the_first_pass(tmp_path: Path) -> None:
    Image.new("RGB", (8200, 3)).save(tmp_path / "lr.png")
    passes: list[int] = []
    with pytest.raises(DataError, match="a WebP file's sides must be at most 16383 pixels, but got 16400×6"):
        upscale_files(
            bundle(tmp_path),
            [tmp_path / "lr.png"],
            tmp_path / "sr.webp",
            progress=lambda name, done, all_: passes.append(done),
        )
    assert not passes
    assert not (tmp_path / "sr.webp").exists()


def test_outputs_never_overwrite_each_other(tmp_path: Path, pairs: Path) -> None:
    inputs = [pairs / "LRx2" / "0.png", pairs / "HR" / "0.png"]
    said: list[str] = []
    written = upscale_files(
        bundle(tmp_path), inputs, tmp_path / "out", Levels(self_ensemble=False), say=said.append
    )
    assert [each.target.name for each in written] == ["0.png", "0-2.png"]
    assert [read_levels(each.target).shape[0] for each in written] == [60, 120]
    assert len(said) == 1
    with pytest.raises(DataError, match="must be a folder, since there are 2 images"):
        upscale_files(bundle(tmp_path), inputs, tmp_path / "out.png")


def test_pictures_that_are_not_rgb_are_converted_where_that_is_asked_for(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    (tmp_path / "in").mkdir()
    images = {"grey": (Image.fromarray(rgb[..., 0]), grey), "opaque": (Image.fromarray(rgb), rgb)}
    for name, (image, _) in images.items():
        (image.convert("RGBA") if name == "opaque" else image).save(tmp_path / "in" / f"{name}.png")
    given, said = bundle(tmp_path), list[str]()
    results = upscale_files(given, [tmp_path / "in"], tmp_path / "out", say=said.append)
    assert [each.error for each in results] == said
    assert said[0].endswith("must be one RGB picture, but got grey; convert it first, or add --convert")
    said.clear()
    upscale_files(given, [tmp_path / "in"], tmp_path / "out", convert=True, say=said.append)
    for name, (_, pixels) in images.items():
        Image.fromarray(pixels).save(tmp_path / "rgb.png")
        upscale_files(given, [tmp_path / "rgb.png"], tmp_path / "expected.png")
        expected = read_levels(tmp_path / "expected.png")
        np.testing.assert_array_equal(read_levels(tmp_path / "out" / f"{name}.png"), expected)
    assert said == [
        f"{tmp_path / 'in' / 'grey.png'}: grey, converted to RGB",
        f"{tmp_path / 'in' / 'opaque.png'}: RGB with alpha, converted to RGB; its alpha is opaque",
    ]


def test_what_the_format_cannot_hold_is_said(tmp_path: Path, pairs: Path) -> None:
    image = Image.open(pairs / "LRx2" / "0.png")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "lr.png", icc_profile=profile, dpi=(300, 300))
    given = bundle(tmp_path)
    for suffix, lines in ((".png", []), (".webp", ["dpi"]), (".bmp", ["ICC profile"])):
        said: list[str] = []
        target = tmp_path / f"sr{suffix}"
        upscale_files(given, [tmp_path / "lr.png"], target, Levels(self_ensemble=False), say=said.append)
        assert said == [f"{target}: not kept of {tmp_path / 'lr.png'}: {lost}" for lost in lines]


@pytest.mark.parametrize("way", ["itself", "its folder", "a link", "another name", "the next"])
def test_a_result_never_replaces_an_image(tmp_path: Path, pairs: Path, way: str) -> None:
    folder = tmp_path / "photographs"
    shutil.copytree(pairs / "LRx2", folder)
    image, link = folder / "0.png", tmp_path / "sr.png"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    if way == "a link":
        link.symlink_to(image)
    elif way == "another name":
        link.hardlink_to(image)
    inputs, output = {
        "itself": ([image], image),
        "its folder": ([folder], folder),
        "the next": ([folder / "1.png", image], folder),
    }.get(way, ([image], link))
    with pytest.raises(
        DataError, match=r"a result must not replace an image, but this is .*/\d\.png; choose"
    ):
        upscale_files(bundle(tmp_path), inputs, output)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("family", "axes"),
    [
        ("drn", {"features": 4096, "blocks": 100, "stages": 3}),
        ("drn", {"features": 10**30, "blocks": 1, "stages": 1}),
        ("drn", {"features": 4, "blocks": 10**12, "stages": 1}),
        ("drn", {"features": 4, "blocks": 1, "stages": 10**12}),
        ("rcan", {"features": 4, "groups": 10**12, "blocks": 10**12}),
        ("dual_regression", {"features": 1, "blocks": 10**12}),
    ],
)
def test_a_manifest_that_names_giants_builds_nothing(
    tmp_path: Path, family: str, axes: dict[str, int]
) -> None:
    made = bundle(tmp_path)
    members = (Member(Architecture(family, axes), made.members[0].state, 1.0, {}, None),)
    with pytest.raises(BundleError, match="weights must fit their architecture, but it has not the"):
        load_networks(Bundle(made.manifest, members))
