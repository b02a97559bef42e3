"""What a trained network keeps of its residuals SR - HR, such that mean products with any other's follow.

Only products are wanted, so only they are kept exact. With B the bicubic image, every residual is
r = d + b of a network's own d = SR - B and of b = B - HR, which all have in common; therefore

    mean(r_i r_j) = mean(d_i d_j) + mean(d_i b) + mean(d_j b) + mean(b b)

The last three are numbers, kept in float64 as mean(r_i r_i) is. Of d, which is smooth, an orthonormal
transform is kept, since products are the same in it: cosines over blocks of 16×16 pixels (Ahmed, Natarajan
and Rao, IEEE Trans. Computers C-23, 1974) and over the colours, rounded to 1/32 of a grey level, byte by
byte in deflate. The step that is written is stretched to where what rounding took has no product with d.

    errors.safetensors    tensors `0003.00`, `0003.01`, …: uint8, strips of an image's coefficients
                          metadata: `images`, for each its shape, steps and the numbers above

Former versions kept r itself as float16, more than twice as large, in `residuals.safetensors`. Such files are
read, and a run that has them goes on with them, as the two cannot be multiplied with each other.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import pad

from gpnas.errors import TrialError
from gpnas.run.storage import Storage
from gpnas_trainers.pairs import PairSet, bicubic_upscale

ERRORS_FILE = "errors.safetensors"
FORMER_FILE = "residuals.safetensors"

STEP = 1 / 32 / 255
"""Of the rounding: 1/32 of a grey level. Products are then closer than those of float16 are."""
BLOCK = 16
"""Side of a block in pixels; an image is continued by zeros to whole ones."""
BYTES = 3
"""Of a coefficient: |d| <= 1, so that one is at most 16 √3 / STEP < 2^18."""
STRIP = 2**17
"""So many coefficients, or a row of blocks, are packed and multiplied at a time."""
TOGETHER = 8
"""So many networks' files are read at a time beside one's own, which unpacking takes as long."""
WIDEST = 2**16
"""Of an image in pixels, as far as a file is believed."""
MISTAKES = (ValueError, LookupError, TypeError, OverflowError)
"""What comes of a description that is none."""


def write_errors(storage: Storage, folder: str, network: nn.Module, pairs: PairSet) -> None:
    """Keeps what a trained network's residuals on every image of `pairs` have to tell, in its folder.

    Raises:
        OSError: the storage cannot be written.
    """
    parent = folder.rpartition("/")[0]
    if any(name.endswith(f"/{FORMER_FILE}") for name in storage.names(parent)):
        halves = {f"{index:04d}": (sr - hr).half() for index, (sr, hr, _) in _outputs(network, pairs)}
        storage.write(f"{folder}/{FORMER_FILE}", save(halves))
        return
    tensors: dict[str, Tensor] = {}
    images = {}
    for index, (sr, hr, bicubic) in _outputs(network, pairs):
        name = f"{index:04d}"
        own, common = sr.double() - bicubic.double(), bicubic.double() - hr.double()
        strips = [packed(strip) for strip in _strips(own)]
        tensors |= {_key(name, place): data for place, (data, _) in enumerate(strips)}
        images[name] = {
            "shape": list(own.shape),
            "steps": [step for _, step in strips],
            "square": float((own + common).square().mean()),
            "with_common": float((own * common).mean()),
            "common": float(common.square().mean()),
        }
    storage.write(f"{folder}/{ERRORS_FILE}", save(tensors, {"images": json.dumps(images)}))


def errors_name(storage: Storage, folder: str) -> str:
    """What a trained network's file in its folder is called, whichever version wrote it."""
    former = f"{folder}/{FORMER_FILE}"
    return former if storage.exists(former) else f"{folder}/{ERRORS_FILE}"


def residual_products(files: Sequence[Path], first: int = 0) -> Tensor:  # (I, n, n - first)
    """Mean products of the residuals in all n files with those in the last, per image, in float64.

    Args:
        files: of each network, as `write_errors` or a former version made them.
        first: file from which on products are wanted.

    Raises:
        TrialError: a file is missing or damaged, or they are not of the same images.
    """
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(safe_open(path, "pt")) for path in files]
            described = [(file.metadata() or {}).get("images", "") for file in opened]
            if not any(described):
                return _former_products(opened, first)
            if not all(described):
                raise ValueError("some are of a former version, some are not")
            return _products(opened, [json.loads(each) for each in described], first)
        except (
            OSError,
            SafetensorError,
            RuntimeError,
            ValueError,
            LookupError,
            TypeError,
            OverflowError,
        ) as error:
            raise unreadable(str(Path(files[0]).parents[1]), error) from None


def unreadable(where: str, error: Exception) -> TrialError:
    """That residuals in a storage or a folder cannot be read, and why."""
    return TrialError(
        f"{where}: every trained network's residuals must be readable, but "
        f"{' '.join(str(error).split())}; remove the damaged file and start the search or training "
        "again, which makes it anew"
    )


def error_correlations(storage: Storage, folder: str) -> dict[str, float]:
    """Of a finished candidate's errors with those of every other that has finished, by name.

    Each publishes its residuals before it reads the others', so of two that end at once one sees both.
    """
    parent, _, own_name = folder.rpartition("/")
    own_file = errors_name(storage, folder).rpartition("/")[2]
    others = [
        name.removeprefix(f"{parent}/").partition("/")[0]
        for name in sorted(storage.names(parent))
        if name.endswith(f"/{own_file}") and name != f"{folder}/{own_file}"
    ]

    def found(names: Sequence[str]) -> dict[str, float]:
        with ExitStack() as stack:
            paths = [
                stack.enter_context(storage.reading(f"{parent}/{name}/{own_file}"))
                for name in [*names, own_name]
            ]
            mean = residual_products(paths).mean(dim=0)
        size = mean.diagonal().sqrt()
        return dict(
            zip(names, (mean[:-1, -1] / (size[:-1] * size[-1]).clamp_min(1e-30)).tolist(), strict=True)
        )

    correlations: dict[str, float] = {}
    for first in range(0, len(others), TOGETHER):
        group = others[first : first + TOGETHER]
        try:
            correlations |= found(group)
        except (OSError, TrialError):
            for name in group:
                with suppress(OSError, TrialError):  # one that is damaged will be missed where it is needed
                    correlations |= found([name])
    return correlations


def packed(values: Tensor) -> tuple[Tensor, float]:
    """Differences (3, H, W) in [-1, 1], float64, as bytes, and the step that their integers count."""
    exact = _transformed(values).flatten()
    rounded = (exact / STEP).round()
    along = float(rounded @ exact)
    step = float(exact @ exact) / along if along > 0 else STEP
    whole = rounded.numpy().astype(np.int32)
    unsigned = ((whole << 1) ^ (whole >> 31)).astype(np.uint32)  # 0, -1, 1, -2, … as 0, 1, 2, 3, …
    planes = b"".join((unsigned >> 8 * place).astype(np.uint8).tobytes() for place in range(BYTES))
    deflate = zlib.compressobj(6, strategy=zlib.Z_FILTERED)
    data = deflate.compress(planes) + deflate.flush()
    return torch.frombuffer(bytearray(data), dtype=torch.uint8), step


def unpacked(data: Tensor, step: float, count: int) -> Tensor:  # (count,) float32
    """The coefficients that `packed` made, of which there must be `count`; never more are unpacked.

    Raises:
        ValueError: these bytes are not such.
    """
    if data.dtype != torch.uint8:
        raise ValueError(f"packed residuals must be of uint8, but are of {data.dtype}")
    inflate = zlib.decompressobj()
    try:
        planes = inflate.decompress(data.numpy().tobytes(), BYTES * count)
        more = b"" if inflate.eof else inflate.decompress(inflate.unconsumed_tail, 1)
    except zlib.error as error:
        raise ValueError(f"packed residuals are damaged: {error}") from None
    if len(planes) != BYTES * count or more or not inflate.eof or inflate.unused_data:
        raise ValueError(f"packed residuals must be {count} numbers, but are more or less")
    low, middle, high = np.frombuffer(planes, np.uint8).reshape(BYTES, count).astype(np.int32)
    unsigned = low | middle << 8 | high << 16
    return torch.from_numpy(((unsigned >> 1) ^ -(unsigned & 1)).astype(np.float32)) * step


def _outputs(
    network: nn.Module, pairs: PairSet
) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:  # each (3, H, W) float32 in [0, 1]
    """Of each image by its number: SR, HR and the bicubic image."""
    device = next(network.parameters()).device
    network.eval()
    for index in range(len(pairs)):
        lr, hr = (image[None] for image in pairs.tensors(index, device))
        with torch.inference_mode():
            sr = network(lr.contiguous(memory_format=torch.channels_last)).clamp(0, 1)
        bicubic = bicubic_upscale(lr, pairs.scale)
        yield index, (sr[0].contiguous().cpu(), hr[0].cpu(), bicubic[0].cpu())


@cache
def _cosines(count: int) -> Tensor:  # (count, count) float64, orthonormal
    place = torch.arange(count, dtype=torch.float64)
    rows = torch.cos(math.pi * place[:, None] * (place + 0.5) / count) * math.sqrt(2 / count)
    rows[0] /= math.sqrt(2)
    return rows


def _transformed(values: Tensor) -> Tensor:  # (3, H, W) -> (3, 16, 16, H / 16, W / 16): by frequency
    """Coefficients, those of one frequency together, since these are alike in size."""
    values = pad(values, (0, -values.shape[2] % BLOCK, 0, -values.shape[1] % BLOCK))
    blocks = values.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK))
    side = _cosines(BLOCK)
    return torch.einsum("dc,ky,lx,chywx->dklhw", _cosines(3), side, side, blocks).contiguous()


def _blocks(shape: Sequence[int]) -> tuple[int, int]:
    """Of an image (3, H, W): how many blocks are in a column of it, and in a row."""
    return -(-shape[1] // BLOCK), -(-shape[2] // BLOCK)


def _strip_rows(across: int) -> int:
    """Rows of blocks in a strip of an image with so many blocks in a row."""
    return max(1, STRIP // (3 * BLOCK * BLOCK * across))


def _strips(image: Tensor) -> tuple[Tensor, ...]:  # (3, H, W) -> each (3, at most h, W)
    return image.split(BLOCK * _strip_rows(_blocks(image.shape)[1]), dim=1)


def _key(image: str, place: int) -> str:
    return f"{image}.{place:02d}"


def _products(files: Sequence[Any], described: Sequence[dict[str, Any]], first: int) -> Tensor:
    if any(set(each) != set(described[0]) for each in described):
        raise ValueError("they are not of the same images")
    products = (_image_products(image, files, described, first) for image in sorted(described[0]))
    return torch.stack(list(products))


def _image_products(
    name: str, files: Sequence[Any], described: Sequence[dict[str, Any]], first: int
) -> Tensor:  # (n, n - first)
    rows = [each[name] for each in described]
    common, shape = float(rows[0]["common"]), [int(side) for side in rows[0]["shape"]]
    for each in rows:
        if each["shape"] != shape or not math.isclose(each["common"], common, rel_tol=1e-5, abs_tol=1e-9):
            raise ValueError("they are not of the same images")
    if len(shape) != 3 or shape[0] != 3 or min(shape) < 1 or shape[2] > WIDEST:
        raise ValueError(f"an image must be of 3 colours and at most {WIDEST} pixels wide, but is {shape}")
    down, across = _blocks(shape)
    most = _strip_rows(across)
    products = torch.zeros(len(files), len(files) - first, dtype=torch.float64)
    for place, top in enumerate(range(0, down, most)):  # a strip at a time, so that memory stays small
        count = 3 * BLOCK * BLOCK * across * min(most, down - top)
        strip = torch.stack(
            [
                unpacked(file.get_tensor(_key(name, place)), float(each["steps"][place]), count)
                for file, each in zip(files, rows, strict=True)
            ]
        ).double()  # float32 would lose the fifth digit over a million pixels
        products += strip @ strip[first:].T
    with_common = torch.tensor([each["with_common"] for each in rows], dtype=torch.float64)
    products = products / math.prod(shape) + with_common[:, None] + with_common[first:] + common
    square = torch.tensor([each["square"] for each in rows[first:]], dtype=torch.float64)
    products[first:].diagonal().copy_(square)
    if not products.isfinite().all():
        raise ValueError(f"the numbers of image {name} are not finite")
    return products


def _former_products(files: Sequence[Any], first: int) -> Tensor:
    products = []
    for image in sorted(files[0].keys()):  # one image at a time, so that memory stays small
        rows = torch.stack([file.get_tensor(image).flatten() for file in files])
        parts = (part.double() for part in rows.split(STRIP, dim=1))
        products.append(sum(part @ part[first:].T for part in parts) / rows.shape[1])
    return torch.stack(products)
