"""What tests of several parts are made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gpnas.bundle import Bundle, Description, Member, read_bundle, write_bundle
from gpnas.records import Architecture
from gpnas_trainers import build

SIZES = ((8, 1), (12, 2), (8, 3))
"""Features and blocks of the networks of `bundle`."""


def description(**changes: Any) -> Description:
    """Where a bundle at scale 2 comes from."""
    values: Mapping[str, Any] = {
        "scale": 2,
        "recipe": {"hr_patch": 48},
        "data": {"fingerprint": "0", "validation": ""},
        "metrics": {"bicubic": 20.0, "best": 20.0, "ensemble": 20.0},
        "seed": 0,
        "versions": {},
        "machine": {},
    }
    return Description(**{**values, **changes})


def bundle(folder: Path, weights: tuple[float, ...] = (0.5, 0.3, 0.2), data: str = "") -> Bundle:
    """Three small networks with random weights of enough size to differ visibly."""
    members = []
    for number, ((features, blocks), weight) in enumerate(zip(SIZES, weights, strict=True)):
        axes = {"features": features, "blocks": blocks, "stages": 1}
        torch.manual_seed(number)
        state = build("drn", scale=2, **axes).state_dict()
        state = {name: value + 0.02 * torch.randn_like(value) for name, value in state.items()}
        members.append(
            Member(Architecture("drn", axes), state, weight, {"psnr": 20.0, "ssim": 0.5}, f"c{number:04d}")
        )
    write_bundle(folder / "bundle", members, description(data={"fingerprint": "0", "validation": data}))
    return read_bundle(folder / "bundle")


def folder_of_pairs(folder: Path) -> Path:
    """Five pairs at scale 2 of noise, whose HR images are their LR images with each pixel four times."""
    generator = np.random.default_rng(0)
    for name in ("HR", "LRx2"):
        (folder / name).mkdir(parents=True)
    for number in range(5):
        lr = generator.integers(60, 196, (30, 34, 3), dtype=np.uint8)
        hr = lr.repeat(2, axis=0).repeat(2, axis=1)
        Image.fromarray(lr).save(folder / "LRx2" / f"{number}.png")
        Image.fromarray(hr).save(folder / "HR" / f"{number}.png")
    return folder


def ensemble_by_hand(
    networks: list[torch.nn.Module], weights: list[float], lr: np.ndarray, turns: bool
) -> np.ndarray:
    """The weighted mean of the networks' clamped outputs, each over eight flips and transposes."""
    total = 0.0
    for network, weight in zip(networks, weights, strict=True):
        outputs = []
        for turn in range(4 if turns else 1):
            for flip in (False, True) if turns else (False,):
                view = np.rot90(lr, turn, axes=(1, 2))
                view = view[:, :, ::-1] if flip else view
                with torch.inference_mode():
                    sr = network(torch.from_numpy(view.copy())[None])[0].clamp(0, 1).numpy()
                sr = sr[:, :, ::-1] if flip else sr
                outputs.append(np.rot90(sr, -turn, axes=(1, 2)))
        total = total + weight * np.mean(outputs, axis=0)
    return np.asarray(total)
