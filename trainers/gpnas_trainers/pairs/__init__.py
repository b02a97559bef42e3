"""LR/HR pairs: the synthetic camera, sets that are prepared once, patches drawn from them.

Pairs are prepared once into a folder of memory-mapped shards (`prepare_photographs`, `prepare_folder`), which
any number of processes then open (`open_pairs`) and share.
"""

from __future__ import annotations

from gpnas_trainers.pairs.camera import Camera as Camera
from gpnas_trainers.pairs.camera import bicubic_upscale as bicubic_upscale
from gpnas_trainers.pairs.checks import ncc as ncc
from gpnas_trainers.pairs.checks import shift as shift
from gpnas_trainers.pairs.errors import PairsError as PairsError
from gpnas_trainers.pairs.examining import Measured as Measured
from gpnas_trainers.pairs.exclusion import Exclusion as Exclusion
from gpnas_trainers.pairs.folder import Checked as Checked
from gpnas_trainers.pairs.folder import check_folder as check_folder
from gpnas_trainers.pairs.folder import prepare_folder as prepare_folder
from gpnas_trainers.pairs.manifest import SPLITS as SPLITS
from gpnas_trainers.pairs.manifest import Manifest as Manifest
from gpnas_trainers.pairs.manifest import read_manifest as read_manifest
from gpnas_trainers.pairs.photographs import PHOTOGRAPHS as PHOTOGRAPHS
from gpnas_trainers.pairs.photographs import prepare_photographs as prepare_photographs
from gpnas_trainers.pairs.prepared import PairSet as PairSet
from gpnas_trainers.pairs.prepared import open_pairs as open_pairs
from gpnas_trainers.pairs.rules import MINIMUM_NCC as MINIMUM_NCC
from gpnas_trainers.pairs.rules import PAPER as PAPER
from gpnas_trainers.pairs.rules import Rules as Rules
from gpnas_trainers.pairs.sources import cache_folder as cache_folder
from gpnas_trainers.pairs.sources import prepare as prepare
