"""LR/HR pairs: reading images, the synthetic camera, preparing sets once, drawing patches.

Pairs are prepared once into a folder of memory-mapped shards (`prepare_photographs`, `prepare_folder`,
`prepare_synthetic`), which any number of processes then open (`open_pairs`) and share.
"""

from __future__ import annotations

from gpnas_trainers.images.reading import (
    SUFFIXES,
    PairsError,
    read_header,
    read_levels,
    read_rgb,
    read_size,
    to_pixels,
    to_tensor,
    write_rgb,
)
from gpnas_trainers.pairs.camera import Camera, bicubic_upscale
from gpnas_trainers.pairs.checks import ncc, shift
from gpnas_trainers.pairs.exclusion import Exclusion
from gpnas_trainers.pairs.folder import Checked, check_folder, prepare_folder, prepare_synthetic
from gpnas_trainers.pairs.photographs import PHOTOGRAPHS, Photograph, prepare_photographs
from gpnas_trainers.pairs.prepared import PairSet, open_pairs, read_manifest
from gpnas_trainers.pairs.sources import MINIMUM_NCC, cache_folder, prepare

__all__ = [
    "MINIMUM_NCC",
    "PHOTOGRAPHS",
    "SUFFIXES",
    "Camera",
    "Checked",
    "Exclusion",
    "PairSet",
    "PairsError",
    "Photograph",
    "bicubic_upscale",
    "cache_folder",
    "check_folder",
    "ncc",
    "open_pairs",
    "prepare",
    "prepare_folder",
    "prepare_photographs",
    "prepare_synthetic",
    "read_header",
    "read_levels",
    "read_manifest",
    "read_rgb",
    "read_size",
    "shift",
    "to_pixels",
    "to_tensor",
    "write_rgb",
]
