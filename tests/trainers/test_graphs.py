"""Networks as ONNX files of every shape, made by hand, each against what it computes, in PyTorch."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from gpnas_trainers.graphs import ConversionError, OnnxNetwork, gmacs, parameters
from tests.builders import onnx_file

REPEAT = helper.make_node("Resize", ["x", "", "twice"], ["sr"], mode="nearest")


def repeated(x: Tensor) -> Tensor:
    return interpolate(x, scale_factor=2, mode="nearest")


def cast(name: str, to: str, kind: int) -> Any:
    return helper.make_node("Cast", [name], [to], to=kind)


KERNEL = np.random.default_rng(0).random((3, 3, 3, 3), np.float32) / 9
FOUR = helper.make_node("Conv", ["y", "kernel"], ["z"], pads=[1, 1, 1, 1])


def node(operation: str, given: str, made: str, **settings: Any) -> Any:
    return helper.make_node(operation, given.split(), [made], **settings)


@pytest.mark.parametrize("size", [(13, 9), (16, 24), (41, 57)])
@pytest.mark.parametrize(
    "shape", [(1, 3, 16, 24), ("n", 3, 16, 24), (2, 3, 16, 24), (1, 3, "h", 24), (3, 3, "h", "w")]
)
def test_a_file_of_one_size_or_batch_takes_any(shape: tuple[Any, ...], size: tuple[int, int]) -> None:
    network = OnnxNetwork(onnx_file([REPEAT], shape))
    lr = torch.rand(2, 3, *size)
    assert (network(lr) - repeated(lr)).abs().max() < 1e-6


def test_tiles_of_one_size_are_blended() -> None:
    """A file that makes a step at each tile's edge: what is left of it is spread over what tiles share."""
    ramp = np.broadcast_to(np.linspace(-0.1, 0.1, 32, dtype=np.float32), (1, 3, 32, 32))
    nodes = [node("Add", "lr ramp", "x"), REPEAT]
    network = OnnxNetwork(onnx_file(nodes, (1, 3, 32, 32), {"ramp": ramp}, given="lr"))
    sr = network(torch.full((1, 3, 32, 80), 0.5))
    assert 0.15 < float(sr.max() - sr.min()) < 0.21
    assert float((sr[..., 2:] - sr[..., :-2]).abs().max()) < 0.06  # beside 0.2 where tiles meet


def test_a_batch_of_one_whatever_the_file_declares() -> None:
    nodes = [node("Reshape", "lr one", "x"), REPEAT]
    content = onnx_file(nodes, ("n", 3, 8, 9), {"one": np.array([1, 3, 8, 9])}, given="lr")
    lr = torch.rand(3, 3, 11, 10)
    assert (OnnxNetwork(content)(lr) - repeated(lr)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("kind", "takes", "nodes"),
    [
        (TensorProto.FLOAT16, "0..1", [cast("lr", "x", TensorProto.FLOAT), REPEAT]),
        (TensorProto.DOUBLE, "-1..1", [cast("lr", "x", TensorProto.FLOAT), REPEAT]),
        (TensorProto.UINT8, "0..255", [cast("lr", "x", TensorProto.FLOAT), REPEAT]),
    ],
)
def test_a_file_takes_other_numbers(kind: int, takes: str, nodes: list[Any]) -> None:
    lr = torch.randint(0, 256, (2, 3, 8, 9)) / 255
    network = OnnxNetwork(onnx_file(nodes, ("n", 3, "h", "w"), given="lr", kind=kind), takes, takes)
    assert (network(lr) - repeated(lr)).abs().max() < 1e-3


def test_channels_that_stand_last_and_the_largest_of_several_images() -> None:
    nodes = [
        node("Transpose", "lr", "x", perm=[0, 3, 1, 2]),
        REPEAT,
        node("Transpose", "sr", "out", perm=[0, 2, 3, 1]),
    ]
    content = onnx_file(nodes, ("n", "h", "w", 3), given="lr", made=("x", "out"))
    lr = torch.rand(2, 3, 8, 9)
    assert (OnnxNetwork(content)(lr) - repeated(lr)).abs().max() < 1e-6


def test_a_file_of_luma_leaves_the_colours_to_bicubic_interpolation() -> None:
    """Against the matrix of JPEG's YCbCr and its inverse."""
    to_ycc = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    lr = 0.3 + 0.4 * torch.rand(2, 3, 19, 9)  # of which nothing is clamped

    def turned(matrix: Tensor, image: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", matrix, image)

    ycc = turned(to_ycc, interpolate(lr, scale_factor=2, mode="bicubic"))
    ycc[:, :1] = repeated(turned(to_ycc, lr)[:, :1])
    expected = turned(to_ycc.inverse(), ycc)
    for shape in (("n", 1, "h", "w"), (1, 1, 16, 16)):
        assert (OnnxNetwork(onnx_file([REPEAT], shape))(lr) - expected).abs().max() < 1e-5


def test_sides_that_must_be_multiples() -> None:
    nodes = [
        node("SpaceToDepth", "lr", "y", blocksize=4),
        node("DepthToSpace", "y", "x", blocksize=4),
        REPEAT,
    ]
    content = onnx_file(nodes, ("n", 3, "h", "w"), given="lr")
    lr = torch.rand(1, 3, 13, 9)
    with pytest.raises(ConversionError, match="must take images of any size, but of 1×3×13×9"):
        OnnxNetwork(content)(lr)
    assert (OnnxNetwork(content, multiple_of=4)(lr) - repeated(lr)).abs().max() < 1e-6


def loop(turns: int) -> list[Any]:
    """Convolutions in a loop, whose kernel is the loop's own, and a branch behind it."""
    info = helper.make_tensor_value_info
    kernel = numpy_helper.from_array(KERNEL, "kernel")
    body = helper.make_graph(
        [node("Conv", "before kernel", "after", pads=[1, 1, 1, 1]), node("Identity", "on", "still")],
        "body",
        [info("turn", TensorProto.INT64, []), info("on", TensorProto.BOOL, []), info("before", 1, None)],
        [info("still", TensorProto.BOOL, []), info("after", 1, None)],
        [kernel],
    )
    branches = [
        helper.make_graph([node(operation, "y", name)], name, [], [info(name, 1, None)])
        for operation, name in (("Identity", "then"), ("Neg", "else"))
    ]
    return [
        node("Constant", "", "turns", value_int=turns),
        node("Loop", "turns yes lr", "y", body=body),
        node("If", "yes", "x", then_branch=branches[0], else_branch=branches[1]),
        REPEAT,
    ]


@pytest.mark.parametrize("size", [("h", "w"), (16, 24)])
def test_loops_and_branches_are_run_and_counted(size: tuple[Any, Any]) -> None:
    content = onnx_file(loop(3), (1, 3, *size), {"yes": np.array(True)}, given="lr", shaped=False)
    network, lr = OnnxNetwork(content), torch.rand(1, 3, 16, 24)
    expected = lr
    for _ in range(3):
        expected = conv2d(expected, torch.from_numpy(KERNEL), padding=1)
    assert (network(lr) - repeated(expected)).abs().max() < 1e-5
    assert parameters(content) == 3 * 3 * 9 + 4  # and the scales of its last operation
    assert gmacs(network, 16, 24) == pytest.approx(3 * 81 * 16 * 24 / 1e9)
    # two tiles of 16 that share 4 for 28 rows, where it takes one size alone
    assert gmacs(network, 28, 24) == pytest.approx(3 * 81 * 24 * (28 if size == ("h", "w") else 32) / 1e9)


def test_files_that_cannot_be_used() -> None:
    body = loop(1)
    outside = body[1].attribute[0].g.initializer[0]
    outside.data_location = TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    yes = {"yes": np.array(True)}
    for content, message in (
        (onnx_file(body, (1, 3, "h", "w"), yes, given="lr", shaped=False), "must hold its weights itself"),
        (onnx_file([REPEAT], (1, 4, "h", "w")), r"its input must be numbers of \(batch, 3, height, width\)"),
        (onnx_file([REPEAT], (1, 3, 4, "w")), "takes 4×any alone"),
        (onnx_file([node("Identity", "x", "sr")], ("n", 3, "h")), "its input must be numbers of"),
        (b"\x08\x07abc", "must be an ONNX file"),
    ):
        with pytest.raises(ConversionError, match=message):
            OnnxNetwork(content)
    flat = onnx_file([node("ReduceMean", "lr", "sr")], ("n", 3, "h", "w"), given="lr", shaped=False)
    with pytest.raises(ConversionError, match=r"some whole times as large .* but made \(1, 1, 1, 1\)"):
        OnnxNetwork(flat)(torch.rand(1, 3, 8, 8))
    for settings in ({"takes": "0..7"}, {"makes": 3}, {"multiple_of": True}, {"multiple_of": 10**9}):
        with pytest.raises(ConversionError, match="but got"):
            OnnxNetwork(onnx_file([REPEAT], ("n", 3, "h", "w")), **settings)
