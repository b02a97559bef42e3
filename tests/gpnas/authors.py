"""EDSR and RCAN as their authors' repositories describe them, without a line of gpnas.

Written from B. Lim et al. (CVPR workshops 2017) and sanghyun-son/EDSR-PyTorch, Y. Zhang et al. (ECCV 2018)
and yulunzhang/RCAN: names of layers, their order, pixels of 0 … 255, and mean colours as 1×1 convolutions.
"""

import torch
from torch import Tensor, nn

RGB_RANGE = 255


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class MeanShift(nn.Conv2d):
    """Takes the mean colour of DIV2K off, or adds it."""

    def __init__(self, sign: int) -> None:
        super().__init__(3, 3, kernel_size=1)
        self.weight.data = torch.eye(3).view(3, 3, 1, 1)
        assert self.bias is not None
        self.bias.data = sign * RGB_RANGE * torch.tensor([0.4488, 0.4371, 0.4040])


class Upsampler(nn.Sequential):
    def __init__(self, scale: int, features: int) -> None:
        layers: list[nn.Module] = []
        if scale == 3:
            layers += [conv(features, 9 * features), nn.PixelShuffle(3)]
        else:
            for _ in range({2: 1, 4: 2, 8: 3}[scale]):
                layers += [conv(features, 4 * features), nn.PixelShuffle(2)]
        super().__init__(*layers)


class ResBlock(nn.Module):
    def __init__(self, features: int, res_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(features, features), nn.ReLU(True), conv(features, features))
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        res: Tensor = self.body(x).mul(self.res_scale)
        return res + x


class CALayer(nn.Module):
    def __init__(self, channel: int, reduction: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_du = nn.Sequential(
            nn.Conv2d(channel, channel // reduction, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channel // reduction, channel, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.conv_du(self.avg_pool(x))
        return x * gate


class RCAB(nn.Module):
    def __init__(self, features: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(features, features), nn.ReLU(True), conv(features, features), CALayer(features, reduction)
        )

    def forward(self, x: Tensor) -> Tensor:
        res: Tensor = self.body(x)
        return res + x


class ResidualGroup(nn.Module):
    def __init__(self, features: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *[RCAB(features, reduction) for _ in range(blocks)], conv(features, features)
        )

    def forward(self, x: Tensor) -> Tensor:
        res: Tensor = self.body(x)
        return res + x


class Published(nn.Module):
    """What both have around their bodies; maps (B, 3, h, w) in 0 … 255 to (B, 3, s·h, s·w)."""

    def __init__(self, scale: int, features: int, body: list[nn.Module]) -> None:
        super().__init__()
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.head = nn.Sequential(conv(3, features))
        self.body = nn.Sequential(*body, conv(features, features))
        self.tail = nn.Sequential(Upsampler(scale, features), conv(features, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.sub_mean(x))
        res = self.body(x)
        res += x
        sr: Tensor = self.add_mean(self.tail(res))
        return sr


def edsr(scale: int, features: int, blocks: int, res_scale: float = 1) -> Published:
    return Published(scale, features, [ResBlock(features, res_scale) for _ in range(blocks)])


def rcan(scale: int, features: int, groups: int, blocks: int, reduction: int = 16) -> Published:
    return Published(scale, features, [ResidualGroup(features, blocks, reduction) for _ in range(groups)])


def trained(network: Published, scale: int) -> Published:
    """As if it had been trained: about the nearest pixel, and in each layer something of its own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "mean" not in name:
                parameter.copy_(0.01 * torch.randn(parameter.shape, generator=generator))
        state = dict(network.named_parameters())
        for channel in range(3):
            state["head.0.weight"][channel, channel, 1, 1] += 1
            state["tail.1.weight"][channel, channel, 1, 1] += 1
            for place in range(scale**2):
                state["tail.0.0.weight"][scale**2 * channel + place, channel, 1, 1] += 1
    return network.eval()
