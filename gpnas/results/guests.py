"""Networks that no trial of a run trained, measured beside those that did: published files, ONNX, one's own.

They are judged on the run's validation images, by the products of their errors with all others'.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpnas.bundle import Graph
from gpnas.errors import DataError
from gpnas.files import read
from gpnas.portfolio import Floats, ensemble_psnr
from gpnas.records import Architecture, Candidate, Fidelity
from gpnas.run import pricing
from gpnas.run.layout import candidate_folder
from gpnas.run.products import products_of
from gpnas.run.residuals import ERRORS_FILE, residual_products, write_errors
from gpnas.run.storage import Folder, storage_in
from gpnas_trainers import graphs
from gpnas_trainers.contract import MULTIPLES
from gpnas_trainers.cost import TILE
from gpnas_trainers.families import FAMILIES, declare
from gpnas_trainers.graphs import RANGES, ConversionError, OnnxNetwork
from gpnas_trainers.metrics import psnr
from gpnas_trainers.own import Code, OwnError, in_words, own_family, place_of, read_named
from gpnas_trainers.pairs import PairSet, bicubic_upscale
from gpnas_trainers.rehearsal import Rehearsal, rehearse
from gpnas_trainers.weights import WeightsError, load_published

REFERENCE = re.compile(r"[^:]+:[A-Za-z_]\w*")
"""The form of a function's name, as `nets.py:load`."""
LEAST_SHARE = 0.8
"""The least share of the bicubic image's variance that a network must explain; one of another range is far
below."""
RANGE_GAIN = 1.0
"""dB that an ONNX file must be better by with pixels of another range than 0 … 1 to be taken for such."""
CROP = 96
"""LR pixels of a side of what is looked at for this."""
SIDES = (13, 9)
"""LR pixels of an image that every network must be able to take."""


@dataclass(frozen=True, eq=False)
class Guest:
    """A network that joins those of a run."""

    candidate: Candidate
    """Which names it, and says what it is; nothing of the run's journal."""
    network: nn.Module
    """The network with its weights, on the CPU, ready for inference."""
    state: Mapping[str, Tensor]
    """The tensors that a bundle holds."""
    gmacs: float
    """GMACs at 120×120 LR pixels."""
    parameters: int
    source: Mapping[str, str] | None = None
    """`network` and `sha256` of its source, where it has one of its own."""


@dataclass(frozen=True, eq=False)
class Company:
    """The networks of a run and its guests, measured together."""

    guests: tuple[Guest, ...]
    gram: Floats  # (I, n, n)
    """Mean products of the residuals of all: the run's candidates first, then the guests."""
    psnr: Mapping[str, float] = field(default_factory=dict)
    """The PSNR of each guest alone, in dB, by its name."""

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "id": each.candidate.id,
                "architecture": each.candidate.architecture.to_json(),
                "psnr": self.psnr[each.candidate.id],
                "gmacs": each.gmacs,
                "parameters": each.parameters,
            }
            for each in self.guests
        ]

    @property
    def sources(self) -> dict[str, dict[str, str]]:
        """The sources of guests that have one of their own, by family."""
        return {
            each.candidate.architecture.family: dict(each.source)
            for each in self.guests
            if each.source is not None
        }

    def by_name(self, name: str) -> Guest | None:
        return next((each for each in self.guests if each.candidate.id == name), None)


def read_guests(texts: Sequence[str], pairs: PairSet) -> tuple[Guest, ...]:
    """Networks that a user names, each checked for scale and range on a validation image.

    Args:
        texts: files of published weights, ONNX files, or `nets.py:load`.
        pairs: the run's validation images.

    Raises:
        DataError: one cannot be read, is of another scale, or makes no such images.
    """
    guests: list[Guest] = []
    for number, text in enumerate(texts, start=1):
        try:
            guests.append(_guest(f"with-{number}", text, pairs))
        except (ConversionError, OwnError, WeightsError, OSError, ValueError) as error:
            reason = " ".join(str(error).split()).removeprefix(f"{text}: ")
            raise DataError(f"--with {text}: {reason}") from None
        taken = [each.candidate.architecture.family for each in guests if each.source is not None]
        if len(set(taken)) < len(taken):
            raise DataError(
                f"--with {text}: functions must have names of their own, but {taken[-1]} is taken; rename one"
            )
    return tuple(guests)


def measured(run: Path, candidates: Sequence[Candidate], guests: Sequence[Guest], pairs: PairSet) -> Company:
    """A run's networks and its guests, by the products of their residuals.

    Raises:
        TrialError: residuals of the run are missing or damaged, or of other images.
    """
    storage, count = storage_in(run), len(candidates)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        beside = Folder(Path(folder))
        paths = [
            stack.enter_context(storage.reading(f"{candidate_folder(each)}/{ERRORS_FILE}"))
            for each in candidates
        ]
        for guest in guests:
            write_errors(beside, guest.candidate.id, guest.network, pairs)
            paths.append(Path(folder) / guest.candidate.id / ERRORS_FILE)
        rows = residual_products(paths, count)  # (I, n, guests)
    gram = np.zeros((len(rows), len(paths), len(paths)))
    gram[:, :count, :count] = products_of(run, candidates)
    gram[:, :, count:] = rows
    gram[:, count:, :] = rows.transpose(0, 2, 1)
    alone = ensemble_psnr(gram, np.arange(count, len(paths))[:, None]).tolist()
    names = [each.candidate.id for each in guests]
    return Company(tuple(guests), gram, dict(zip(names, alone, strict=True)))


def _guest(name: str, text: str, pairs: PairSet) -> Guest:
    path = Path(text)
    if path.suffix.lower() == ".onnx":
        return _onnx(name, path, pairs)
    if REFERENCE.fullmatch(text) and not path.exists():
        return _own(name, text, pairs)
    family, published = load_published(path)
    if published.scale != pairs.scale:
        raise ValueError(f"it must be of the run's scale {pairs.scale}, but is of {published.scale}")
    network = published.network.eval()
    _check(network, pairs)
    architecture = Architecture(family, published.axes)
    parameters, gmacs = pricing.costs_of(architecture, pairs.scale)
    return Guest(_candidate(name, architecture), network, network.state_dict(), gmacs, parameters)


def _onnx(name: str, path: Path, pairs: PairSet) -> Guest:
    content = read(path, graphs.MOST, follow=True)
    network = OnnxNetwork(content).eval()
    network.multiple_of = _multiple(network)
    best, found = -math.inf, ("0..1", "0..1")
    for network.takes, network.makes in sorted(product(RANGES, RANGES), key=lambda each: each[0] != each[1]):
        _, value = _seen(network, pairs)
        if value > best + RANGE_GAIN:
            best, found = value, (network.takes, network.makes)
    network.takes, network.makes = found
    _check(network, pairs)
    count = graphs.parameters(content)
    architecture = Architecture("onnx", {"file": path.name, **network.axes})
    costs = graphs.gmacs(network, TILE, TILE)
    return Guest(_candidate(name, architecture), network, Graph(content, max(1, count)), costs, count)


def _multiple(network: OnnxNetwork) -> int:
    """The least number of which the sides of images must be multiples; 1 where none helps."""
    for network.multiple_of in (1, *MULTIPLES):
        with suppress(ConversionError):
            network(torch.rand(1, 3, *SIDES))
            return network.multiple_of
    return 1


def _own(name: str, text: str, pairs: PairSet) -> Guest:
    code = read_named(text)
    entry = code.entry
    if entry in FAMILIES:
        raise OwnError(f"a function must have a name of its own, but {entry} is a built-in family")
    tried = [Rehearsal(code, "pass", family=entry), Rehearsal(code, "costs", family=entry)]
    _, (costs,) = rehearse(tried, pairs.scale)
    family = own_family(entry, code)
    declare(family)
    network = family.build(pairs.scale).eval()
    _check(network, pairs, code)
    source = {"network": code.network, "sha256": code.sha256}
    candidate, state = _candidate(name, Architecture(entry, {})), network.state_dict()
    return Guest(candidate, network, state, costs.gmacs, costs.parameters, source)


def _candidate(name: str, architecture: Architecture) -> Candidate:
    return Candidate(name, architecture, Fidelity(1), 0, {"phase": "named by --with"})


def _check(network: nn.Module, pairs: PairSet, code: Code | None = None) -> None:
    """Raises a `ValueError` unless a network makes finite images of the scale that are like their input."""
    lr = torch.rand(1, 3, *SIDES)
    try:
        with torch.inference_mode():
            sr = network(lr)
    except ConversionError:
        raise
    except (Exception, SystemExit) as error:
        place = f"{place_of(error, code.file)}: " if code is not None else ""
        raise OwnError(f"{place}it must take an image of 13×9 LR pixels, but {in_words(error)}") from None
    expected = (1, 3, *(pairs.scale * side for side in SIDES))
    if not isinstance(sr, Tensor) or tuple(sr.shape) != expected:
        made = tuple(sr.shape) if isinstance(sr, Tensor) else type(sr).__name__
        raise ValueError(
            f"it must make {expected} of {tuple(lr.shape)}, at scale {pairs.scale}, but made {made}"
        )
    share, _ = _seen(network, pairs)
    if not share >= LEAST_SHARE:
        raise ValueError(
            "it must take and make RGB in [0, 1], but of a validation image it makes something else: it has "
            f"{max(0.0, share):.0%} of the variance of the image"
        )


def _seen(network: nn.Module, pairs: PairSet) -> tuple[float, float]:
    """What a network makes of a part of a validation image.

    Returns:
        The share of the bicubic image's variance that it explains, at most 1, and its PSNR in dB beside HR;
        -inf both where it makes no image.
    """
    lr, hr = pairs.tensors(0)
    lr, hr = lr[:, :CROP, :CROP], hr[:, : pairs.scale * CROP, : pairs.scale * CROP]
    bicubic = bicubic_upscale(lr, pairs.scale)
    try:
        with torch.inference_mode():
            sr = network(lr[None])[0]
        missing = float((sr - bicubic).square().mean() / bicubic.var().clamp(min=1e-4))
        value = psnr(sr, hr)
    except (RuntimeError, ValueError):
        return -math.inf, -math.inf
    return (1 - missing, value) if math.isfinite(missing) else (-math.inf, -math.inf)


def costs_of(guests: Sequence[Guest]) -> Floats:  # (m, 2)
    """GMACs and parameters of each guest."""
    return np.array([[each.gmacs, each.parameters] for each in guests], np.float64).reshape(-1, 2)
