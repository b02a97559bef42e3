"""Super-resolution networks, their data, training and use; without Ray and without the search."""

from gpnas_trainers.families import FAMILIES as FAMILIES
from gpnas_trainers.families import SCALES as SCALES
from gpnas_trainers.families import NetworkAxis as NetworkAxis
from gpnas_trainers.families import NetworkFamily as NetworkFamily
from gpnas_trainers.families import build as build
from gpnas_trainers.families import check as check
