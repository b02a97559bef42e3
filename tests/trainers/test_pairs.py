"""Prepared sets: what they hold, that they are whole, and the patches drawn from them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gpnas_trainers.images import read_levels
from gpnas_trainers.pairs import (
    PHOTOGRAPHS,
    Camera,
    PairsError,
    PairSet,
    Rules,
    bicubic_upscale,
    cache_folder,
    check_folder,
    ncc,
    open_pairs,
    prepare,
    prepare_folder,
    prepare_photographs,
)
from gpnas_trainers.pairs.prepared import dihedral

CITY100 = Path(__file__).parents[3] / "shared" / "data" / "city100"


def picture(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cells(hr: np.ndarray, scale: int) -> np.ndarray:
    """Top-left pixel of each cell: an LR whose alignment with HR can be checked exactly."""
    return np.ascontiguousarray(hr[::scale, ::scale])


def make_folder(root: Path, count: int = 6, scale: int = 2, height: int = 64, width: int = 80) -> Path:
    for name in ("HR", f"LRx{scale}"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        hr = picture(height, width + 2 * scale * index, index)
        Image.fromarray(hr).save(root / "HR" / f"{index:03}.png")
        Image.fromarray(cells(hr, scale)).save(root / f"LRx{scale}" / f"{index:03}.png")
    return root


def both(folder: Path) -> tuple[PairSet, PairSet]:
    return open_pairs(folder, "train", verify=True), open_pairs(folder, "validation", verify=True)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_photographs(tmp_path_factory.mktemp("cache"), 3)


def test_photographs_are_split_by_photograph(photographs: Path) -> None:
    train, validation = both(photographs)
    assert set(train.names) | set(validation.names) == {photograph.name for photograph in PHOTOGRAPHS}
    assert not set(train.hr_sha256) & set(validation.hr_sha256)
    assert validation.names == ("chelsea", "china")
    assert len(train) >= 5


def test_photographs_are_those_of_the_packages(photographs: Path) -> None:
    import skimage.data
    import sklearn.datasets

    train, validation = both(photographs)
    chelsea = skimage.data.chelsea().transpose(2, 0, 1)
    china = sklearn.datasets.load_sample_image("china.jpg").transpose(2, 0, 1)
    for name, original in (("chelsea", chelsea), ("china", china)):
        lr, hr = validation.image(validation.names.index(name))
        height, width = (side // 3 * 3 for side in original.shape[1:])
        np.testing.assert_array_equal(hr, original[:, :height, :width])
        assert lr.shape == (3, height // 3, width // 3)
        up = bicubic_upscale(torch.from_numpy(lr).float() / 255, 3).numpy()
        mse = float(((up - hr / 255) ** 2).mean())
        assert 18 < -10 * np.log10(mse) < 35
    assert all(ncc(*train.image(index), 3) > 0.95 for index in range(len(train)))


def test_photographs_are_prepared_once(photographs: Path) -> None:
    before = (photographs / "manifest.json").stat().st_mtime_ns
    assert prepare_photographs(photographs.parent, 3) == photographs
    assert (photographs / "manifest.json").stat().st_mtime_ns == before
    assert [path.name for path in photographs.parent.iterdir()] == [photographs.name]
    document = json.loads((photographs / "manifest.json").read_text())
    assert document["licences"]["china"].startswith("CC BY 2.0")
    assert document["source"]["camera"]["kernel_sigma"] == list(Camera().kernel_sigma)


def test_folder_is_read_as_it_is(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs")
    train, validation = both(prepare_folder(source, tmp_path / "cache", 2, Rules(validation_fraction=0.34)))
    assert sorted(train.names + validation.names) == [f"{index:03}" for index in range(6)]
    assert len(validation) == 2
    for pairs in (train, validation):
        for index, name in enumerate(pairs.names):
            lr, hr = pairs.image(index)
            np.testing.assert_array_equal(hr.transpose(1, 2, 0), read_levels(source / "HR" / f"{name}.png"))
            np.testing.assert_array_equal(lr.transpose(1, 2, 0), read_levels(source / "LRx2" / f"{name}.png"))
            assert pairs.hr_sha256[index] == hashlib.sha256(hr.tobytes()).hexdigest()
    assert train.smallest_side == 64


def test_names_with_endings_are_matched(tmp_path: Path) -> None:
    for folder, name in (
        ("hr", "a_HR"),
        ("hr", "b"),
        ("hr", "c_x1"),
        ("lr", "a_LR2"),
        ("lr", "bx2"),
        ("lr", "c_x2"),
    ):
        (tmp_path / "pairs" / folder).mkdir(parents=True, exist_ok=True)
        hr = picture(48, 48, ord(name[0]))
        Image.fromarray(hr if folder == "hr" else cells(hr, 2)).save(
            tmp_path / "pairs" / folder / f"{name}.png"
        )
    lines: list[str] = []
    train, validation = both(prepare_folder(tmp_path / "pairs", tmp_path / "cache", 2, report=lines.append))
    assert sorted(train.names + validation.names) == ["a", "b", "c"]
    assert lines == []


def test_each_exclusion_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 12)
    hr, lr = source / "HR", source / "LRx2"
    (hr / "000.png").write_bytes((hr / "000.png").read_bytes()[:3000])
    Image.fromarray(picture(64, 84, 1)).convert("L").save(hr / "001.png")
    Image.fromarray(picture(32, 44, 2)).convert("RGBA").save(lr / "002.png")
    Image.fromarray(picture(32, 40, 3)).save(lr / "003.png")  # HR is wider
    (lr / "004.png").unlink()
    (hr / "005.png").unlink()
    Image.fromarray(picture(40, 80, 6)).save(hr / "006.png")
    Image.fromarray(picture(20, 40, 6)).save(lr / "006.png")
    (hr / "008.png").write_bytes((hr / "007.png").read_bytes())
    (lr / "008.png").write_bytes((lr / "007.png").read_bytes())
    (hr / "notes.txt").write_text("not an image, not mentioned")
    lines: list[str] = []
    folder = prepare_folder(source, tmp_path / "cache", 2, report=lines.append)
    train, validation = both(folder)
    assert sorted(train.names + validation.names) == ["007", "009", "010", "011"]
    rules = {
        "HR/000.png": "must decode in full",
        "HR/001.png": "but got grey",
        "LRx2/002.png": "but got RGB with alpha",
        "LRx2/003.png": "HR must be 2 times as large as LR, but got LR 40×32 and HR 92×64",
        "HR/004.png": "LR has no 004",
        "LRx2/005.png": "HR has no 005",
        "HR/006.png": "at least 48 pixels (a recipe's hr_patch, or --minimum-side), but got 80×40",
        "HR/008.png": "equal those of 007",
    }
    assert len(lines) == len(rules)
    for name, words in rules.items():
        (line,) = (line for line in lines if line.startswith(f"{name}: excluded, "))
        assert words in line
        assert "\n" not in line
    again: list[str] = []
    assert prepare_folder(source, tmp_path / "cache", 2, report=again.append) == folder
    assert again == lines


def test_equal_hr_is_never_on_both_sides(tmp_path: Path) -> None:
    """Whatever the seed: every second image is a copy under another name and in another format."""
    source = make_folder(tmp_path / "pairs", 4)
    for index in range(4):
        Image.fromarray(read_levels(source / "HR" / f"{index:03}.png")).save(
            source / "HR" / f"copy{index}.bmp"
        )
        Image.fromarray(picture(32, 40 + 2 * index, 50 + index)).save(source / "LRx2" / f"copy{index}.png")
    for seed in range(5):
        train, validation = both(prepare_folder(source, tmp_path / "cache", 2, Rules(seed=seed)))
        assert not set(train.hr_sha256) & set(validation.hr_sha256)
        assert len(train) + len(validation) == 4


def test_split_depends_on_seed_and_pixels_alone(tmp_path: Path) -> None:
    one = make_folder(tmp_path / "one", 10)
    two = tmp_path / "two"
    one_folders = [prepare_folder(one, tmp_path / "cache", 2, Rules(seed=seed)) for seed in range(4)]
    os.rename(one, two)
    for index in range(10):  # other names, the reverse order
        for name in ("HR", "LRx2"):
            (two / name / f"{index:03}.png").rename(two / name / f"z{9 - index}.png")
    held = []
    for seed, folder in enumerate(one_folders):
        first = set(open_pairs(folder, "validation").hr_sha256)
        second = set(
            open_pairs(prepare_folder(two, tmp_path / "cache", 2, Rules(seed=seed)), "validation").hr_sha256
        )
        assert first == second
        held.append(frozenset(first))
    assert len(set(held)) > 1


def test_size_of_the_validation(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 10)
    sizes = []
    for fraction, limit in ((0.2, 10), (0.5, 10), (0.5, 3), (0.01, 10), (1.0, None)):
        folder = prepare_folder(
            source, tmp_path / "cache", 2, Rules(validation_fraction=fraction, max_validation=limit)
        )
        sizes.append(tuple(len(pairs) for pairs in both(folder)))
    assert sizes == [(8, 2), (5, 5), (7, 3), (9, 1), (0, 10)]


def test_wrong_scale_is_said_with_sizes(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 3, scale=2)
    (source / "LRx2").rename(source / "LR")
    with pytest.raises(PairsError) as caught:
        prepare_folder(source, tmp_path / "cache", 4)
    assert str(caught.value) == (
        f"{source}: HR must be 4 times as large as LR, but in none of 3 pairs it is "
        "(LR/000.png: LR 40×32, HR 80×64); they fit scale 2: choose that, or bring the LR images of scale 4"
    )
    for index in range(3):
        (source / "LR" / f"{index:03}.png").write_bytes((source / "HR" / f"{index:03}.png").read_bytes())
    with pytest.raises(PairsError, match="LR is as large as HR, as registered captures are"):
        prepare_folder(source, tmp_path / "cache", 2)
    assert not list((tmp_path / "cache").iterdir())


def test_layouts_and_arguments_that_cannot_be(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 3, scale=2)
    cache = tmp_path / "cache"
    with pytest.raises(
        PairsError, match=r"must hold HR and LRx3 \(or LR\), .* but got HR, LRx2 with 3 HR and 0 LR images"
    ):
        prepare_folder(source, cache, 3)
    with pytest.raises(PairsError, match="must exist, but there is none"):
        prepare_folder(tmp_path / "none", cache, 2)
    with pytest.raises(PairsError, match="integer of at least 2, but got 1"):
        prepare_folder(source, cache, 1)
    with pytest.raises(PairsError, match="`0 < validation_fraction <= 1` must hold, but got 0"):
        prepare_folder(source, cache, 2, Rules(validation_fraction=0))
    for index in (1, 2):
        (source / "HR" / f"{index:03}.png").unlink()
    with pytest.raises(PairsError, match="need at least one pair each, but got 1 usable"):
        prepare_folder(source, cache, 2)
    (source / "HR" / "000.png").rename(source / "HR" / "new.png")
    with pytest.raises(PairsError, match=r"4 files were excluded, the first: LRx2/000.png: excluded"):
        prepare_folder(source, cache, 2)
    (source / "HR" / "new.png").unlink()
    with pytest.raises(PairsError, match=r"but got HR, LRx2 with 0 HR and 3 LR images of this scale"):
        prepare_folder(source, cache, 2)
    assert not cache.exists() or not list(cache.iterdir())


def test_hr_is_cropped_where_it_is_not_a_multiple(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 2)
    hr = picture(65, 81, 9)
    Image.fromarray(hr).save(source / "HR" / "odd.png")
    Image.fromarray(cells(hr[:64, :80], 2)).save(source / "LRx2" / "odd.png")
    train, validation = both(prepare_folder(source, tmp_path / "cache", 2))
    pairs = train if "odd" in train.names else validation
    np.testing.assert_array_equal(pairs.image(pairs.names.index("odd"))[1].transpose(1, 2, 0), hr[:64, :80])


def test_misaligned_pairs_are_excluded_on_demand(tmp_path: Path) -> None:
    """A shifted pair falls below the limit."""
    source = make_folder(tmp_path / "pairs", 0)
    y, x = np.mgrid[:64, :64]
    for index in range(4):
        wave = (128 + 100 * np.sin(x / 5 + index) * np.cos(y / 4)).astype(np.uint8)
        hr = np.stack([wave] * 3, axis=2)
        Image.fromarray(hr).save(source / "HR" / f"{index}.png")
        lr = hr.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
        Image.fromarray(np.roll(lr, 3, axis=1) if index == 2 else lr).save(source / "LRx2" / f"{index}.png")
    lines: list[str] = []
    prepare_folder(source, tmp_path / "cache", 2, Rules(minimum_ncc=0.99), report=lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("LRx2/2.png: excluded, LR and HR must agree to an NCC of 0.99, but got ")


def test_changed_files_are_prepared_anew(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs")
    first = prepare_folder(source, tmp_path / "cache", 2)
    os.utime(source / "HR" / "000.png", (1, 1))
    assert prepare_folder(source, tmp_path / "cache", 2) != first


def damage_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": "gpnas-pairs"')


def damage_shape(folder: Path) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    document["images"][0]["lr_shape"] = [-1, 5]
    (folder / "manifest.json").write_text(json.dumps(document))


def damage_size(folder: Path) -> None:
    os.truncate(folder / "pixels-00003.bin", 1000)


def damage_missing(folder: Path) -> None:
    (folder / "pixels-00000.bin").unlink()


def damage_pixels(folder: Path) -> None:
    with (folder / "pixels-00002.bin").open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))


def damage_pipe(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


def damage_link(folder: Path) -> None:
    shard = folder / "pixels-00000.bin"
    shard.rename(folder / "elsewhere")
    shard.symlink_to("elsewhere")


def damage_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"no folder")


def damaged_field(*path: Any) -> Callable[[Path], None]:
    """Sets a value of the manifest, which the last item is."""

    def damage(folder: Path) -> None:
        document = json.loads((folder / "manifest.json").read_text())
        *places, last, value = path
        place = document
        for each in places:
            place = place[each]
        place[last] = value
        (folder / "manifest.json").write_text(json.dumps(document))

    return damage


DAMAGES = {
    "manifest": damage_manifest,
    "shape": damage_shape,
    "size": damage_size,
    "missing": damage_missing,
    "pixels": damage_pixels,
    "pipe": damage_pipe,
    "link": damage_link,
    "folder": damage_folder,
    "nesting": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "bytes": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"),
    "excluded": damaged_field("excluded", [{"file": 1}]),
    "scale": damaged_field("scale", "two"),
    "split": damaged_field("images", 0, "split", "test"),
    "name": damaged_field("images", 0, "name", 7),
    "offset": damaged_field("images", 0, "hr_offset", "64"),
    "groups": damaged_field("groups", 5),
    "source": damaged_field("source", None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_sets_are_made_anew_and_said(tmp_path: Path, damage: str) -> None:
    source = make_folder(tmp_path / "pairs")
    folder = prepare_folder(source, tmp_path / "cache", 2)
    fingerprint = open_pairs(folder, "train").fingerprint
    DAMAGES[damage](folder)
    with pytest.raises(PairsError, match="prepare") as caught:
        open_pairs(folder, "train", verify=True)
    assert "\n" not in str(caught.value)
    lines: list[str] = []
    assert prepare_folder(source, tmp_path / "cache", 2, report=lines.append) == folder
    assert open_pairs(folder, "train", verify=True).fingerprint == fingerprint
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert len(lines) == 1
    assert lines[0].startswith(f"{folder}: ")
    assert lines[0].endswith("; it is a cache, and made anew")


def test_flipped_bits_are_found_when_asked(tmp_path: Path) -> None:
    folder = prepare_folder(make_folder(tmp_path / "pairs"), tmp_path / "cache", 2)
    with (folder / "pixels-00000.bin").open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))
    open_pairs(folder, "train")
    with pytest.raises(PairsError, match="the pixels of 000 must have the manifest's SHA-256"):
        open_pairs(folder, "train", verify=True)


def test_other_versions_and_missing_sets_are_refused(tmp_path: Path) -> None:
    folder = prepare_folder(make_folder(tmp_path / "pairs"), tmp_path / "cache", 2)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"version": 2', '"version": 3'))
    with pytest.raises(PairsError, match="must be of version 2, but got 3"):
        open_pairs(folder, "train")
    with pytest.raises(PairsError, match=r"manifest.json is missing; prepare them first"):
        open_pairs(tmp_path, "train")
    with pytest.raises(ValueError, match="must be train or validation, but got 'test'"):
        open_pairs(folder, "test")  # type: ignore[arg-type]


def test_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file sizes stands in for the full disk: the same path through write and flush. No pair
    fits, so that nothing is left to go on with."""
    source = make_folder(tmp_path / "pairs", 4, height=400, width=400)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        with pytest.raises(PairsError, match=r"must be writable, but the disk is full; free some space or"):
            prepare_folder(source, tmp_path / "cache", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(PairsError, match="must be writable, but got Not a directory"):
        prepare_folder(source, tmp_path / "file" / "cache", 2)


def test_remains_of_killed_preparations_are_swept(tmp_path: Path) -> None:
    old, new = (tmp_path / "cache" / f".set-x2-{name}.partial" for name in ("old", "new"))
    for left, days in ((old, 8), (new, 6)):
        left.mkdir(parents=True)
        then = time.time() - 86_400 * days
        os.utime(left, (then, then))
    prepare_folder(make_folder(tmp_path / "pairs"), tmp_path / "cache", 2)
    assert not old.exists()
    assert new.exists()  # someone may go on with it


def test_two_processes_prepare_at_once(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 8, height=200, width=200)
    script = (
        "import sys; from gpnas_trainers.pairs import prepare_folder, open_pairs\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "folder = prepare_folder(sys.argv[1], sys.argv[2], 2)\n"
        "print(open_pairs(folder, 'train', verify=True).fingerprint)\n"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "cache")]
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    alone = prepare_folder(source, tmp_path / "alone", 2)
    assert outputs == [f"{open_pairs(alone, 'train').fingerprint}\n"] * 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_pair_sets_travel_and_share(tmp_path: Path) -> None:
    folder = prepare_folder(make_folder(tmp_path / "pairs"), tmp_path / "cache", 2)
    pairs = open_pairs(folder, "train")
    before = pairs.image(0)[0].copy()
    blob = pickle.dumps(pairs)
    assert len(blob) < 5000  # no pixels
    twin = pickle.loads(blob)
    assert twin.fingerprint == pairs.fingerprint
    np.testing.assert_array_equal(twin.image(0)[0], before)
    torch.from_numpy(pairs.image(0)[0]).zero_()  # no warning, and it does not reach the files
    np.testing.assert_array_equal(twin.image(0)[0], before)
    np.testing.assert_array_equal(open_pairs(folder, "train", verify=True).image(0)[0], before)


def test_head_and_fingerprints(tmp_path: Path) -> None:
    folder = prepare_folder(make_folder(tmp_path / "pairs"), tmp_path / "cache", 2)
    train, validation = both(folder)
    assert train.head(2).names == train.names[:2]
    assert train.head(99).fingerprint == train.head(None).fingerprint == train.fingerprint
    assert len({train.fingerprint, validation.fingerprint, train.head(2).fingerprint}) == 3


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_are_aligned_crops_of_the_pairs(tmp_path: Path, scale: int) -> None:
    """LR is the top-left pixel of each cell, so that under any of the eight transforms the LR patch is
    one corner of the HR patch's cells; and each HR patch lies in an image, turned one of eight ways."""
    source = make_folder(tmp_path / "pairs", 3, scale=scale, height=24 * scale, width=25 * scale)
    train, _ = both(prepare_folder(source, tmp_path / "cache", scale))
    lr, hr = train.patches(64, 6 * scale, np.random.default_rng(0))
    assert lr.shape == (64, 3, 6, 6)
    assert hr.shape == (64, 3, 6 * scale, 6 * scale)
    assert lr.dtype == hr.dtype == torch.float32
    last = scale - 1
    corners = [hr[..., dy::scale, dx::scale] for dy in (0, last) for dx in (0, last)]
    assert all(any(torch.equal(lr[row], corner[row]) for corner in corners) for row in range(64))
    images = [train.image(index)[1] for index in range(len(train))]
    windows = [np.lib.stride_tricks.sliding_window_view(each[0], (6 * scale, 6 * scale)) for each in images]
    for row in range(0, 64, 8):
        pixels = (hr[row, 0] * 255).round().to(torch.uint8).numpy()
        ways = [np.rot90(each, turns) for each in (pixels, pixels.T) for turns in range(4)]
        assert any((window == way).all(axis=(2, 3)).any() for window in windows for way in ways)


def test_patches_are_uniform_and_a_function_of_the_generator(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 3, height=48, width=48)
    train, _ = both(prepare_folder(source, tmp_path / "cache", 2, Rules(minimum_side=48)))
    first, again = (train.patches(16, 16, np.random.default_rng(5)) for _ in range(2))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    # One pixel patches: which of a picture's LR pixels they hold is uniform, corners included.
    lr, _ = train.patches(60_000, 2, np.random.default_rng(6))
    drawn = (lr[:, :, 0, 0] * 255).round().long()
    codes, counts = torch.unique((drawn * torch.tensor([1, 256, 65536])).sum(dim=1), return_counts=True)
    positions = sum(height * width for height, width in train.shapes)
    assert len(codes) == pytest.approx(positions, abs=10)  # equal colours are rare in noise
    chi_square = float(((counts - 60_000 / positions) ** 2).sum() / (60_000 / positions))
    assert chi_square < positions + 6 * (2 * positions) ** 0.5


def test_dihedral_is_the_group_of_the_square() -> None:
    square = np.arange(9, dtype=np.uint8).reshape(1, 3, 3)
    mine = {dihedral(square, transform).tobytes() for transform in range(8)}
    group = {np.rot90(each, turns).tobytes() for each in (square[0], square[0].T) for turns in range(4)}
    assert mine == group


def test_patches_that_cannot_be(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 4)
    Image.fromarray(picture(48, 48, 77)).save(source / "HR" / "small.png")
    Image.fromarray(picture(24, 24, 78)).save(source / "LRx2" / "small.png")
    train, _ = both(prepare_folder(source, tmp_path / "cache", 2, Rules(validation_fraction=0.2)))
    with pytest.raises(ValueError, match="positive multiple of the scale 2, but got 33"):
        train.patches(1, 33, np.random.default_rng(0))
    with pytest.raises(PairsError, match="a patch of 66 HR pixels must fit into some pair"):
        train.patches(1, 66, np.random.default_rng(0))
    assert train.patches(8, 64, np.random.default_rng(0))[1].shape == (8, 3, 64, 64)  # passes the small one


def test_cache_folder_and_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("GPNAS_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "gpnas"
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "mine"))
    source = make_folder(tmp_path / "pairs")
    assert prepare(source, 2, Rules(minimum_ncc=0)) == prepare_folder(source, tmp_path / "mine", 2)
    with pytest.raises(PairsError, match=r"NCC of 0\.99, but of 6 pairs none does"):
        prepare(source, 2)  # the paper's limit, and LR here is the corner of each cell


def test_a_prepared_set_is_its_own_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a folder that holds one of the scale; a larger patch finds the set that already fits it."""
    monkeypatch.setenv("GPNAS_CACHE", str(tmp_path / "cache"))
    source = make_folder(tmp_path / "pairs", height=96, width=96)
    two = prepare_folder(source, tmp_path / "sets", 2)
    assert prepare(two, 2) == prepare(tmp_path / "sets", 2) == two
    with pytest.raises(PairsError, match=r"must be one set of scale 3, but got pairs-x2-\w+ of scale 2"):
        prepare(two, 3)
    again = prepare_folder(source, tmp_path / "sets", 2, Rules(seed=1))
    with pytest.raises(PairsError, match=f"but got .*{again.name} of scale 2"):
        prepare(tmp_path / "sets", 2)
    assert prepare_folder(source, tmp_path / "sets", 2, Rules(minimum_side=96)) == two
    with pytest.raises(
        PairsError, match=r"at least 98 pixels \(a recipe's hr_patch, .* the largest 96×96; take smaller"
    ):
        prepare_folder(source, tmp_path / "sets", 2, Rules(minimum_side=98))


@pytest.mark.skipif(not CITY100.is_dir(), reason="City100 is not beside the checkout")
def test_city100(tmp_path: Path) -> None:
    lines: list[str] = []
    train, validation = both(prepare_folder(CITY100, tmp_path, 4, report=lines.append))
    assert lines == []
    assert (len(train), len(validation)) == (90, 10)
    psnrs = []
    for index in range(len(validation)):
        lr, hr = validation.image(index)
        assert (lr.shape, hr.shape) == ((3, 120, 120), (3, 480, 480))
        up = bicubic_upscale(torch.from_numpy(lr).double() / 255, 4).numpy()
        psnrs.append(-10 * np.log10(((up - hr / 255) ** 2).mean()))
    assert 22 < np.mean(psnrs) < 27  # around 24.5 dB, as others measured


@pytest.mark.skipif(not CITY100.is_dir(), reason="City100 is not beside the checkout")
def test_city100_keeps_the_share_that_was_measured_at_lr_size() -> None:
    """About 85 % of the pairs at ×3, as others measured; and its authors' registration is sub-pixel."""
    checked = check_folder(CITY100, 3, Rules(minimum_ncc=0.99))
    assert 80 <= len(checked.usable) <= 90
    assert {exclusion.rule for exclusion in checked.excluded} == {"ncc"}
    shifts = [each.measured.shift for each in checked.usable if each.measured is not None]
    assert all(shift is not None and np.hypot(*shift) < 0.5 for shift in shifts)
    assert checked.split is not None
    assert checked.split.groups == ()  # a hundred different postcards
