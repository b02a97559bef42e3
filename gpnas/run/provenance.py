"""Where a run's results come from: recorded with each, so that they can be reproduced."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("gpnas", "torch", "ray", "gpytorch", "botorch", "numpy", "scipy", "pytorch-msssim")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, str | int | float]:
    """What this machine is, without a name or address of it."""
    described: dict[str, str | int | float] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count() or 1,
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name(0)
        described["gpus"] = torch.cuda.device_count()
    return described
