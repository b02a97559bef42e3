"""`gpnas tell`: what a training of one's own came to."""

from __future__ import annotations

import argparse

from gpnas.cli.reporting import Report
from gpnas.errors import TrialError
from gpnas.opening import open_search
from gpnas.own_search import OwnSearch


def run(options: argparse.Namespace) -> Report:
    kinds = ("failed", "progress", "give_back", "architecture")
    chosen = [name for name in kinds if getattr(options, name)]
    if len(chosen) > 1:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise TrialError(f"one thing is told at a time, but got {names}; tell each by itself")
    kind = chosen[0] if chosen else "value"
    wanted = {"value": "CANDIDATE VALUE", "architecture": ""}.get(kind, "CANDIDATE")
    if len(options.words) != len(wanted.split()):
        raise TrialError(
            f"`gpnas tell RUN` takes {wanted or 'nothing more'} here, but got {' '.join(options.words)!r:.80}"
        )
    with open_search(options.search, bound=False) as search:
        return _told(search, kind, options)


def _told(search: OwnSearch, kind: str, options: argparse.Namespace) -> Report:
    words, lease = options.words, options.lease
    metrics = dict(_metric(text) for text in options.metric)
    if kind == "architecture":
        network, told = options.architecture
        value, seconds = _number(told), options.seconds or 0.0
        candidate = search.enter(search.named(network), value, seconds=seconds, **metrics)
        return Report(
            {"candidate": candidate.id, "counted": True},
            [f"{candidate.id}: {candidate.architecture} is entered"],
        )
    name = words[0]
    if kind == "progress":
        step, value = options.progress
        if not step.isascii() or not step.isdigit():
            raise TrialError(f"a step must be a whole number of at least 0, but got {step!r:.40}")
        verdict = search.progress(
            name, int(step), _number(value), checkpoint=options.checkpoint, lease=lease, **metrics
        )
        told = {"answer": verdict.word, "chance": verdict.chance, "reason": verdict.reason}
        return Report({"candidate": name, **told}, [verdict.word])
    if kind == "give_back":
        search.give_back(name, lease=lease)
        return Report({"candidate": name, "given_back": True}, [f"{name}: given back"])
    if kind == "failed":
        counts = search.failed(name, options.failed, seconds=options.seconds, lease=lease)
    else:
        counts = search.tell(name, _number(words[1]), seconds=options.seconds, lease=lease, **metrics)
    line = "observed" if counts else "it was observed before: the first observation counts, this one is noted"
    return Report({"candidate": name, "counted": counts}, [f"{name}: {line}"])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TrialError(
            f"a value must be a number, but got {text!r:.60}; tell a failed training by --failed"
        ) from None


def _metric(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise TrialError(f"--metric must be like loss=0.25, but got {text!r:.60}")
    return name, _number(value)
