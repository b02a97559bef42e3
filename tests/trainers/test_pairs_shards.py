"""Preparation at work: on several processes, interrupted, in little memory, beside damaged files."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpnas_trainers.pairs import PairsError, Rules, check_folder, open_pairs, prepare_folder
from gpnas_trainers.pairs.names import PairFiles
from gpnas_trainers.pairs.shards import SHARD_BYTES, SHARDS, deal


def make_folder(root: Path, count: int, height: int = 64, width: int = 64) -> Path:
    """Pairs that agree exactly: HR is LR, each pixel four times."""
    for name in ("HR", "LRx2"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        lr = np.random.default_rng(index).integers(0, 256, (height // 2, width // 2, 3), dtype=np.uint8)
        Image.fromarray(lr).save(root / "LRx2" / f"{index:04}.png")
        Image.fromarray(lr.repeat(2, axis=0).repeat(2, axis=1)).save(root / "HR" / f"{index:04}.png")
    return root


def fingerprints(folder: Path) -> list[str]:
    return [open_pairs(folder, side, verify=True).fingerprint for side in ("train", "validation")]


def test_deal_keeps_order_and_bounds() -> None:
    generator = np.random.default_rng(0)
    for count in (1, 5, 31, 32, 33, 100, 1000):
        pairs = [PairFiles(str(index), Path("hr"), None) for index in range(count)]
        sizes = [int(size) for size in generator.integers(1, 60 * 2**20, count)]
        sizes[count // 2] = 200 * 2**20  # more than a shard's bytes, alone
        shards = deal(pairs, sizes)
        assert [pair for shard in shards for pair in shard] == pairs
        assert max(map(len, shards)) <= math.ceil(count / SHARDS)
        for shard in shards:
            size = sum(sizes[int(pair.name)] for pair in shard)
            assert len(shard) == 1 or size <= SHARD_BYTES
    assert len(deal([PairFiles(str(i), Path("hr"), None) for i in range(1000)], [1] * 1000)) == 32


def test_one_truncated_file_among_many_is_one_line(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 40)
    victim = source / "HR" / "0017.png"
    victim.write_bytes(victim.read_bytes()[:2000])
    lines: list[str] = []
    folder = prepare_folder(source, tmp_path / "cache", 2, Rules(minimum_ncc=0.99), report=lines.append)
    assert len(lines) == 1
    assert lines[0].startswith(
        "HR/0017.png: excluded, an image must decode in full, but it is damaged or tru"
    )
    (exclusion,) = check_folder(source, 2).excluded
    assert (exclusion.line, exclusion.rule) == (lines[0], "readable")
    assert sum(len(open_pairs(folder, side)) for side in ("train", "validation")) == 39


def test_interrupted_work_is_gone_on_with(tmp_path: Path) -> None:
    """Twice interrupted, the third call finds what was finished; the set equals that of one go."""
    source = make_folder(tmp_path / "pairs", 70)
    (source / "HR" / "0003.png").write_bytes(b"")
    whole = prepare_folder(source, tmp_path / "whole", 2)
    begun = []
    seen: list[int] = []
    for stop in (20, 50, 1000):

        def progress(done: int, total: int, stop: int = stop) -> None:
            assert total == 70
            if len(seen) == 0:
                begun.append(done)
            seen.append(done)
            if done >= stop:
                raise KeyboardInterrupt

        seen.clear()
        lines: list[str] = []
        try:
            folder = prepare_folder(source, tmp_path / "cut", 2, report=lines.append, progress=progress)
        except KeyboardInterrupt:
            assert [path.suffix for path in (tmp_path / "cut").iterdir()] == [".partial"]
        assert seen == list(range(seen[0], seen[-1] + 1))
    assert begun[0] == 0
    assert 20 - 3 <= begun[1] <= 20  # a shard holds three pairs
    assert 50 - 3 <= begun[2] <= 50
    assert fingerprints(folder) == fingerprints(whole)
    assert (folder / "manifest.json").read_bytes() == (whole / "manifest.json").read_bytes()
    assert len(lines) == 1
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [folder.name]


def test_finished_shards_that_were_damaged_are_made_anew(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 8)

    def progress(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_folder(source, tmp_path / "cut", 2, progress=progress)
    (work,) = (tmp_path / "cut").iterdir()
    (work / "results-00001.json").write_text("[")
    (work / "pixels-00002.bin").unlink()
    os.truncate(work / "pixels-00003.bin", 100)
    with (work / "pixels-00004.bin").open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))
    results = json.loads((work / "results-00000.json").read_text())
    results[0]["measured"]["lr_shape"] = ["a", None]
    (work / "results-00000.json").write_text(json.dumps(results))
    (work / ".pixels-00006.bin.left-behind").write_bytes(b"half")
    folder = prepare_folder(source, tmp_path / "cut", 2)
    assert fingerprints(folder) == fingerprints(prepare_folder(source, tmp_path / "whole", 2))
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        *(f"pixels-{place:05}.bin" for place in range(8)),
    ]


SCRIPT = """
import sys
from gpnas_trainers.pairs import prepare_folder
def progress(done, total):
    print(done, flush=True)
if __name__ == "__main__":
    prepare_folder(sys.argv[1], sys.argv[2], 2, workers=2, progress=progress)
"""


def children(process: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if f"PPid:\t{process}\n" in status.read_text():
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc")
def test_a_killed_preparation_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    """Two processes at work, their parent killed; then the same set as by one process alone."""
    source = make_folder(tmp_path / "pairs", 40, height=256, width=256)
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(source), str(tmp_path / "cut")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 8:
            break
    workers = children(process.pid)
    assert len(workers) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)
    seen: list[int] = []
    folder = prepare_folder(source, tmp_path / "cut", 2, progress=lambda done, total: seen.append(done))
    assert seen[0] >= 8
    assert seen[-1] == 40
    alone = prepare_folder(source, tmp_path / "alone", 2)
    assert fingerprints(folder) == fingerprints(alone)
    assert (folder / "manifest.json").read_bytes() == (alone / "manifest.json").read_bytes()


def test_a_preparation_holds_few_images(tmp_path: Path) -> None:
    """Of 40 pairs no more than some are ever in memory: the peak does not grow with their number."""
    source = make_folder(tmp_path / "pairs", 40, height=192, width=192)
    pair = 3 * 192 * 192 * 5 / 4

    def peak(folder: Path) -> int:
        tracemalloc.start()
        try:
            prepare_folder(folder, tmp_path / "cache", 2)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    prepare_folder(make_folder(tmp_path / "first", 2), tmp_path / "cache", 2)  # imports what it needs
    few = peak(make_folder(tmp_path / "few", 6, height=192, width=192))
    many = peak(source)
    assert many < few + 4 * pair
    assert many < 20 * pair


def test_drawing_patches_maps_few_shards_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpnas_trainers.pairs.prepared as prepared

    folder = prepare_folder(make_folder(tmp_path / "pairs", 12), tmp_path / "cache", 2)
    free = open_pairs(folder, "train").patches(64, 32, np.random.default_rng(0))
    monkeypatch.setattr(prepared, "OPEN_SHARDS", 3)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    train = open_pairs(folder, "train")
    bound = train.patches(64, 32, np.random.default_rng(0))
    assert all((one == two).all() for one, two in zip(free, bound, strict=True))
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 3


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "pairs", 2)
    for words, options in (
        ("`0 <= ncc <= 1` must hold, but got 1.5", {"minimum_ncc": 1.5}),
        ("`0 <= ncc <= 1` must hold, but got nan", {"minimum_ncc": float("nan")}),
        ("`shift > 0` must hold, but got -1", {"maximum_shift": -1.0}),
        ("`minimum_side >= 1` must hold, but got 0", {"minimum_side": 0}),
        ("`max_validation >= 1` must hold, but got 0", {"max_validation": 0}),
        ("`workers >= 1` must hold, but got 0", {"workers": 0}),
    ):
        workers = int(options.pop("workers", 1))
        with pytest.raises(PairsError, match=words):
            prepare_folder(source, tmp_path / "cache", 2, Rules(**options), workers=workers)


def test_registered_captures_are_downsampled_on_demand(tmp_path: Path) -> None:
    """LR of HR's size: with Pillow's own bicubic reduction, to the rounding; else a rule is broken."""
    from skimage.data import astronaut

    names = ["001", "002", "003"]
    (tmp_path / "City100").mkdir()
    captures = {}
    for place, name in enumerate(names):
        hr = astronaut()[100 * place : 100 * place + 99, 100:231]
        captures[name] = np.asarray(Image.fromarray(hr).resize((44, 33)).resize((131, 99)))
        Image.fromarray(np.ascontiguousarray(hr)).save(tmp_path / "City100" / f"{name}H.PNG")
        Image.fromarray(captures[name]).save(tmp_path / "City100" / f"{name}L.PNG")
    with pytest.raises(
        PairsError, match=r"LR is as large as HR, as registered captures are: prepare .* --downsample-lr"
    ):
        prepare_folder(tmp_path / "City100", tmp_path / "cache", 3)
    folder = prepare_folder(
        tmp_path / "City100", tmp_path / "cache", 3, Rules(downsample_lr=True, minimum_ncc=0.9)
    )
    found = 0
    for side in ("train", "validation"):
        pairs = open_pairs(folder, side)
        for index, name in enumerate(pairs.names):
            lr, hr = pairs.image(index)
            assert hr.shape == (3, 99, 129)
            small = Image.fromarray(captures[name][:, :129]).resize((43, 33), Image.Resampling.BICUBIC)
            assert abs(lr.transpose(1, 2, 0).astype(int) - np.asarray(small)).max() <= 1
            found += 1
    assert found == len(names)


def test_a_limit_on_the_shift(tmp_path: Path) -> None:
    """A pair whose LR is three pixels to the right is left out, with its shift."""
    from skimage.data import astronaut, coffee

    for folder in ("HR", "LRx2"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
    for name, moved in (("near", 0), ("far", 3), ("other", 0)):
        hr = {"near": astronaut()[:200, :200], "far": coffee()[:200, :200], "other": coffee()[200:, 200:400]}[
            name
        ]
        lr = hr.reshape(100, 2, 100, 2, 3).mean(axis=(1, 3))
        Image.fromarray(np.ascontiguousarray(hr)).save(tmp_path / "pairs" / "HR" / f"{name}.png")
        Image.fromarray(np.roll(lr, moved, axis=1).astype(np.uint8)).save(
            tmp_path / "pairs" / "LRx2" / f"{name}.png"
        )
    (exclusion,) = check_folder(tmp_path / "pairs", 2, Rules(maximum_shift=0.5)).excluded
    assert (exclusion.file, exclusion.rule) == ("LRx2/far.png", "shift")
    down, right = (float(word) for word in exclusion.value.replace("and ", "").split() if word[0] in "+-")
    assert abs(down) < 0.1
    assert abs(right - 3) < 0.1
    assert exclusion.why.startswith("LR must lie within 0.5 LR pixels of HR, but lies ")
