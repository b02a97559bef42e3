"""Image files and their pixels: strictly RGB in, whole or by rows; atomically out."""

from __future__ import annotations

from gpnas_trainers.images.decoding import read_levels as read_levels
from gpnas_trainers.images.decoding import reading as reading
from gpnas_trainers.images.encoding import SUFFIXES as SUFFIXES
from gpnas_trainers.images.encoding import bits_of as bits_of
from gpnas_trainers.images.encoding import check_target as check_target
from gpnas_trainers.images.encoding import format_of as format_of
from gpnas_trainers.images.encoding import writing as writing
from gpnas_trainers.images.errors import ImageError as ImageError
from gpnas_trainers.images.errors import NotRgb as NotRgb
from gpnas_trainers.images.header import Header as Header
from gpnas_trainers.images.header import read_header as read_header
from gpnas_trainers.images.listing import list_images as list_images
from gpnas_trainers.images.metadata import Metadata as Metadata
from gpnas_trainers.images.metadata import for_format as for_format
