"""Networks have the published sizes and names, and compute what the text says."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle
from torch.utils.flop_counter import FlopCounterMode

import gpnas_trainers
from gpnas_trainers import build, cost
from gpnas_trainers.losses import dual_regression_loss, mixed_loss
from gpnas_trainers.networks.dual_regression import DualRegression, duals


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("family", "axes", "expected"),
    [
        ("drn", {"features": 128, "blocks": 18, "stages": 3}, (17_462_803, 18_200_723, 18_053_139)),
        ("rcan", {"features": 64, "groups": 10, "blocks": 20}, (15_444_667, 15_629_307, 15_592_379)),
        ("rcan", {"features": 128, "groups": 5, "blocks": 10}, (16_350_507, 17_088_427, 16_940_843)),
    ],
)
def test_sizes_are_the_published_ones(family: str, axes: dict[str, int], expected: tuple[int, ...]) -> None:
    for scale, number in zip((2, 3, 4), expected, strict=True):
        assert cost.parameters(family, scale, **axes) == number
        with torch.device("meta"):
            assert count(build(family, scale, **axes)) == number


drn_axes = st.fixed_dictionaries(
    {"features": st.integers(1, 24), "blocks": st.integers(1, 3), "stages": st.integers(1, 3)},
    optional={
        "fuse": st.sampled_from([1, 3]),
        "global_skip": st.booleans(),
        "image_skip": st.booleans(),
        "upsampler": st.sampled_from(["shuffle", "nearest", "direct"]),
    },
)
rcan_axes = st.fixed_dictionaries(
    {"features": st.integers(1, 24), "groups": st.integers(1, 3), "blocks": st.integers(1, 3)},
    optional={"reduction": st.integers(1, 20), "image_skip": st.booleans()},
)
dual_axes = st.fixed_dictionaries({"features": st.integers(1, 12), "blocks": st.integers(1, 3)})
architectures = st.one_of(
    st.tuples(st.just("drn"), drn_axes, st.sampled_from([2, 3, 4, 8])),
    st.tuples(st.just("rcan"), rcan_axes, st.sampled_from([2, 3, 4, 8])),
    st.tuples(st.just("dual_regression"), dual_axes, st.sampled_from([2, 4, 8])),
)


@given(architectures)
@settings(max_examples=25, deadline=None)
def test_costs_equal_what_is_built_and_run(architecture: tuple[str, dict[str, int], int]) -> None:
    family, axes, scale = architecture
    network = build(family, scale, **axes).eval()
    assert cost.parameters(family, scale, **axes) == count(network)
    image = torch.rand(1, 3, 5, 7)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(image).shape == (1, 3, 5 * scale, 7 * scale)
    assert 2e9 * cost.gmacs(family, scale, 5, 7, **axes) == pytest.approx(counter.get_total_flops())


@pytest.mark.parametrize(
    ("scale", "features", "blocks", "expected"),
    [(4, 16, 30, 4_804_065), (4, 20, 40, 9_825_893), (8, 8, 30, 5_403_000), (8, 10, 36, 10_004_018)],
)
def test_dual_regression_has_the_published_size(
    scale: int, features: int, blocks: int, expected: int
) -> None:
    with torch.device("meta"):
        assert count(build("dual_regression", scale, features=features, blocks=blocks)) == expected
    assert cost.parameters("dual_regression", scale, features=features, blocks=blocks) == expected


def test_official_names_of_rcan() -> None:
    names = set(build("rcan", 4, features=16, groups=2, blocks=3).state_dict())
    expected = {
        "sub_mean.weight", "add_mean.bias", "head.0.weight", "body.0.body.0.body.0.weight",
        "body.1.body.2.body.2.bias", "body.0.body.1.body.3.conv_du.0.weight",
        "body.0.body.1.body.3.conv_du.2.bias", "body.0.body.3.weight", "body.2.weight",
        "tail.0.0.weight", "tail.0.2.weight", "tail.1.weight",
    }  # fmt: skip
    assert expected <= names


def test_other_upsamplers_equal_their_equations() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 5, 6, dtype=torch.float64)
    image = interpolate(x, scale_factor=4, mode="bicubic", align_corners=False)
    axes = {"features": 4, "blocks": 1, "stages": 1}

    def conv(network: nn.Module, name: str, value: Tensor) -> Tensor:
        weights = network.state_dict()
        return nn.functional.conv2d(value, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    nearest, direct = (build("drn", 4, upsampler=kind, **axes).double() for kind in ("nearest", "direct"))
    h = nearest.blocks[0](nearest.head(x), None)  # type: ignore[index, operator]
    for place in (1, 4, 6):
        if place < 6:
            h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        h = conv(nearest, f"upsampler.{place}", h)
        h = torch.where(h > 0, h, 0.2 * h)
    torch.testing.assert_close(nearest(x), conv(nearest, "tail", h) + image)

    features = direct.blocks[0](direct.head(x), None)  # type: ignore[index, operator]
    parts = conv(direct, "tail.0", features).view(3, 4, 4, 5, 6)
    shuffled = parts.permute(0, 3, 1, 4, 2).reshape(1, 3, 20, 24)
    torch.testing.assert_close(direct(x), shuffled + image)


def test_drn_equals_its_equations() -> None:
    """The facts' pseudo-code, written out with the network's own weights."""
    torch.manual_seed(0)
    network = build("drn", 2, features=6, blocks=3, stages=2, global_skip=True).double()
    weights = network.state_dict()
    x = torch.rand(2, 3, 9, 8, dtype=torch.float64)

    def conv(name: str, value: Tensor) -> Tensor:
        weight = weights[f"{name}.weight"]
        padding = weight.shape[-1] // 2
        return nn.functional.conv2d(value, weight, weights[f"{name}.bias"], padding=padding)

    shallow = conv("head", x)
    h, p = shallow, None
    for i in range(3):
        s, outs = h, []
        for stage in range(2):
            if p is not None:
                s = s + p
            s = conv(f"blocks.{i}.stages.{stage}.2", conv(f"blocks.{i}.stages.{stage}.0", s).relu())
            outs.append(s)
        y = conv(f"blocks.{i}.fuse", torch.cat(outs, dim=1))
        gate = conv(f"blocks.{i}.attention.conv_du.0", y.mean(dim=(2, 3), keepdim=True)).relu()
        y = y * conv(f"blocks.{i}.attention.conv_du.2", gate).sigmoid()
        h, p = h + y, h
    out = conv("tail", pixel_shuffle(conv("upsampler.0", h + shallow), 2))
    expected = out + interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    torch.testing.assert_close(network(x), expected)


def test_a_fresh_rcan_keeps_the_mean_colour() -> None:
    """With all weights of its tail at zero, only the added mean colour is left."""
    network = build("rcan", 2, features=8, groups=1, blocks=1)
    nn.init.zeros_(network.tail[1].weight)  # type: ignore[index, union-attr]
    nn.init.zeros_(network.tail[1].bias)  # type: ignore[index, union-attr]
    colour = network(torch.rand(1, 3, 4, 4)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(colour, torch.tensor([0.4488, 0.4371, 0.4040]))


@pytest.mark.parametrize(
    ("family", "scale", "axes", "message"),
    [
        ("unet", 2, {}, "a family must be one of drn, rcan, .*, but got 'unet'"),
        (
            "dual_regression",
            3,
            {"features": 8, "blocks": 1},
            "dual_regression must be one of 2, 4, 8, but got 3",
        ),
        ("drn", 5, {"features": 8, "blocks": 1, "stages": 1}, "a scale must be one of 2, 3, 4, 8, but got 5"),
        ("drn", 2, {"features": 8, "blocks": 1}, "stages is missing"),
        (
            "drn",
            2,
            {"features": 8, "blocks": 1, "stages": 1, "upsampler": "deconv"},
            "`upsampler` must be one of shuffle, nearest, direct, but got 'deconv'",
        ),
        ("drn", 2, {"features": 8, "blocks": 1, "stages": 1, "groups": 1}, "but got 'groups'"),
        ("drn", 2, {"features": 0, "blocks": 1, "stages": 1}, "`features` must be an integer of at least 1"),
        ("drn", 2, {"features": 8, "blocks": 1, "stages": 1, "fuse": 2}, "`fuse` must be 1 or 3, but got 2"),
        ("rcan", 2, {"features": 8, "groups": 1, "blocks": 1, "image_skip": 1}, "must be true or false"),
    ],
)
def test_what_cannot_be_built_is_named(family: str, scale: int, axes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpnas_trainers.check(family, scale, **axes)
    with pytest.raises(ValueError, match=message):
        build(family, scale, **axes)


def test_gmacs_of_the_paper_at_its_tile() -> None:
    gmacs = cost.gmacs("drn", 2, 120, 120, features=128, blocks=18, stages=3)
    assert math.isclose(gmacs, 251, abs_tol=0.5)


def kept_for_backward(network: nn.Module, scale: int, batch_size: int, hr_patch: int, ms_ssim: bool) -> int:
    """Bytes of all storages that autograd saves in a training step, the network's own aside."""
    lr = torch.rand(batch_size, 3, hr_patch // scale, hr_patch // scale)
    lr = lr.contiguous(memory_format=torch.channels_last)
    hr = torch.rand(batch_size, 3, hr_patch, hr_patch)
    saved: list[Tensor] = []  # held, so that no storage is used twice

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mixed_loss(network(lr), hr, l1_weight=1.0, ms_ssim_weight=0.1 * ms_ssim)
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in saved}
    return sum(size for place, size in storages.items() if place not in own)


@pytest.mark.parametrize(
    ("family", "scale", "axes"),
    [
        ("drn", 2, {"features": 8, "blocks": 1, "stages": 1}),
        ("drn", 2, {"features": 24, "blocks": 4, "stages": 3, "fuse": 3}),
        ("drn", 3, {"features": 16, "blocks": 2, "stages": 2, "global_skip": True, "image_skip": False}),
        ("drn", 4, {"features": 32, "blocks": 3, "stages": 1}),
        ("drn", 4, {"features": 16, "blocks": 2, "stages": 2, "upsampler": "nearest"}),
        ("drn", 3, {"features": 16, "blocks": 2, "stages": 2, "upsampler": "direct"}),
        ("rcan", 2, {"features": 16, "groups": 3, "blocks": 4, "image_skip": True}),
        ("rcan", 3, {"features": 8, "groups": 1, "blocks": 1, "reduction": 4}),
        ("rcan", 4, {"features": 32, "groups": 2, "blocks": 5}),
        ("dual_regression", 2, {"features": 8, "blocks": 2}),
        ("dual_regression", 4, {"features": 8, "blocks": 1}),
    ],
)
@pytest.mark.parametrize(
    ("batch_size", "hr_patch", "ms_ssim"), [(1, 48, True), (2, 192, True), (3, 48, False)]
)
def test_training_memory_is_what_autograd_keeps(
    family: str, scale: int, axes: dict[str, int], batch_size: int, hr_patch: int, ms_ssim: bool
) -> None:
    network = build(family, scale, **axes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    activations = kept_for_backward(network, scale, batch_size, hr_patch, ms_ssim)
    setting = {"batch_size": batch_size, "hr_patch": hr_patch, "ms_ssim": ms_ssim}
    told = cost.training_memory(family, scale, **setting, **axes)  # type: ignore[arg-type]
    assert told == pytest.approx(4 * 4 * count(network) + activations, rel=0.05)


def test_adam_keeps_two_moments_per_weight() -> None:
    """Of a network whose activations are few, all that a step leaves is four numbers per weight."""
    axes = {"features": 32, "blocks": 1, "stages": 1}
    network = build("drn", 2, **axes)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.rand(1, 3, 2, 2)).sum().backward()
    optimizer.step()
    held = [parameter.numel() * 2 for parameter in network.parameters()]  # with its gradient
    held += [each.numel() for state in optimizer.state.values() for each in state.values() if each.ndim]
    told = cost.training_memory("drn", 2, batch_size=1, hr_patch=2, ms_ssim=False, **axes)
    assert told == pytest.approx(4 * sum(held), rel=0.01)


ONE_OF_EACH = [
    ("drn", {"features": 8, "blocks": 2, "stages": 2}),
    ("drn", {"features": 8, "blocks": 1, "stages": 1, "fuse": 3, "global_skip": True, "image_skip": False}),
    ("drn", {"features": 8, "blocks": 1, "stages": 1, "upsampler": "nearest"}),
    ("drn", {"features": 8, "blocks": 1, "stages": 1, "upsampler": "direct"}),
    ("rcan", {"features": 8, "groups": 2, "blocks": 2, "reduction": 4}),
    ("rcan", {"features": 8, "groups": 1, "blocks": 1, "image_skip": True}),
    ("dual_regression", {"features": 4, "blocks": 1}),
]


@pytest.mark.parametrize(("family", "axes"), ONE_OF_EACH)
@pytest.mark.parametrize("scale", [2, 3, 8])
def test_compiled_whole_and_channels_last_compute_the_same(
    family: str, scale: int, axes: dict[str, int]
) -> None:
    if family == "dual_regression" and scale == 3:
        scale = 4
    network = build(family, scale, **axes)
    image = torch.rand(2, 3, 6, 5)
    expected = network(image)
    # `fullgraph` raises where the network is not one graph
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image), expected)
    torch.compiler.reset()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sr = network(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(sr, expected, rtol=1e-4, atol=1e-5)
    assert sr.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("family", "axes", "at_4"),
    [
        ("drn", {"features": 128, "blocks": 18, "stages": 3}, 18_053_139),
        ("rcan", {"features": 64, "groups": 10, "blocks": 20}, 15_592_379),
    ],
)
def test_x8_has_one_upsampling_convolution_more_than_x4(family: str, axes: dict[str, int], at_4: int) -> None:
    features = axes["features"]
    assert cost.parameters(family, 8, **axes) == at_4 + 9 * features * 4 * features + 4 * features


def test_a_dual_network_is_as_small_as_published() -> None:
    """864 weights with 16 features, 1,080 with 20; one for each factor of 2."""
    assert [count(each) for each in duals(8, 16)] == [864] * 3
    assert [count(each) for each in duals(4, 20)] == [1_080] * 2


def test_official_names_of_dual_regression() -> None:
    names = set(build("dual_regression", 4, features=4, blocks=2).state_dict())
    expected = {
        "sub_mean.weight", "head.bias", "down.0.dual_module.0.0.weight", "down.1.dual_module.1.weight",
        "up_blocks.0.1.body.0.weight", "up_blocks.1.0.body.3.conv_du.2.bias", "up_blocks.0.2.0.weight",
        "up_blocks.1.3.bias", "tail.0.weight", "tail.2.weight", "add_mean.bias",
    }  # fmt: skip
    assert expected <= names
    assert not {"down.0.dual_module.0.0.bias", "tail.3.weight", "up_blocks.2.0.body.0.weight"} & names


def test_dual_regression_closes_the_loop() -> None:
    """Sizes of all images; and a loss by hand, which is zero where all is as it should be."""
    torch.manual_seed(0)
    network = build("dual_regression", 4, features=4, blocks=1)
    assert isinstance(network, DualRegression)
    x = torch.rand(2, 3, 6, 5)
    images = network.pyramid(x)
    assert [image.shape[-2:] for image in images] == [(6, 5), (12, 10), (24, 20)]
    torch.testing.assert_close(images[-1], network(x))
    back = [dual(image) for dual, image in zip(duals(4, 4), images[1:], strict=True)]
    assert [image.shape for image in back] == [image.shape for image in images[:-1]]
    assert dual_regression_loss(images, images, images[:-1]).item() == 0
    targets = [image + shift for image, shift in zip(images, (0.1, -0.2, 0.4), strict=True)]
    returned = [targets[0] + 0.3, targets[1] - 0.5]
    loss = dual_regression_loss(images, targets, returned)
    assert loss.item() == pytest.approx(0.1 + 0.2 + 0.4 + 0.1 * (0.3 + 0.5), rel=1e-5)
    loss.backward()
    assert network.tail[0].weight.grad is not None


@pytest.mark.parametrize(
    ("family", "axes"),
    [
        ("drn", {"features": 16, "blocks": 2, "stages": 2}),
        ("rcan", {"features": 16, "groups": 2, "blocks": 2, "image_skip": True}),
    ],
)
@pytest.mark.parametrize("scale", [2, 3])
def test_with_an_image_skip_a_fresh_network_is_nearly_bicubic(
    family: str, axes: dict[str, int], scale: int
) -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 20, 24)
    expected = torch.nn.functional.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    assert (build(family, scale, **axes)(x) - expected).abs().max() < 0.01
