"""Networks as ONNX files: any that super-resolve, whatever tool made them, run by onnxruntime.

A file holds operations of a fixed set and their weights; reading one runs no code of its author's.

Shapes: B images, C channels, h×w LR pixels, s scale.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpnas_trainers.infer.blending import normalised_weights, tile_starts
from gpnas_trainers.networks.blocks import mirrored
from gpnas_trainers.pairs import bicubic_upscale

WEIGHED = {
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "MatMul", "MatMulInteger", "Gemm"), 1),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul"), 3),
}
"""Operations that multiply and accumulate, and which of their inputs is a kernel or the second matrix."""
MOST = 2**31 - 1
"""Bytes of a file."""
MOST_SIDE = 4096
"""LR pixels of a side that a file may ask for."""
RANGES = {"0..1": (0.0, 1.0), "0..255": (0.0, 255.0), "-1..1": (-1.0, 1.0)}
"""What black and white are to a file, by name."""
SHARED = 4
"""Tiles of a file that takes one size alone share a quarter of their side with each neighbour."""
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in BT.601's luma, in full range, as JPEG has it."""


class ConversionError(ValueError):
    """A network has no such form, or it cannot be made or run here; one line."""


@dataclass(frozen=True)
class _Input:
    """What a file takes."""

    name: str
    type: Any
    """NumPy's."""
    batch: int | None
    """None here and in `sides`: any."""
    channels: int
    """3 of RGB, or 1, luma."""
    sides: tuple[int | None, int | None]
    """Height and width in LR pixels."""
    channels_last: bool


class OnnxNetwork(nn.Module):
    """A network of ONNX: maps (B, 3, h, w), RGB in [0, 1], to (B, 3, s·h, s·w), at any h and w.

    A file that takes images of one size alone gets tiles of that size, which share a quarter of their side
    and are blended; a smaller image is mirrored at its lower and right edge. One that takes a single channel
    gets luma, and the image's colours are upscaled by bicubic interpolation.

    Args:
        content: of the file.
        takes, makes: the ranges of its pixels, of `RANGES`.
        multiple_of: the sides of images that it takes are multiples of this.

    Raises:
        ConversionError: it is no such file, onnxruntime cannot run it, or onnxruntime is missing.
    """

    def __init__(
        self,
        content: bytes,
        takes: object = "0..1",
        makes: object = "0..1",
        multiple_of: object = 1,
        *,
        _profile: Path | None = None,
    ) -> None:
        super().__init__()
        for each in (takes, makes):
            if each not in RANGES:
                raise ConversionError(
                    f"an ONNX file's pixels must be of one of {', '.join(RANGES)}, but got {each!r:.40}"
                )
        if type(multiple_of) is not int or not 1 <= multiple_of <= MOST_SIDE:
            raise ConversionError(f"`multiple_of` must be of 1 … {MOST_SIDE}, but got {multiple_of!r:.40}")
        self.content, self.takes, self.makes, self.multiple_of = content, str(takes), str(makes), multiple_of
        _model(content)  # which refuses weights in other files
        self._session = _session(content, _profile)
        self._input = _input(self._session.get_inputs())
        self._batch, self._output = self._input.batch, ""

    @property
    def axes(self) -> dict[str, str | int]:
        """Arguments of the constructor that are not what they are by default."""
        own = {name: getattr(self, name) for name in ("takes", "makes", "multiple_of")}
        return {name: value for name, value in own.items() if value not in ("0..1", 1)}

    @property
    def own_form(self) -> str:
        """What its file takes or makes other than RGB in [0, 1] of any size; empty where nothing."""
        height, width = (each or "any" for each in self._input.sides)
        forms = {
            f"pixels of {self.takes} to such of {self.makes}": (self.takes, self.makes) != ("0..1", "0..1"),
            f"images of {height}×{width}": self._input.sides != (None, None),
            f"sides that are multiples of {self.multiple_of}": self.multiple_of > 1,
            "luma alone": self._input.channels == 1,
            "channels last": self._input.channels_last,
            "numbers that are no float32": self._input.type != "float32",
        }
        return ", ".join(form for form, so in forms.items() if so)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        rgb = x.detach().to("cpu", torch.float32)
        given = rgb if self._input.channels == 3 else _luma(rgb)
        sides = zip(rgb.shape[-2:], self._input.sides, strict=True)
        height, width = (
            max(side, fixed) if fixed else -(-side // self.multiple_of) * self.multiple_of
            for side, fixed in sides
        )
        sr = self._tiled(mirrored(mirrored(given, -2, height), -1, width))
        scale = sr.shape[-1] // width
        sr = sr[..., : scale * rgb.shape[-2], : scale * rgb.shape[-1]]
        if self._input.channels == 1:
            bicubic = bicubic_upscale(rgb, scale)
            sr = bicubic + (sr - _luma(bicubic))
        return sr.to(x)

    def _tiled(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, s·h, s·w)
        height, width = (fixed or side for fixed, side in zip(self._input.sides, x.shape[-2:], strict=True))
        ways = [(side, tile, tile // SHARED) for side, tile in ((x.shape[-2], height), (x.shape[-1], width))]
        tops, lefts = (tile_starts(*way) for way in ways)
        if len(tops) == len(lefts) == 1:
            return self._passed(x)
        sr: Tensor | None = None
        for top in tops:
            for left in lefts:
                part = self._passed(x[..., top : top + height, left : left + width])
                scale = part.shape[-1] // width
                if sr is None:
                    sr = part.new_zeros(*part.shape[:2], scale * x.shape[-2], scale * x.shape[-1])
                    down, across = (dict(normalised_weights(*way, "distance", scale)) for way in ways)
                place = sr[..., scale * top : scale * (top + height), scale * left : scale * (left + width)]
                place += (part * (down[top][:, None] * across[left])).to(part)
        assert sr is not None
        return sr

    def _passed(self, x: Tensor) -> Tensor:
        """What it makes of images of a size that it takes."""
        try:
            return torch.cat([self._run(chunk) for chunk in x.split(self._batch or len(x))])
        except ConversionError:
            if len(x) == 1 or self._batch is not None:
                raise
            self._batch = 1  # as a file that was made of one image, whatever it declares
            return self._passed(x)

    def _run(self, x: Tensor) -> Tensor:
        low, high = RANGES[self.takes]
        scaled = low + (high - low) * x
        if self._batch is not None:
            scaled = torch.cat([scaled, scaled[-1:].expand(self._batch - len(x), -1, -1, -1)])
        if self._input.channels_last:
            scaled = scaled.permute(0, 2, 3, 1)
        given = scaled.contiguous().numpy()
        if self._input.type == "uint8":
            given = given.clip(0, 255).round()
        wanted = [self._output] if self._output else None
        try:
            made = self._session.run(wanted, {self._input.name: given.astype(self._input.type)})
        except Exception as error:  # onnxruntime's own are not public
            size = "×".join(map(str, x.shape))
            raise ConversionError(f"it must take images of any size, but of {size}: {_line(error)}") from None
        low, high = RANGES[self.makes]
        return (self._image(made, x) - low) / (high - low)

    def _image(self, made: Sequence[NDArray[Any]], x: Tensor) -> Tensor:
        """The largest image among what it makes: (B, C, s·h, s·w)."""
        images = []
        for place, each in enumerate(made):
            if each.ndim != 4 or each.dtype.kind not in "fiu":
                continue
            for order in ((0, 1, 2, 3), (0, 3, 1, 2)):
                count, channels, height, width = (each.shape[axis] for axis in order)
                scale, rest = divmod(height, x.shape[2])
                fits = (channels, width) == (x.shape[1], scale * x.shape[3])
                if fits and scale and not rest and count >= len(x):
                    images.append((scale, -place, each.transpose(order)))
                    break
        if not images:
            shapes = " and ".join(str(each.shape) for each in made) or "nothing"
            raise ConversionError(
                f"it must make images of {x.shape[1]} channels some whole times as large as those that it "
                f"takes, but made {shapes} of {tuple(x.shape)}"
            )
        _, place, image = max(images, key=lambda each: each[:2])
        if not self._output:
            self._output = self._session.get_outputs()[-place].name
        return torch.from_numpy(image.astype("float32"))[: len(x)]


def parameters(content: bytes) -> int:
    """Numbers of an ONNX file that are weights: of its tensors of reals.

    Raises:
        ConversionError: it is no such file, or keeps weights in other files.
    """
    kinds = imported("onnx").TensorProto
    reals = (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE, kinds.BFLOAT16)
    tensors = _tensors(_model(content))
    return sum(math.prod(each.dims) for each in tensors if each.data_type in reals and len(each.dims))


def gmacs(network: OnnxNetwork, height: int, width: int) -> float:
    """10⁹ multiply-accumulates of convolutions and products of matrices for one image of h×w LR pixels.

    A grey image is passed through the network, and onnxruntime's own record of what it ran is read: with
    tiles, branches that were taken, and each turn of a loop.

    Raises:
        ConversionError: as the network does.
    """
    with tempfile.TemporaryDirectory() as folder:
        counted = OnnxNetwork(
            network.content,
            *(network.takes, network.makes, network.multiple_of),
            _profile=Path(folder) / "run",
        )
        counted(torch.full((1, 3, height, width), 0.5))
        events = json.loads(Path(counted._session.end_profiling()).read_text())
    runs = (
        each["args"] for each in events if each.get("cat") == "Node" and "op_name" in each.get("args", {})
    )
    return sum(map(_multiplications, runs)) / 1e9


def imported(name: str) -> Any:
    """A package that only ONNX needs."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConversionError(
            f"ONNX needs the packages onnx, onnxscript and onnxruntime, but {error}; install gpnas[onnx]"
        ) from None


def _session(content: bytes, profile: Path | None) -> Any:
    runtime = imported("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what it would print is in its errors, too
    options.intra_op_num_threads = torch.get_num_threads()
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
        options.add_session_config_entry("session.disable_prepacking", "1")  # else kernels go unmentioned
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConversionError(f"it must be an ONNX file that onnxruntime runs, but {_line(error)}") from None


TYPES = {"float": "float32", "float16": "float16", "double": "float64", "uint8": "uint8"}
"""Types of images that a file may take, as ONNX and NumPy call them."""


def _input(tensors: Sequence[Any]) -> _Input:
    """The one input, which must be of images."""
    if len(tensors) != 1:
        raise ConversionError(f"it must have one input, but has {len(tensors)}")
    (tensor,) = tensors
    shape = [each if isinstance(each, int) else None for each in tensor.shape]
    kind = TYPES.get(str(tensor.type).removeprefix("tensor(").removesuffix(")"))
    last = len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3)
    batch, channels, height, width = (
        (shape[axis] for axis in ((0, 3, 1, 2) if last else (0, 1, 2, 3))) if len(shape) == 4 else (0,) * 4
    )
    if kind is None or channels not in (None, 1, 3) or batch == 0:
        raise ConversionError(
            "its input must be numbers of (batch, 3, height, width) or (batch, 1, height, width), but is "
            f"{tensor.type} ({', '.join(map(str, tensor.shape))})"
        )
    for side in (height, width):
        if side is not None and not 8 <= side <= MOST_SIDE:
            raise ConversionError(
                f"it must take images with sides of 8 … {MOST_SIDE}, but takes "
                f"{height or 'any'}×{width or 'any'} alone"
            )
    return _Input(tensor.name, kind, batch, channels or 3, (height, width), last)


def _luma(rgb: Tensor) -> Tensor:  # (B, 3, h, w) -> (B, 1, h, w)
    return (rgb * rgb.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)


def _model(content: bytes) -> Any:
    try:
        model = imported("onnx").load_from_string(content)
    except ConversionError:
        raise
    except Exception as error:
        raise ConversionError(f"it must be an ONNX file, but {_line(error)}") from None
    for each in _tensors(model):
        if each.data_location == each.EXTERNAL:
            raise ConversionError("it must hold its weights itself, but keeps them in other files")
    return model


def _tensors(model: Any) -> Iterator[Any]:
    """All tensors of a file: of its graph, of graphs in that, as of branches and loops, and of functions."""
    graphs, nodes = [model.graph], [node for each in model.functions for node in each.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            yield from (each.values for each in graph.sparse_initializer)
            nodes += graph.node
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _multiplications(run: dict[str, Any]) -> int:
    """Multiply-accumulates of one operation that was run."""
    operation = run["op_name"]
    if operation not in WEIGHED:
        return 0
    shapes = [next(iter(each.values())) for each in run["input_type_shape"]]
    given, kernel = shapes[0], shapes[WEIGHED[operation]]
    made = next(iter(run["output_type_shape"][0].values()))
    if operation == "ConvTranspose":  # (inputs, outputs of a group, kernel…)
        return math.prod(given) * math.prod(kernel[1:])
    if "Conv" in operation:  # (outputs, inputs of a group, kernel…)
        return math.prod(made) * math.prod(kernel[1:])
    if operation == "Gemm":  # either may be transposed
        return math.prod(given) * made[-1]
    return math.prod(made) * given[-1]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
