"""What a network takes over from another."""

import pytest
import torch

from gpnas_trainers import build
from gpnas_trainers.warm_start import warm_start


def test_another_scale_gives_all_but_the_upsampler() -> None:
    axes = {"features": 8, "groups": 2, "blocks": 1}
    weights = build("rcan", 2, **axes).state_dict()
    network = build("rcan", 3, **axes)
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    started = warm_start(network, weights)
    # F→9F instead of F→4F; `tail.1` takes F in both
    assert started.fresh == ("tail.0.0.weight", "tail.0.0.bias")
    assert set(started.taken) | set(started.fresh) == set(fresh)
    assert str(started) == (
        f"warm start: {len(fresh) - 2} of {len(fresh)} tensors taken; fresh: tail.0.0.weight, tail.0.0.bias"
    )
    for name, value in network.state_dict().items():
        assert torch.equal(value, (weights if name in started.taken else fresh)[name]), name
    # ×4 upsamples by 2 twice, the first time as ×2 does
    assert warm_start(build("rcan", 4, **axes), weights).fresh == ("tail.0.2.weight", "tail.0.2.bias")


def test_the_same_architecture_gives_everything() -> None:
    source, network = (build("drn", 2, features=4, blocks=2, stages=1) for _ in range(2))
    started = warm_start(network, source.state_dict())
    assert started.fresh == ()
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(network(image), source(image))


def test_weights_of_which_nothing_fits_are_refused() -> None:
    network = build("drn", 2, features=4, blocks=1, stages=1)
    with pytest.raises(ValueError, match="must fit the network in some tensor's name and shape"):
        warm_start(network, {"head.weight": torch.zeros(2)})
