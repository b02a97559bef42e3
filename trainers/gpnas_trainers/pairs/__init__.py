"""LR/HR pairs: reading images, the synthetic camera, preparing sets once, drawing patches.

Pairs are prepared once into a folder of flat, memory-mapped files (`prepare_photographs`,
`prepare_folder`), which any number of processes then open (`open_pairs`) and share.
"""

from __future__ import annotations

from gpnas_trainers.pairs.camera import Camera, bicubic_upscale
from gpnas_trainers.pairs.images import PairsError, read_rgb, read_size, write_rgb
from gpnas_trainers.pairs.prepared import PairSet, open_pairs
from gpnas_trainers.pairs.sources import PHOTOGRAPHS, Photograph, prepare_folder, prepare_photographs

__all__ = [
    "PHOTOGRAPHS",
    "Camera",
    "PairSet",
    "PairsError",
    "Photograph",
    "bicubic_upscale",
    "open_pairs",
    "prepare_folder",
    "prepare_photographs",
    "read_rgb",
    "read_size",
    "write_rgb",
]
