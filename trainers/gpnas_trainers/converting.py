"""Networks for other tools: published file formats and ONNX.

Most families have the layers and names of their official code, so that a file of their weights opens there
and in tools that read such files. Any network can become ONNX.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gpnas_trainers.families import FAMILIES, declared
from gpnas_trainers.files import replacing
from gpnas_trainers.fusion import Fusion, Table
from gpnas_trainers.graphs import ConversionError as ConversionError
from gpnas_trainers.graphs import OnnxNetwork, imported
from gpnas_trainers.tensors import save_tensors

OFFICIAL = (".safetensors", ".pt", ".pth")
"""Suffixes of files of weights under the official names."""
OPSET = 18
"""Version of ONNX's operators: the oldest with all that the networks need."""
SIZES = ((24, 32), (17, 40), (48, 11))
"""Heights and widths at which an ONNX file is compared with its network."""
TOLERANCE = 1e-4
"""Largest difference of a pixel from PyTorch's, in the networks' range of 0 to 1."""


@runtime_checkable
class HasConstants(Protocol):
    """A module whose official files hold more than its weights."""

    def constants(self) -> dict[str, Tensor]:
        """These tensors, by their names within the module."""


class Average(nn.Module):
    """The weighted average of networks, each output clamped to [0, 1] as the ensemble does.

    Args:
        networks: at least one, of one scale.
        weights: one per network; they sum to 1.
        fusion: has weights for each pixel in their place.
    """

    def __init__(
        self, networks: Sequence[nn.Module], weights: Sequence[float], fusion: Fusion | None = None
    ) -> None:
        super().__init__()
        self.networks, self.fusion = nn.ModuleList(networks), fusion
        self.weights = tuple(weights)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        outputs = [network(x).clamp(0, 1) for network in self.networks]
        if self.fusion is not None:
            return self.fusion(outputs)
        weighed = [weight * output for output, weight in zip(outputs, self.weights, strict=True)]
        return torch.stack(weighed).sum(dim=0)


def save_official(network: nn.Module, path: Path) -> None:
    """Writes a network's weights under the names of its official code; whole, or not at all.

    Args:
        network: of a built-in family that has official code.
        path: of the file; `.safetensors`, or `.pt` and `.pth` for what `torch.save` makes.

    Raises:
        ConversionError: no official code computes what this network does, or the suffix is another.
    """
    family = declared(network)
    if family is None or family.official is None:
        known = ", ".join(name for name, each in FAMILIES.items() if each.official)
        raise ConversionError(
            f"only networks of {known} have official code, but this is {type(network).__name__}; "
            "convert it to .onnx instead"
        )
    if getattr(network, "image_skip", False):
        raise ConversionError(
            "official code computes what `image_skip: false` does, but this network has `image_skip: true`; "
            "convert it to .onnx instead"
        )
    state = dict(network.state_dict())
    for place, module in network.named_modules():
        if isinstance(module, HasConstants):
            state |= {f"{place}.{name}": tensor for name, tensor in module.constants().items()}
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replacing(path) as temporary:
        match path.suffix.lower():
            case ".safetensors":
                temporary.write_bytes(save(state, {"format": "pt"}))
            case ".pt" | ".pth":
                save_tensors(state, temporary)
            case _:
                raise ConversionError(
                    f"a file of weights must end in {', '.join(OFFICIAL)}, but got {path.name!r}"
                )


def save_onnx(network: nn.Module, path: Path, metadata: Mapping[str, str] | None = None) -> float:
    """Writes a network as ONNX, once onnxruntime has been seen to compute what PyTorch does.

    Its input `lr` is (batch, 3, h, w), RGB in [0, 1], of any size; its output `sr` (batch, 3, s·h, s·w),
    not clamped.

    Args:
        network: maps the one to the other; on the CPU, in float32.
        path: of the file.
        metadata: written into the file.

    Returns:
        The largest difference of a pixel from PyTorch's, over several sizes.

    Raises:
        ConversionError: a package is missing, the network has no ONNX form, or they differ.
    """
    if isinstance(network, OnnxNetwork):
        return _copied(network, path)
    if any(isinstance(each, OnnxNetwork) for each in network.modules()):
        raise ConversionError(
            "an ONNX file has no other form, so no average can be made with one; convert each network alone"
        )
    imported("onnxscript")
    runtime = imported("onnxruntime")
    network.eval()
    dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    with _quiet():
        try:
            traced = torch.export.export(
                network,
                # no side is 1 or equals another: the exporter would hold such a one for a constant
                (torch.rand(2, 3, 24, 20),),
                dynamic_shapes=(dict.fromkeys(dims, torch.export.Dim.AUTO),),
                # else an image of a single window, or of fewer rows than are padded, would be another case
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            program = torch.onnx.export(
                traced,
                input_names=["lr"],
                output_names=["sr"],
                dynamic_shapes=(dims,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.model.metadata_props.update(metadata or {})
            content = program.model_proto.SerializeToString()
        except Exception as error:  # the exporter's own are many and not public
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConversionError(f"a network must have an ONNX form, but {reason}") from error
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = _difference(network, session)
    if not difference <= TOLERANCE:
        raise ConversionError(
            f"onnxruntime must agree with PyTorch within {TOLERANCE:g}, but differs by {difference:g}; "
            "nothing was written"
        )
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return difference


def _copied(network: OnnxNetwork, path: Path) -> float:
    """Writes the file that a network is."""
    if network.own_form:
        raise ConversionError(
            f"its own file takes {network.own_form}, not RGB in [0, 1] of any size; it has no other"
        )
    with replacing(path) as temporary:
        temporary.write_bytes(network.content)
    return 0.0


def _difference(network: nn.Module, session: Any) -> float:
    """Largest difference of a pixel between an ONNX session and its network; of large outputs, relative.

    Where networks are fused by a table, rounding may take a pixel at a bin's edge to its other side: a pixel
    in a thousand is passed over.
    """
    fused_by_table = isinstance(network, Average) and isinstance(network.fusion, Table)
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, (height, width) in enumerate(SIZES, start=1):
        lr = torch.rand(batch, 3, height, width, generator=generator)
        with torch.inference_mode():
            expected = network(lr)
        found = torch.from_numpy(session.run(["sr"], {"lr": lr.numpy()})[0])
        if found.shape != expected.shape:
            return float("inf")
        unit = max(1.0, float(expected.abs().max()))
        differences = (found - expected).abs().flatten().sort().values
        counted = differences[: -(len(differences) // 1000) or None] if fused_by_table else differences
        largest = max(largest, float(counted[-1]) / unit)
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the exporter tells its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
