"""Whether spandrel, which chaiNNer reads networks with, opens what gpnas writes, and computes the same.

    python experiments/opening.py write WORK
    SPANDREL/bin/python experiments/opening.py open WORK [-o experiments/results/opening.md]

The first command writes networks of every family that has official code, with weights by chance, as `gpnas
convert` does, and what they make of an image. The second runs in an environment with spandrel, which needs
torchvision and so other packages than gpnas: `python -m venv SPANDREL`, `SPANDREL/bin/pip install torchvision
spandrel`. It opens each file by spandrel alone and compares.
"""

from __future__ import annotations

import argparse
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

SUFFIXES = (".safetensors", ".pth")
NETWORKS: list[tuple[str, int, dict[str, int | bool]]] = [
    ("rcan", 2, {"features": 24, "groups": 2, "blocks": 3}),
    ("rcan", 4, {"features": 64, "groups": 2, "blocks": 2}),
    ("edsr", 2, {"features": 24, "blocks": 4}),
    ("rrdb", 4, {"features": 32, "blocks": 2, "growth": 32}),
    ("rrdb", 2, {"features": 32, "blocks": 2, "growth": 32}),
    ("rrdb", 2, {"features": 32, "blocks": 2, "growth": 32, "unshuffle": 2}),
    ("rrdb", 4, {"features": 32, "blocks": 2, "growth": 16}),
    ("span", 2, {"features": 48, "blocks": 6}),
    ("span", 4, {"features": 24, "blocks": 6}),
    ("span", 2, {"features": 24, "blocks": 3}),
    ("plksr", 2, {"features": 64, "blocks": 12, "kernel": 13, "attention": False}),
    ("plksr", 3, {"features": 24, "blocks": 5, "kernel": 13}),
    ("plksr", 4, {"features": 64, "blocks": 4, "kernel": 17}),
    ("safmn", 2, {"features": 36, "blocks": 8}),
    ("safmn", 4, {"features": 24, "blocks": 4}),
    ("nafnet", 2, {"width": 32, "blocks": 4}),
    ("compact", 2, {"features": 64, "convolutions": 16}),
    ("compact", 4, {"features": 24, "convolutions": 4}),
    ("swinir", 2, {"features": 24, "groups": 1, "blocks": 2, "heads": 4}),
    ("swinir", 4, {"features": 60, "groups": 2, "blocks": 2, "heads": 6}),
    ("dual_regression", 4, {"features": 8, "blocks": 2}),
]


def stem(number: int) -> str:
    family, scale, _ = NETWORKS[number]
    return f"{number:02d}-{family}-x{scale}"


def write(folder: Path) -> None:
    from gpnas_trainers import build
    from gpnas_trainers.converting import save_official

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    image = torch.rand(1, 3, 32, 48)
    np.save(folder / "image.npy", image.numpy())
    for number, (family, scale, axes) in enumerate(NETWORKS):
        network = build(family, scale, **axes).eval()
        with torch.no_grad():
            for parameter in network.parameters():  # so that none is 0
                parameter.add_(0.02 * torch.randn_like(parameter))
            network.load_state_dict(network.state_dict())
            np.save(folder / f"{stem(number)}.npy", network(image).numpy())
        for suffix in SUFFIXES:
            save_official(network, folder / f"{stem(number)}{suffix}")


def opened(path: Path, image: torch.Tensor, expected: np.ndarray) -> str:
    """What spandrel makes of a file, in words."""
    from spandrel import ModelLoader

    try:
        model = ModelLoader().load_from_file(path)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split(":")[0]
        return f"refused: {reason}"
    with torch.no_grad():
        found = model.model.eval()(image.clone()).numpy()
    if found.shape != expected.shape:
        return f"taken for ×{model.scale}"
    return f"{np.abs(found - expected).max() / np.abs(expected).max():.1e}"


def open_all(folder: Path) -> str:
    image = torch.from_numpy(np.load(folder / "image.npy"))
    lines = [
        "# Files of ours in spandrel",
        "",
        f"spandrel {version('spandrel')}, torch {version('torch')}; {date.today()}. Largest difference of a "
        "pixel from what gpnas computes, over the largest pixel.",
        "",
        f"| family | scale | axes | {' | '.join(SUFFIXES)} |",
        "|---|---|---|---|---|",
    ]
    for number, (family, scale, axes) in enumerate(NETWORKS):
        expected = np.load(folder / f"{stem(number)}.npy")
        told = [opened(folder / f"{stem(number)}{suffix}", image, expected) for suffix in SUFFIXES]
        sizes = ", ".join(f"{name} {value}" for name, value in axes.items())
        lines.append(f"| {family} | ×{scale} | {sizes} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("what", choices=("write", "open"))
    options.add_argument("work", type=Path)
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    if arguments.what == "write":
        write(arguments.work)
        return
    text = open_all(arguments.work)
    print(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
