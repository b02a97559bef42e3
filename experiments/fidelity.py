"""How far a short training tells the order in which networks end, within and between families.

    python experiments/fidelity.py [WORK --long 1200] [-o results/fidelity.md]

From the learning curves of `family_table.py`: the share of pairs of networks whose order at an earlier step
is that at the end, of pairs within a family and between families; pairs that end within 0.02 dB of each
other do not count. Then the same where each network is expected to gain, from that step on, what the others
of its family gain on average (those of all families where it is alone). With WORK, where `family_table.py`
trained, the table's networks are trained for longer, too, and the table's trainings set beside those.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from family_table import STEPS, TABLE, planned
from machine import processor, versions
from members import Cache, alone_of, skipped

CLOSE = 0.02
"""dB."""


@dataclass(frozen=True)
class Course:
    """PSNR of a network, by step, and where it ends."""

    family: str
    curve: dict[int, float]
    end: float


def of_table() -> list[Course]:
    with TABLE.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "0"]
    found = []
    for row in rows:
        curve = {
            int(step): float(psnr) for step, _, psnr in (each.partition(":") for each in row["curve"].split())
        }
        found.append(Course(row["family"], curve, curve[max(curve)]))
    return found


def of_folder(work: Path, steps: int) -> list[Course]:
    """The table's networks, trained for as long as in the table and for longer."""
    with TABLE.open(encoding="utf-8") as file:
        count = sum(1 for _ in csv.DictReader(file))
    cache, found = Cache(work), []
    for each in planned()[:count]:
        if each.seed == 0:
            longer = replace(each, steps=steps)
            short, end = alone_of(cache.products([each, longer])).mean(axis=0).tolist()
            found.append(Course(each.family, {each.steps: short}, end))
    return found


def agreement(courses: Sequence[Course], early: Sequence[float]) -> tuple[str, str]:
    """Shares of pairs in order, within and between families, with how many there are."""
    held: dict[bool, list[bool]] = {True: [], False: []}
    for (one, a), (other, b) in itertools.combinations(zip(courses, early, strict=True), 2):
        if abs(one.end - other.end) > CLOSE:
            held[one.family == other.family].append((a > b) == (one.end > other.end))
    within, between = (
        f"{100 * np.mean(held[same]):.0f} % of {len(held[same])}" if held[same] else "-"
        for same in (True, False)
    )
    return within, between


def expected(courses: Sequence[Course], step: int) -> list[float]:
    """Ends as the gains of the others of a family foretell them."""
    found = []
    for place, each in enumerate(courses):
        others = [other for number, other in enumerate(courses) if number != place]
        own = [other for other in others if other.family == each.family] or others
        found.append(each.curve[step] + float(np.mean([other.end - other.curve[step] for other in own])))
    return found


def rows(courses: Sequence[Course], last: int) -> list[str]:
    steps = sorted(set.intersection(*(set(each.curve) for each in courses)) - {last})
    lines = []
    for step in steps:
        plain = agreement(courses, [each.curve[step] for each in courses])
        ahead = agreement(courses, expected(courses, step))
        lines.append(f"| {step} of {last} | {plain[0]} | {plain[1]} | {ahead[0]} | {ahead[1]} |")
    return lines


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("work", type=Path, nargs="?")
    options.add_argument("--long", type=int, default=1200, help="steps of the long trainings")
    options.add_argument("-o", "--output", type=Path, help="a Markdown file")
    arguments = options.parse_args()
    table = of_table()
    told = rows(table, STEPS)
    if arguments.work is not None and not skipped():
        told += rows(of_folder(arguments.work, arguments.long), arguments.long)
    lines = [
        "# What a short training tells",
        "",
        f"{processor()}; {versions(('gpnas', 'torch'))}; {date.today()}. {len(table)} networks of "
        f"{len({each.family for each in table})} families, City100 ×2: shares of pairs in the order in "
        "which they "
        "end; expected: with what others of the family gain from there on.",
        "",
        "| steps | within families | between | within, expected | between, expected |",
        "|---|---|---|---|---|",
        *told,
    ]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
