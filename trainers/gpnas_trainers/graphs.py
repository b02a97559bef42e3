"""Networks as ONNX files: any that super-resolve, whatever tool made them, run by onnxruntime.

A file holds operations of a fixed set and their weights; reading one runs no code of its author's.

Shapes: B images, h×w LR pixels, s scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

COUNTED = (24, 48)
"""Sides of images, in LR pixels, whose operations are counted; what a graph does per pixel follows."""
WEIGHED = {"Conv": 1, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}
"""Operations that multiply and accumulate, and which of their inputs is a kernel or a matrix."""
MOST = 2**31 - 1
"""Bytes of a file."""


class ConversionError(ValueError):
    """A network has no such form, or it cannot be made or run here; one line."""


class OnnxNetwork(nn.Module):
    """A network of ONNX: maps (B, 3, h, w), RGB in [0, 1], to (B, 3, s·h, s·w).

    Args:
        content: of the file.
        pixels: what a white pixel is in its own range, for input and output: 1 or 255.

    Raises:
        ConversionError: it is no such file, onnxruntime cannot run it, or onnxruntime is missing.
    """

    def __init__(self, content: bytes, pixels: int = 1) -> None:
        super().__init__()
        self.content, self.pixels = content, pixels
        self._session = _session(content)
        self._input = _images(self._session.get_inputs(), "input")
        self._output = _images(self._session.get_outputs(), "output")

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, h, w) in [0, 1] -> (B, 3, s·h, s·w)
        given = (self.pixels * x.detach()).to("cpu", torch.float32).contiguous().numpy()
        try:
            (sr,) = self._session.run([self._output], {self._input: given})
        except Exception as error:  # onnxruntime's own are not public
            size = "×".join(map(str, x.shape))
            raise ConversionError(f"it must take images of any size, but of {size}: {_line(error)}") from None
        return torch.from_numpy(sr).to(x) / self.pixels


def parameters(content: bytes) -> int:
    """Numbers of an ONNX file that are weights: of its tensors of reals.

    Raises:
        ConversionError: it is no such file, or keeps weights in other files.
    """
    return sum(math.prod(each.dims) for each in _weights(_model(content)))


def gmacs(content: bytes, height: int, width: int) -> float:
    """10⁹ multiply-accumulates of convolutions and products of matrices for one image of h×w LR pixels.

    The graph is run on two images, and the shapes of its tensors are seen: so much for each pixel, so much
    once.

    Raises:
        ConversionError: as `parameters`, or onnxruntime cannot run it.
    """
    small, large = (_counted(content, side) for side in COUNTED)
    per_pixel = (large - small) / (COUNTED[1] ** 2 - COUNTED[0] ** 2)
    return (small + per_pixel * (height * width - COUNTED[0] ** 2)) / 1e9


def imported(name: str) -> Any:
    """A package that only ONNX needs."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConversionError(
            f"ONNX needs the packages onnx, onnxscript and onnxruntime, but {error}; install gpnas[onnx]"
        ) from None


def _session(content: bytes) -> Any:
    runtime = imported("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what it would print is in its errors, too
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConversionError(f"it must be an ONNX file that onnxruntime runs, but {_line(error)}") from None


def _images(tensors: Sequence[Any], what: str) -> str:
    """The name of the one tensor, which must be of RGB images."""
    if len(tensors) != 1:
        raise ConversionError(f"it must have one {what}, but has {len(tensors)}")
    (tensor,) = tensors
    shape = list(tensor.shape)
    wrong = len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3)
    if wrong or tensor.type != "tensor(float)":
        raise ConversionError(
            f"its {what} must be float32 (batch, 3, height, width), but is {tensor.type} "
            f"({', '.join(map(str, shape))})"
        )
    if what == "input" and any(isinstance(each, int) for each in shape[2:]):
        raise ConversionError(
            f"it must take images of any size, but takes {shape[2]}×{shape[3]} alone; export it with dynamic "
            "height and width"
        )
    return str(tensor.name)


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


def _tensors(model: Any) -> list[Any]:
    constants = [
        attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    return [*model.graph.initializer, *constants]


def _weights(model: Any) -> list[Any]:
    kinds = imported("onnx").TensorProto
    reals = (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE, kinds.BFLOAT16)
    return [each for each in _tensors(model) if each.data_type in reals and len(each.dims)]


def _counted(content: bytes, side: int) -> int:
    """Multiply-accumulates for one image, by the shapes of its tensors."""
    onnx = imported("onnx")
    model = _model(content)
    nodes = [node for node in model.graph.node if node.op_type in WEIGHED]
    known = {each.name: tuple(each.dims) for each in model.graph.initializer}
    (image,) = (each for each in model.graph.input if each.name not in known)
    wanted = {name for node in nodes for name in (node.output[0], *node.input[:2])}
    wanted -= known.keys() | {image.name}
    present = {each.name for each in model.graph.output}
    for name in sorted(wanted - present):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    names = sorted(wanted | present)
    session = _session(model.SerializeToString())
    given = torch.full((1, 3, side, side), 0.5).numpy()
    try:
        found = session.run(names, {image.name: given})
    except Exception as error:
        raise ConversionError(
            f"it must take images of any size, but of {side}×{side}: {_line(error)}"
        ) from None
    shapes = known | {image.name: (1, 3, side, side)}
    shapes |= {name: tuple(each.shape) for name, each in zip(names, found, strict=True)}
    return sum(_multiplications(node, shapes) for node in nodes)


def _multiplications(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    given, kernel = (shapes[name] for name in node.input[:2])
    made = shapes[node.output[0]]
    match node.op_type:
        case "Conv":  # (outputs, inputs of a group, kernel…)
            return math.prod(made) * math.prod(kernel[1:])
        case "ConvTranspose":  # (inputs, outputs of a group, kernel…)
            return math.prod(given) * math.prod(kernel[1:])
        case "Gemm":
            turned = any(each.name == "transA" and each.i for each in node.attribute)
            return math.prod(made) * given[0 if turned else 1]
    return math.prod(made) * given[-1]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
