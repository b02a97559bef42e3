"""What tests of several parts are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from gpnas.bundle import Bundle, Description, Member, read_bundle, write_bundle
from gpnas.journal import Header, Journal
from gpnas.records import Architecture, Candidate, Fidelity, Observation
from gpnas.run.residuals import write_errors
from gpnas.run.setup import PSNR, Data, Setup
from gpnas.run.storage import Folder
from gpnas_trainers import build
from gpnas_trainers.pairs import PairSet
from gpnas_trainers.train import evaluate

SIZES = ((8, 1), (12, 2), (8, 3))
"""Features and blocks of the networks of `bundle`."""
TRAINED = ((4, 1), (4, 2), (6, 1))
"""Features and blocks of the networks of `run_of_networks`."""


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
        state = {name: value + 0.01 * torch.randn_like(value) for name, value in state.items()}
        members.append(
            Member(Architecture("drn", axes), state, weight, {"psnr": 20.0, "ssim": 0.5}, f"c{number:04d}")
        )
    write_bundle(folder / "bundle", members, description(data={"fingerprint": "0", "validation": data}))
    return read_bundle(folder / "bundle")


def run_of_networks(run: Path, pairs: PairSet, data: Data) -> Path:
    """A run of three networks, almost the bicubic image each, not yet delivered; without Ray.

    Args:
        run: its folder.
        pairs: that validate it.
        data: as its header names them.
    """
    setup = Setup(scale=2, recipe={}, data=data, validation_images=2)
    header = Header(trials=3, objective=PSNR, setup=setup.to_json(), versions={}, machine={})
    storage = Folder(run)
    with Journal.create_or_open(run, header) as journal:
        for number, (features, blocks) in enumerate(TRAINED):
            axes = {"features": features, "blocks": blocks, "stages": 1}
            candidate = Candidate(f"c{number:04d}", Architecture("drn", axes), Fidelity(1), 0)
            with torch.random.fork_rng():
                torch.manual_seed(number)
                network = build("drn", 2, **axes)
                with torch.no_grad():
                    for weight in network.parameters():
                        weight.add_(torch.randn_like(weight), alpha=0.003)
            folder = run / "candidates" / candidate.id
            folder.mkdir(parents=True)
            save_file(network.state_dict(), folder / "network.safetensors")
            write_errors(storage, f"candidates/{candidate.id}", network, pairs)
            journal.commit_candidates([candidate])
            value, ssim = evaluate(network, pairs)
            journal.commit_observation(Observation(candidate, value, metrics={"ssim": ssim}))
    return run


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


def onnx_file(
    nodes: Sequence[Any],
    shape: Sequence[Any],
    tensors: Mapping[str, NDArray[Any]] | None = None,
    *,
    given: str = "x",
    made: Sequence[str] = ("sr",),
    kind: int = 1,
    shaped: bool = True,
) -> bytes:
    """An ONNX file made by hand, which has `twice`, the scales of a Resize by 2.

    Args:
        nodes: its operations.
        shape: of its input; a name is any number.
        tensors: by name.
        given, made: names of its input and its outputs.
        kind: type of the input's numbers.
        shaped: whether it says that it makes four dimensions.
    """
    from onnx import helper, numpy_helper

    constants = {"twice": np.array([1, 1, 2, 2], np.float32), **(tensors or {})}
    outputs = [
        helper.make_tensor_value_info(name, 1, ["b", "c", "y", "z"] if shaped else None) for name in made
    ]
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info(given, kind, shape)],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())
