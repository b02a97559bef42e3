"""Published RCAN files load under both families of names and compute what their own code does."""

import collections
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import conv2d, pixel_shuffle

from gpnas_trainers import build
from gpnas_trainers.converting import save_official
from gpnas_trainers.weights import PREFIXES, WRAPPERS, WeightsError, from_state, load_rcan

State = dict[str, Tensor]
MEAN = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]


def named(shapes: dict[str, tuple[int, ...]]) -> State:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, (outputs, inputs, kernel) in shapes.items():
        state[f"{name}.weight"] = 0.1 * torch.randn(outputs, inputs, kernel, kernel, generator=generator)
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return state


def tail(prefix: str, features: int, scale: int) -> dict[str, tuple[int, ...]]:
    if scale == 3:
        return {f"{prefix}.0": (9 * features, features, 3)}
    return {f"{prefix}.{2 * i}": (4 * features, features, 3) for i in range({2: 1, 4: 2, 8: 3}[scale])}


def official(features: int, groups: int, blocks: int, hidden: int, scale: int) -> State:
    """Names as in the published files."""
    f = features
    shapes = {"sub_mean": (3, 3, 1), "add_mean": (3, 3, 1), "head.0": (f, 3, 3)}
    for g in range(groups):
        for b in range(blocks):
            at = f"body.{g}.body.{b}.body"
            shapes |= {f"{at}.0": (f, f, 3), f"{at}.2": (f, f, 3)}
            shapes |= {f"{at}.3.conv_du.0": (hidden, f, 1), f"{at}.3.conv_du.2": (f, hidden, 1)}
        shapes[f"body.{g}.body.{blocks}"] = (f, f, 3)
    return named(shapes | {f"body.{groups}": (f, f, 3), "tail.1": (3, f, 3)} | tail("tail.0", f, scale))


def basicsr(features: int, groups: int, blocks: int, hidden: int, scale: int) -> State:
    """Names as BasicSR's files have them."""
    f = features
    shapes = {"conv_first": (f, 3, 3), "conv_after_body": (f, f, 3), "conv_last": (3, f, 3)}
    for g in range(groups):
        for b in range(blocks):
            at = f"body.{g}.residual_group.{b}.rcab"
            shapes |= {f"{at}.0": (f, f, 3), f"{at}.2": (f, f, 3)}
            shapes |= {f"{at}.3.attention.1": (hidden, f, 1), f"{at}.3.attention.3": (f, hidden, 1)}
        shapes[f"body.{g}.conv"] = (f, f, 3)
    return named(shapes | tail("upsample", f, scale))


def conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def rcab(state: State, at: str, squeeze: str, excite: str, x: Tensor) -> Tensor:
    y = conv(state, f"{at}.2", conv(state, f"{at}.0", x).relu())
    gate = conv(state, squeeze, y.mean(dim=(2, 3), keepdim=True)).relu()
    return x + y * conv(state, excite, gate).sigmoid()


def up(state: State, prefix: str, scale: int, x: Tensor) -> Tensor:
    if scale == 3:
        return pixel_shuffle(conv(state, f"{prefix}.0", x), 3)
    for i in range({2: 1, 4: 2, 8: 3}[scale]):
        x = pixel_shuffle(conv(state, f"{prefix}.{2 * i}", x), 2)
    return x


def official_forward(state: State, groups: int, blocks: int, scale: int, x: Tensor) -> Tensor:
    """The official network, which takes and gives pixels from 0 to 255."""
    head = h = conv(state, "head.0", conv(state, "sub_mean", x))
    for g in range(groups):
        inner = h
        for b in range(blocks):
            at = f"body.{g}.body.{b}.body"
            inner = rcab(state, at, f"{at}.3.conv_du.0", f"{at}.3.conv_du.2", inner)
        h = h + conv(state, f"body.{g}.body.{blocks}", inner)
    h = head + conv(state, f"body.{groups}", h)
    return conv(state, "add_mean", conv(state, "tail.1", up(state, "tail.0", scale, h)))


def basicsr_forward(state: State, groups: int, blocks: int, scale: int, x: Tensor) -> Tensor:
    """BasicSR's network, which takes and gives [0, 1]."""
    head = h = conv(state, "conv_first", (x - MEAN) * 255)
    for g in range(groups):
        inner = h
        for b in range(blocks):
            at = f"body.{g}.residual_group.{b}.rcab"
            inner = rcab(state, at, f"{at}.3.attention.1", f"{at}.3.attention.3", inner)
        h = h + conv(state, f"body.{g}.conv", inner)
    h = head + conv(state, "conv_after_body", h)
    return conv(state, "conv_last", up(state, "upsample", scale, h)) / 255 + MEAN


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("wrapper", [None, "params", "params_ema", "state_dict"])
def test_files_of_both_families(tmp_path: Path, scale: int, wrapper: str | None) -> None:
    size = {"features": 12, "groups": 2, "blocks": 3}
    image = torch.rand(1, 3, 6, 5)
    for published in (official, basicsr):
        state = published(**size, hidden=3, scale=scale)
        path = tmp_path / "rcan.pth"
        torch.save({wrapper: state, "iter": 3} if wrapper else collections.OrderedDict(state), path)
        network, found, axes = load_rcan(path)
        assert found == scale
        assert axes == size | {"reduction": 4}
        if published is official:
            expected = official_forward(state, 2, 3, scale, 255 * image) / 255
        else:
            expected = basicsr_forward(state, 2, 3, scale, image)
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)
        # and it is the network that those axes build
        build("rcan", scale, **axes).load_state_dict(network.state_dict())


def of_an_average(state: State) -> State:
    """As `torch.optim.swa_utils.AveragedModel` keeps them."""
    return {"n_averaged": torch.tensor(7)} | {f"module.{name}": value for name, value in state.items()}


def of_a_game(state: State) -> State:
    """Generator and discriminator side by side."""
    return {f"netG.{name}": value for name, value in state.items()} | {
        "netD.0.weight": torch.zeros(2, 3, 3, 3)
    }


def without_means(state: State) -> State:
    return {name: value for name, value in state.items() if "_mean" not in name}


@pytest.mark.parametrize(
    "wrapped",
    [
        *(lambda state, key=key: {key: state, "epoch": 3, "optimizer": {}} for key in WRAPPERS),
        lambda state: {"params": {name: 0 * value for name, value in state.items()}, "params_ema": state},
        lambda state: {"model": {"state_dict": state}, "optimizer": {"state": {}, "param_groups": []}},
        *(lambda state, at=at: {at + name: value for name, value in state.items()} for at in PREFIXES),
        lambda state: {"mine": state, "losses": torch.zeros(3), "options": {"lr": 1e-4}},
        lambda state: {f"mine.{name}": value for name, value in state.items()},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
        lambda state: {name.replace("body.0.", "body.0._orig_mod."): value for name, value in state.items()},
        of_an_average,
        of_a_game,
        without_means,
        lambda state: {"state_dict": of_a_game(of_an_average(without_means(state)))},
    ],
)
def test_wrappers_prefixes_and_counters_are_taken_off(
    tmp_path: Path, wrapped: Callable[[State], dict[str, Any]]
) -> None:
    state = official(8, 1, 1, 2, 3)
    means = {"sub_mean": -255 * MEAN, "add_mean": 255 * MEAN}
    for name, mean in means.items():
        state |= {f"{name}.weight": torch.eye(3)[:, :, None, None], f"{name}.bias": mean.flatten()}
    torch.save(wrapped(state), tmp_path / "rcan.pth")
    network, scale, _ = load_rcan(tmp_path / "rcan.pth")
    assert scale == 3
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=1e-5)


def test_safetensors_and_prefixed_half_precision(tmp_path: Path) -> None:
    state = official(8, 1, 1, 2, 2)
    save_file(
        {f"module.{name}": value.half() for name, value in state.items()}, tmp_path / "rcan.safetensors"
    )
    network, scale, axes = load_rcan(tmp_path / "rcan.safetensors")
    assert (scale, axes["reduction"]) == (2, 4)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name].half().float())
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(("scale", "suffix"), [(2, ".pt"), (3, ".safetensors"), (4, ".pth")])
def test_what_is_written_is_an_official_file(tmp_path: Path, scale: int, suffix: str) -> None:
    """Its names and shapes are those of the published files, and their code computes what ours does."""
    torch.manual_seed(0)
    network = build("rcan", scale, features=12, groups=2, blocks=3, reduction=4).eval()
    path = tmp_path / f"rcan{suffix}"
    save_official(network, path)
    assert list(tmp_path.iterdir()) == [path]
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    published = official(12, 2, 3, 3, scale)
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in published.items()
    }
    image = torch.rand(1, 3, 6, 5)
    expected = official_forward(state, 2, 3, scale, 255 * image) / 255
    with torch.inference_mode():
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)
    assert load_rcan(path)[1:] == (scale, {"features": 12, "groups": 2, "blocks": 3, "reduction": 4})


def test_published_sizes_are_inferred() -> None:
    """RCAN ×4 of the paper: 15,592,379 parameters, 10 groups of 20 blocks, 64 features."""
    family, (network, scale, axes) = from_state(official(64, 10, 20, 4, 4))
    assert (family, scale, axes) == ("rcan", 4, {"features": 64, "groups": 10, "blocks": 20, "reduction": 16})
    assert sum(parameter.numel() for parameter in network.parameters()) == 15_592_379


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("hostile",)


def test_foreign_files_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = official(8, 2, 1, 2, 2)
    short = {name: value for name, value in good.items() if name != "body.1.body.1.bias"}
    wide = good | {"head.0.weight": torch.zeros(9, 3, 3, 3)}
    far = good | {"body.999999999.body.0.body.0.weight": torch.zeros(8, 8, 3, 3)}
    drn = build("drn", 2, features=8, blocks=1, stages=1).state_dict()
    foreign: dict[str, tuple[object, str]] = {
        "drn": (drn, r"must be those of rcan \(yulunzhang/RCAN\), but got head.weight"),
        "short": (short, r"body.1.body.1.bias must be 8 and is absent"),
        "wide": (wide, r"must be 8×8×3×3|must be 9"),
        "far": (far, "must be those of rcan ×2"),
        "empty": ({}, "must hold named weights"),
        "list": ([1, 2], "must hold named weights, but got list"),
        "scalar": ({"head": 1}, "'head' is int"),
        "other": (
            basicsr(8, 1, 1, 2, 2) | {"extra.weight": torch.zeros(1)},
            "extra.weight must be absent and is 1",
        ),
        "counted": (good | {"extra": torch.tensor(3)}, "extra must be absent and is a single number"),
        "nan": (
            good | {"head.0.bias": torch.full((8,), torch.nan)},
            "finite numbers, but those of head.0.bias",
        ),
        "infinite": (good | {"tail.1.bias": torch.full((3,), torch.inf)}, "but those of tail.1.bias are not"),
        "hostile": (
            Hostile(),
            "must hold nothing but weights, but it holds an object of Python, posix",
        ),
    }
    for name, (content, message) in foreign.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(WeightsError, match=message) as error:
            load_rcan(tmp_path / f"{name}.pth")
        assert str(error.value).startswith(str(tmp_path / f"{name}.pth"))
        assert "\n" not in str(error.value)
        assert "weights_only" not in str(error.value)
    assert not (tmp_path / "hostile").exists()
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("no weights")
        with pytest.raises(WeightsError, match="must hold nothing but weights"):
            load_rcan(tmp_path / name)
    with pytest.raises(WeightsError, match="must hold nothing but weights"):
        load_rcan(tmp_path / "absent.pth")
