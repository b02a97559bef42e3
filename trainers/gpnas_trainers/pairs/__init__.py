"""LR/HR pairs: reading images, the synthetic camera, preparing sets once, drawing patches.

Pairs are prepared once into a folder of flat, memory-mapped files (`prepare_photographs`,
`prepare_folder`), which any number of processes then open (`open_pairs`) and share.
"""

from __future__ import annotations

from gpnas_trainers.pairs.camera import Camera, bicubic_upscale
from gpnas_trainers.pairs.folder import ncc, prepare_folder
from gpnas_trainers.pairs.images import (
    SUFFIXES,
    PairsError,
    read_rgb,
    read_size,
    to_pixels,
    to_tensor,
    write_rgb,
)
from gpnas_trainers.pairs.photographs import PHOTOGRAPHS, Photograph, prepare_photographs
from gpnas_trainers.pairs.prepared import PairSet, open_pairs
from gpnas_trainers.pairs.sources import cache_folder, prepare

__all__ = [
    "PHOTOGRAPHS",
    "SUFFIXES",
    "Camera",
    "PairSet",
    "PairsError",
    "Photograph",
    "bicubic_upscale",
    "cache_folder",
    "ncc",
    "open_pairs",
    "prepare",
    "prepare_folder",
    "prepare_photographs",
    "read_rgb",
    "read_size",
    "to_pixels",
    "to_tensor",
    "write_rgb",
]
