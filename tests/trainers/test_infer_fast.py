"""Networks in fewer operations compute what the networks compute, edges included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gpnas_trainers import build
from gpnas_trainers.infer.fast import fast

CASES: list[tuple[str, int, dict[str, Any]]] = [
    *(("drn", scale, {"features": 6, "blocks": 3, "stages": 2}) for scale in (2, 3, 4, 8)),
    ("drn", 2, {"features": 5, "blocks": 1, "stages": 3, "global_skip": True, "image_skip": False}),
    ("drn", 2, {"features": 5, "blocks": 2, "stages": 2, "fuse": 3}),
    ("drn", 4, {"features": 5, "blocks": 2, "stages": 1, "upsampler": "nearest"}),
    ("drn", 4, {"features": 5, "blocks": 2, "stages": 1, "upsampler": "direct"}),
    *(("rcan", scale, {"features": 8, "groups": 2, "blocks": 2}) for scale in (2, 3, 4, 8)),
    ("rcan", 2, {"features": 8, "groups": 1, "blocks": 2, "image_skip": True, "reduction": 4}),
    *(("edsr", scale, {"features": 8, "blocks": 2}) for scale in (2, 3, 4)),
    ("edsr", 2, {"features": 6, "blocks": 1, "damped": True, "image_skip": True}),
    ("dual_regression", 4, {"features": 4, "blocks": 1}),
]


def network_of(family: str, scale: int, axes: dict[str, Any]) -> nn.Module:
    """A network with every weight and bias away from where it starts, also those of the mean shift."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(family, scale, **axes).eval()
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return network.double()


@pytest.mark.parametrize(("family", "scale", "axes"), CASES)
def test_the_same_result(family: str, scale: int, axes: dict[str, Any]) -> None:
    network = network_of(family, scale, axes)
    with torch.inference_mode():
        forward = fast(network)
        for height, width in ((11, 17), (5, 6), (4, 9), (1, 6)):
            generator = torch.Generator().manual_seed(0)
            x = torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)
            expected = network(x.clone())
            tolerance = 1e-11 * float(expected.abs().max())
            for given in (x.clone(), x.contiguous(memory_format=torch.channels_last)):
                torch.testing.assert_close(forward(given), expected, atol=tolerance, rtol=0)
                assert torch.equal(given, x)  # nothing is written to the input


def test_single_precision_stays_single_precision() -> None:
    network = network_of("drn", 8, {"features": 4, "blocks": 1, "stages": 1}).float()
    x = torch.rand(1, 3, 7, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.double()(x.double())
        found = fast(network.float())(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=3e-6 * float(expected.abs().max()), rtol=0)


def test_unknown_networks_stay_as_they_are() -> None:
    network = nn.Conv2d(3, 3, 1)
    assert fast(network) is network
