"""LR/HR pairs: the synthetic camera, sets that are prepared once, patches drawn from them.

Pairs are prepared once into a folder of memory-mapped shards (`prepare_photographs`, `prepare_folder`), which
any number of processes then open (`open_pairs`) and share.
"""

from __future__ import annotations

from gpnas_trainers.pairs.camera import Camera, bicubic_upscale
from gpnas_trainers.pairs.checks import ncc, shift
from gpnas_trainers.pairs.errors import PairsError
from gpnas_trainers.pairs.examining import Measured
from gpnas_trainers.pairs.exclusion import Exclusion
from gpnas_trainers.pairs.folder import Checked, check_folder, prepare_folder
from gpnas_trainers.pairs.manifest import SPLITS, Manifest, read_manifest
from gpnas_trainers.pairs.photographs import PHOTOGRAPHS, prepare_photographs
from gpnas_trainers.pairs.prepared import PairSet, open_pairs
from gpnas_trainers.pairs.rules import MINIMUM_NCC, PAPER, Rules
from gpnas_trainers.pairs.sources import cache_folder, prepare

__all__ = [
    "MINIMUM_NCC",
    "PAPER",
    "PHOTOGRAPHS",
    "SPLITS",
    "Camera",
    "Checked",
    "Exclusion",
    "Manifest",
    "Measured",
    "PairSet",
    "PairsError",
    "Rules",
    "bicubic_upscale",
    "cache_folder",
    "check_folder",
    "ncc",
    "open_pairs",
    "prepare",
    "prepare_folder",
    "prepare_photographs",
    "read_manifest",
    "shift",
]
