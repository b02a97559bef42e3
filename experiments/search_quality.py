"""How good searches are, simulated on tables of real trainings.

    python experiments/search_quality.py --peers random botorch gpnas --tables phoneme car
    python experiments/search_quality.py --redo gpnas                   # anew, and no other
    python experiments/search_quality.py --workers 4                    # four trials at any time
    python experiments/search_quality.py --report                       # only the summary
    python experiments/search_quality.py --beside OWN.csv OTHER.csv     # two engines, seed by seed

Under each seed another random tenth of a table's networks is left out, so that searches differ from
their first training on. A search asks for an architecture and is told one of its trainings, drawn at
random but alike for all searches: the k-th training of a row under a seed is the same whoever asks. Its
regret is the table's best mean over replicates less the mean of what it recommends. With `--workers 4`,
four trials are under way at any time and end in a random order.

Each (table, search, seed, workers) is appended to `results/search_quality.csv` as soon as it is
finished and not run again, so a run may be interrupted and extended. The whole is summarised in
`results/search_quality.md`. Seconds are the processor's, on one thread: of a whole search, over its trials.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import io
import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from machine import processor, versions
from numpy.typing import NDArray
from peers import PACKAGES, PEERS, Peer, quieten
from scipy.stats import kendalltau
from tables import TABLES, Table, load_table

RESULTS = Path(__file__).resolve().parent / "results"
ROWS = RESULTS / "search_quality.csv"
REPORT = RESULTS / "search_quality.md"
BESIDE = RESULTS / "search_quality_engines.md"
RESAMPLES = 4000
"""Bootstrap samples of seeds."""

REGRETS = (10, 20, 40)
"""Trials after which a recommendation is judged."""
RANKS = (12, 24, 40)
"""Trials after which the ranking of the whole table is judged."""
COVERED = 24
"""Trials after which predictive intervals are judged."""

KEY = ["table", "peer", "seed", "workers", "budget"]
COLUMNS = [
    *KEY,
    "rule",
    *(f"regret_{trials}" for trials in REGRETS),
    *(f"tau_{trials}" for trials in RANKS),
    f"coverage_{COVERED}",
    "repeats",
    "seconds_per_suggestion",
    "date",
]
Row = dict[str, str]


def simulate(table: Table, name: str, seed: int, *, workers: int, budget: int) -> list[Row]:
    """One search on one table: a row for each rule of recommendation.

    Raises:
        ImportError: the search's package is missing.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  what packages draw from behind our back
    replicates = table.runs.shape[1]
    draws = np.random.default_rng((seed, 1)).permuted(
        np.tile(np.arange(replicates), (len(table.space), 1)), axis=1
    )
    completion = np.random.default_rng((seed, 2))
    visits: dict[int, int] = defaultdict(int)
    begun = time.process_time()
    peer = PEERS[name](table, seed, budget)
    seconds = [time.process_time() - begun]
    pending: list[int] = []
    measured: dict[str, Row] = defaultdict(dict)
    while len(peer.told) < budget:
        begun = time.process_time()
        while len(pending) < min(workers, budget - len(peer.told)):
            pending.append(peer.ask())
        index = pending.pop(int(completion.integers(len(pending))))
        value = table.runs[index, draws[index, visits[index] % replicates]]
        visits[index] += 1
        peer.tell(index, float(value))
        seconds.append(time.process_time() - begun)
        _measure(table, peer, measured)
    shared = measured.pop("", {})
    known = {"table": table.name, "peer": name, "seed": seed, "workers": workers, "budget": budget}
    return [
        {
            **{column: str(value) for column, value in known.items()},
            "rule": rule,
            **row,
            **shared,
            "repeats": str(budget - len(visits)),
            "seconds_per_suggestion": f"{sum(seconds) / budget:.4f}",
            "date": str(date.today()),
        }
        for rule, row in measured.items()
    ]


def _measure(table: Table, peer: Peer, measured: dict[str, Row]) -> None:
    """Judges a search where it stands; what does not depend on the rule goes under ''."""
    trials, mean = len(peer.told), table.mean
    if trials in REGRETS:
        for rule, index in peer.recommend().items():
            measured[rule][f"regret_{trials}"] = f"{mean.max() - mean[index]:.6g}"
    if trials not in (*RANKS, COVERED):
        return
    prediction = peer.predict()
    if prediction is None:
        return
    if trials in RANKS:
        measured[""][f"tau_{trials}"] = f"{kendalltau(prediction.mean, mean).statistic:.4f}"
    if trials == COVERED:
        low, high = prediction.low[:, None], prediction.high[:, None]
        inside = (low <= table.runs) & (table.runs <= high)
        measured[""][f"coverage_{COVERED}"] = f"{inside.mean():.4f}"


@contextmanager
def locked() -> Iterator[None]:
    """Several runs may add to the results at once."""
    RESULTS.mkdir(exist_ok=True)
    descriptor = os.open(RESULTS, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_rows() -> list[Row]:
    if not ROWS.exists():
        return []
    with ROWS.open(newline="") as file:
        # a line that was cut off has no date
        return [row for row in csv.DictReader(file) if row["date"]]


def _text(rows: list[Row], *, header: bool) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def append_rows(rows: list[Row]) -> None:
    with locked():
        text = _text(rows, header=not ROWS.exists())
        with ROWS.open("a") as file:
            file.write(text)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def forget(arguments: argparse.Namespace) -> None:
    """Drops the rows of searches that are to be run again, within what was asked for."""
    with locked():
        kept = [
            row
            for row in read_rows()
            if row["peer"] not in arguments.peers
            or row["table"] not in arguments.tables
            or int(row["seed"]) >= arguments.seeds
            or int(row["workers"]) != arguments.workers
            or int(row["budget"]) != arguments.budget
        ]
        _replace(ROWS, _text(kept, header=True))


def spread(values: list[str], factor: float = 1.0, digits: int = 2) -> str:
    """Median and quartiles of what is known."""
    known = [factor * float(value) for value in values if value]
    if not known:
        return "–"
    low, median, high = np.quantile(known, (0.25, 0.5, 0.75))
    return f"{median:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def mean_of(values: list[str]) -> str:
    known = [float(value) for value in values if value]
    return f"{np.mean(known):.2f}" if known else "–"


def scatter(table: Table) -> str:
    """How far trainings of one network lie apart, and networks."""
    replicates = table.runs.shape[1]
    noise = table.runs.var(axis=1, ddof=1).mean()
    signal = max(0.0, float(table.mean.var(ddof=1) - noise / replicates))
    digits = 2 if table.factor == 1 else 1
    return (
        f"Standard deviation between trainings of one network {table.factor * noise**0.5:.{digits}f}, "
        f"between networks {table.factor * signal**0.5:.{digits}f}."
    )


def goals(groups: Mapping[tuple[str, int], Mapping[tuple[str, str], list[Row]]]) -> list[str]:
    """gpnas beside the best of the others, whoever that is at each count of trials, as Markdown."""
    heads = [f"{trials} trials" for trials in REGRETS]
    lines = [
        "",
        "## gpnas beside the best of the others",
        "",
        "Median regret of gpnas (posterior) / of whichever other search and rule is best at that count, and "
        "their ratio. The goal is a ratio of at most 0.5 after 10 and 20 trials, and of at most 1 after 40; "
        "**bold** where it is reached.",
        "",
        "| table | at a time | " + " | ".join(heads) + " |",
        "|" + "---|" * (len(heads) + 2),
    ]
    for (name, workers), listed in sorted(groups.items(), key=lambda each: (each[0][1], each[0][0])):
        table = load_table(name)
        own = listed.get(("gpnas", "posterior"))
        others = {key: rows for key, rows in listed.items() if not key[0].startswith("gpnas")}
        if table is None or not own or not others:
            continue
        cells = []
        for trials in REGRETS:
            medians = {
                key: table.factor * float(np.median([float(row[f"regret_{trials}"]) for row in rows]))
                for key, rows in {("gpnas", "posterior"): own, **others}.items()
            }
            ours = medians.pop(("gpnas", "posterior"))
            (peer, _), least = min(medians.items(), key=lambda each: each[1])
            reached = ours <= least * (1.0 if trials == REGRETS[-1] else 0.5)
            ratio = f"{ours / least:.2f}" if least > 0 else "1.00" if ours == least else "∞"
            digits = 3 if table.factor == 1 else 1
            cell = f"{ours:.{digits}f} / {least:.{digits}f} ({peer}): {ratio}"
            cells.append(f"**{cell}**" if reached else cell)
        lines.append(f"| {name} | {workers} | " + " | ".join(cells) + " |")
    return [*lines, "", *REMARKS]


REMARKS = [
    "Where the goal is missed: on phoneme, car and vehicle two trainings of one network lie further apart "
    "(standard deviation 8 to 21) than the twenty best networks do (within 5), so that 10 or 20 trainings "
    "hardly tell the leaders apart: no search gets far below random points there, and halving the best "
    "regret would take several trainings of each leader. On vehicle the axes tell little (τ below .3 for "
    "every model), and gpnas, which believes in them, is worse than random points after 10 and 20 trials. "
    "On macro it leads early; later the difference is one rank among 3,969 networks, and its noise, learned "
    "too large, makes the posterior mean distrust the best observation. What is predicted of networks not "
    "yet trained (τ) is better than by BoTorch's model with the same costs, but for phoneme after 24 "
    "trainings, where gpnas has trained leaders and their replicates instead of a spread of networks."
]


def report(budget: int) -> str:
    """All results of searches with this allowance, as Markdown."""
    groups: dict[tuple[str, int], dict[tuple[str, str], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows():
        if int(row["budget"]) == budget:
            groups[row["table"], int(row["workers"])][row["peer"], row["rule"]].append(row)
    known = versions(("torch", "gpytorch", "scipy", *PACKAGES.values()))
    lines = [
        "# Quality of search on tables of real trainings",
        "",
        f"{processor()}, one thread; Python {platform.python_version()}, {known}; {date.today()}.",
        "",
        f"Allowance {budget} trials. Regret of the recommended architecture: median (quartiles) over seeds. "
        "Recommended is the best that was observed, or the best posterior mean among those trained. τ: "
        "Kendall's, of the posterior mean over the whole table; coverage: of nominal 90 % predictive "
        f"intervals for single trainings of all rows, after {COVERED} trials; both are means over seeds. "
        "Repeats: trials spent on a network that had been trained, mean. Seconds: the processor's for a "
        "whole search over its trials, median.",
    ]
    lines += goals(groups)
    for workers in sorted({workers for _, workers in groups}):
        for name in TABLES:
            listed = groups.get((name, workers))
            if not listed:
                continue
            table = load_table(name)
            if table is None:
                continue
            at_once = "one trial at a time" if workers == 1 else f"{workers} trials at a time"
            lines += [
                "",
                f"## {name}, {at_once}",
                "",
                f"{len(table.space)} networks, regret in {table.unit}. {scatter(table)}",
            ]
            heads = [f"{trials} trials" for trials in REGRETS] + [f"τ {trials}" for trials in RANKS]
            heads = ["search", "recommends", "seeds", *heads, "coverage", "repeats", "s"]
            lines += ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
            order = list(PEERS)
            for (peer, rule), rows in sorted(listed.items(), key=lambda each: order.index(each[0][0])):
                cells = [peer, rule, str(len(rows))]
                for trials in REGRETS:
                    digits = 3 if table.factor == 1 else 1 if name != "drn" else 0
                    cells.append(spread([row[f"regret_{trials}"] for row in rows], table.factor, digits))
                cells += [mean_of([row[f"tau_{trials}"] for row in rows]) for trials in RANKS]
                cells.append(mean_of([row[f"coverage_{COVERED}"] for row in rows]))
                cells.append(f"{np.mean([int(row['repeats']) for row in rows]):.1f}")
                cells.append(f"{np.median([float(row['seconds_per_suggestion']) for row in rows]):.3f}")
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def beside(own: Path, other: Path) -> str:
    """One engine beside another, from rows that this script wrote with either: the same seeds, and so the
    same starts and the same noise."""
    engines = [_posterior_rows(path) for path in (own, other)]
    seeds = defaultdict(list)
    for table, seed in sorted(engines[0].keys() & engines[1].keys()):
        seeds[table].append(seed)
    names = [name for name in TABLES if seeds[name]]

    def of(name: str, column: str) -> NDArray[np.float64]:  # (seeds, 2)
        return np.array([[float(each[name, seed][column]) for each in engines] for seed in seeds[name]])

    random = np.random.default_rng(0)
    lines, ratios, largest = [], [], 0.0
    for trials in REGRETS:
        logs = np.zeros(1 + RESAMPLES)
        for name in names:
            table = load_table(name)
            regret = of(name, f"regret_{trials}") * (1 if table is None else table.factor)
            count, gap = len(regret), regret[:, 0] - regret[:, 1]
            picks = np.vstack([np.arange(count), random.integers(0, count, (RESAMPLES, count))])
            means = np.maximum(regret[picks].mean(axis=1), 1e-9)
            logs += np.log(means[:, 0] / means[:, 1]) / len(names)
            error = gap.std(ddof=1) / np.sqrt(count)
            largest = max(largest, abs(gap.mean()) / error)
            cells = [
                *(name, str(trials), str(count)),
                *(f"{mean:.3g}" for mean in means[0]),
                f"{gap.mean():+.2g} ± {error:.2g}",
                " / ".join(str(each.sum()) for each in (gap < 0, gap == 0, gap > 0)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        low, high = np.exp(np.quantile(logs[1:], [0.05, 0.95]))
        ratios.append(f"{np.exp(logs[0]):.2f} ({low:.2f} to {high:.2f}) after {trials}")
    columns = [*(f"tau_{trials}" for trials in RANKS), f"coverage_{COVERED}"]
    agreement = [
        [" / ".join(f"{each:.2f}" for each in of(name, column).mean(axis=0)) for column in columns]
        for name in names
    ]
    return f"""\
# One engine beside another on tables of real trainings

{processor()}, one thread; {versions(["torch", "gpytorch", "botorch"])}; {date.today()}.

`python experiments/search_quality.py --peers gpnas --seeds N` with the packages of either commit, then
`--beside OWN OTHER`. One trial at a time; regret of the best posterior mean, in the tables' units.

Geometric mean over tables of the ratio of mean regrets, own over other (90 % of bootstrap samples of seeds):
{", ".join(ratios)} trials. Where few seeds regret anything, a ratio says little. The largest difference is
{largest:.1f} times its error.

| table | trials | seeds | own | other | difference ± its error | better / equal / worse |
|---|---|---|---|---|---|---|
{chr(10).join(lines)}

Kendall's τ after {", ".join(map(str, RANKS))} trials and coverage after {COVERED}, own / other:

| table | {" | ".join(f"τ {trials}" for trials in RANKS)} | coverage |
|{"---|" * (2 + len(RANKS))}
{chr(10).join(f"| {name} | {' | '.join(cells)} |" for name, cells in zip(names, agreement, strict=True))}
"""


def _posterior_rows(path: Path) -> dict[tuple[str, int], Row]:
    """Rows of gpnas that recommend the best posterior mean, by table and seed."""
    rows = csv.DictReader(path.read_text().splitlines())
    chosen = [row for row in rows if (row["peer"], row["rule"]) == ("gpnas", "posterior")]
    return {(row["table"], int(row["seed"])): row for row in chosen}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=20)
    options.add_argument("--budget", type=int, default=40)
    options.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    options.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--redo", nargs="+", choices=list(PEERS), default=[], help="anew, and no other")
    options.add_argument("--report", action="store_true", help="run nothing, write the report")
    options.add_argument("--beside", nargs=2, type=Path, metavar=("OWN", "OTHER"), help="rows of two engines")
    arguments = options.parse_args()
    if arguments.beside:
        _replace(BESIDE, beside(*arguments.beside))
        return
    quieten()
    if not arguments.report:
        if arguments.redo:
            arguments.peers = arguments.redo
            forget(arguments)
        run(arguments)
    with locked():
        _replace(REPORT, report(arguments.budget))
    print(f"wrote {REPORT.name}")


def run(arguments: argparse.Namespace) -> None:
    tables = [table for table in map(load_table, arguments.tables) if table is not None]
    done = {tuple(row[column] for column in KEY) for row in read_rows()}
    for name in arguments.peers:
        try:
            for table in tables:
                begun = time.monotonic()
                for seed in range(arguments.seeds):
                    key = (table.name, name, str(seed), str(arguments.workers), str(arguments.budget))
                    part = load_table(table.name, seed) if key not in done else None
                    if part is not None:
                        append_rows(
                            simulate(part, name, seed, workers=arguments.workers, budget=arguments.budget)
                        )
                seconds = time.monotonic() - begun
                print(f"{name} on {table.name}, {arguments.workers} at a time: {seconds:.0f} s", flush=True)
        except ImportError as error:
            print(f"{name} is skipped: {error}", flush=True)


if __name__ == "__main__":
    main()
