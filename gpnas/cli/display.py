"""How an explanation looks in a terminal: from its JSON document to lines and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from gpnas.cli.tables import Table
from gpnas.cli.terminal import styled
from gpnas.cli.text import label, legend, printable
from gpnas.records import Architecture, number_of

Document = Mapping[str, Any]
TELLING = 4
"""Observations below which what was learned of the axes is hardly more than what was believed before."""


def in_unit(text: str, document: Document) -> str:
    """A number, or the title of a column, with the unit of the search's objective where it has one."""
    return f"{text} {printable(document['objective']['unit'])}".strip()


def candidate(document: Document) -> Iterator[RenderableType]:
    """Why a candidate was chosen."""
    architecture = Architecture.from_json(document["architecture"])
    yield styled(document["id"], "bold") + f"  {printable(architecture)}"
    again = ", once more" if document["replicate"] else ""
    yield f"chosen {document['time'][:19].replace('T', ' ')} UTC by {printable(document['phase'])}{again}"
    yield f"score {_score(document['score'])}: {printable(document['score_meaning'])}"
    yield f"known then: {_names(document['observed'])} observed, {_names(document['pending'])} pending"
    yield ""
    yield from _belief(document)
    seconds = "" if document["seconds"] is None else f"; {document['seconds']:.0f} s of training expected"
    success = f"probability of success {_percent(document['success'])}"
    yield f"costs: {_costs(document['costs'])}; {success}{seconds}"
    yield from _outcome(document)
    yield ""
    if document["alternatives"]:
        yield from _alternatives(document)
    if document["learned"]:
        yield from learned(document, "What the surrogate had learned then")
    yield from diagnostics(document["diagnostics"])
    yield from _agreement(document)
    yield from _notes(document)


def overview(document: Document) -> Iterator[RenderableType]:
    """A whole search, a line per candidate."""
    candidates = Table(
        f"{document['run']}: {document['strategy']}",
        *(
            "candidate",
            "architecture",
            "chosen by",
            in_unit("observed", document),
            in_unit("predicted", document),
        ),
        *("90 % interval", "rank", "rank by mean"),
        whole=("candidate", "architecture"),
        left=("chosen by",),
    )
    for row in document["candidates"]:
        if row["value"] is not None:
            colour = {True: "green", False: "yellow", None: "default"}[row["inside"]]
            outcome = styled(f"{row['value']:.2f}", colour)
        else:
            outcome = styled("failed", "red") if row["failure"] else Text("pending")
        candidates.add_row(
            row["id"] + ("" if row["agrees"] else " *"),
            _name(row),
            printable(row["phase"]) + (", once more" if row["replicate"] else ""),
            outcome,
            *_predicted(row["prediction"]),
            _rank(row["rank"], row["weighed"]),
            _rank(row["mean_rank"], row["ranked"]),
        )
    yield candidates
    yield legend(Architecture.from_json(row["architecture"]) for row in document["candidates"])
    held, judged = document["intervals"]["held"], document["intervals"]["of"]
    if judged:
        yield f"{held} of {judged} observed values lie within the 90 % interval that was predicted for them"
    if any(not row["agrees"] for row in document["candidates"]):
        yield "* recomputed otherwise than noted when it was chosen; explain the candidate for how"
    if any(row["older_engine"] for row in document["candidates"]):
        yield "an older engine decided some: this one reads what they observed, and need not choose alike"
    if document["learned"]:
        yield ""
        yield from learned(document, "What the surrogate has learned")
    yield from diagnostics(document["diagnostics"])
    yield from _notes(document)


def diagnostics(document: Document) -> Iterator[RenderableType]:
    """What a surrogate's leave-one-out predictions say, and a warning where they are poor."""
    yield printable(document["summary"])
    if document["warning"]:
        yield styled("warning", "bold yellow") + f": {printable(document['warning'])}"


def learned(document: Document, title: str) -> Iterator[RenderableType]:
    """What a surrogate learned of the space."""
    unit, found = printable(document["objective"]["unit"]), document["learned"]
    effects = f"effect, {unit}" if unit else "effect"
    columns = Table(
        title,
        *("column", "lengthscale", "among draws", "relevance", "in words", effects),
        whole=("column",),
        left=("in words", effects),
    )
    for column in found["columns"]:
        effect = found["effects"].get(column["name"]) if column["kind"] != "cost" else None
        columns.add_row(
            column["name"] + (" (cost)" if column["kind"] == "cost" else ""),
            f"{column['lengthscale']:.2f}",
            f"{column['low']:.2f} … {column['high']:.2f}",
            _percent(column["relevance"]),
            printable(column["words"]),
            f"{effect['gain']:.2f} ({effect['worst']} → {effect['best']})"
            if effect and effect["gain"]
            else "",
        )
    yield columns
    noise = f"{found['noise']:.3f} {unit}"
    yield (
        f"noise of one training: {noise.strip()}; warp: {printable(found['warp'])}; "
        f"{number_of(found['observations'], 'observation')}, {found['members']} draws of hyperparameters"
    )
    if found["observations"] < TELLING:
        yield "so few observations teach little: most of this was believed before any"
    for name, correlation in found["sources"].items():
        yield f"what varies in {printable(name)} correlates with what varies here: {correlation:.2f}"


def _belief(document: Document) -> Iterator[str]:
    prediction = document["prediction"]
    if prediction is None:
        yield "predicted: nothing yet, no training had succeeded"
    else:
        predicted = in_unit(f"{prediction['mean']:.3f} ± {prediction['stddev']:.3f}", document)
        interval = in_unit(f"{prediction['low']:.3f} … {prediction['high']:.3f}", document)
        yield f"predicted: {predicted}, one training within {interval} (90 %)"
    ranks = []
    if document["rank"] is not None:
        ranks.append(f"{_rank(document['rank'], document['weighed'])} weighed by score")
    if document["mean_rank"] is not None:
        ranks.append(f"{_rank(document['mean_rank'], document['ranked'])} architectures by posterior mean")
    if ranks:
        yield "rank: " + ", ".join(ranks)


def _outcome(document: Document) -> Iterator[RenderableType]:
    outcome = document["outcome"]
    if outcome is not None and outcome["stopped"] is not None:
        yield f"{outcome['stopped']}; the value below is what its curve predicted"
    if outcome is None:
        yield "what came of it: still pending"
    elif outcome["value"] is None:
        yield Text("what came of it: ") + styled("failed", "red") + f": {printable(outcome['failure'])}"
    elif outcome["inside"] is None:
        yield in_unit(f"what came of it: {outcome['value']:.3f}", document)
    else:
        colour, where = ("green", "within") if outcome["inside"] else ("yellow", "outside")
        yield (
            Text(in_unit(f"what came of it: {outcome['value']:.3f}", document) + ", ")
            + styled(f"{where} the interval", colour)
            + f" ({outcome['surprise']:+.1f} standard deviations)"
        )


def _alternatives(document: Document) -> Iterator[RenderableType]:
    runners_up = Table(
        "The chosen one, and the runners-up",
        *(
            "architecture",
            "score",
            "gain",
            in_unit("predicted", document),
            "90 % interval",
            "success",
            "costs",
        ),
        whole=("architecture",),
        left=("costs",),
    )
    rows = [document, *document["alternatives"]]
    for row in rows:
        runners_up.add_row(
            _name(row) + (" (again)" if row["replicate"] else ""),
            _score(row["score"]),
            "" if row["share"] is None else _percent(row["share"]),
            *_predicted(row["prediction"]),
            _percent(row["success"]),
            _costs(row["costs"]),
        )
    yield runners_up
    yield legend(Architecture.from_json(row["architecture"]) for row in rows)


def _agreement(document: Document) -> Iterator[RenderableType]:
    if document["agrees"]:
        yield "recomputed from the journal: agrees with the decision noted then"
    else:
        differences = "; ".join(document["differences"])
        yield styled("differs", "bold yellow") + f" from the decision noted then: {printable(differences)}"
        if document["older_engine"]:
            yield "an older engine decided then: this one reads what it observed, and need not choose alike"
        elif not document["versions"]:
            yield "no package's version changed since: gpnas itself did, or the machine"


def _notes(document: Document) -> Iterator[str]:
    if document["versions"]:
        changed = ", ".join(f"{name} {old} → {new}" for name, (old, new) in document["versions"].items())
        yield f"versions changed since: {printable(changed)}"
    for note in document["notes"]:
        yield printable(note)


def _predicted(prediction: Document | None) -> tuple[str, str]:
    """Mean and interval of a prediction; both empty where nothing was known."""
    if prediction is None:
        return "", ""
    spread = f"{prediction['mean']:.2f} ± {prediction['stddev']:.2f}"
    return spread, f"{prediction['low']:.2f} … {prediction['high']:.2f}"


def _name(document: Document) -> str:
    return label(Architecture.from_json(document["architecture"]))


def _names(names: list[str]) -> str:
    """How many candidates, and which: of neighbours in the order of proposal the first and the last."""
    stretches: list[list[str]] = []
    for name in sorted(names):
        if stretches and int(name[1:]) == int(stretches[-1][-1][1:]) + 1:
            stretches[-1].append(name)
        else:
            stretches.append([name])
    shown = (" … ".join(dict.fromkeys((each[0], each[-1]))) for each in stretches)
    return f"{len(names)} ({', '.join(shown)})" if names else "none"


def _rank(rank: int | None, among: int) -> str:
    return "" if rank is None else f"{rank:,} of {among:,}"


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.4g}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share < 9.995 else "over 999 %"


def _costs(costs: Document) -> str:
    known = {"parameters": "{:,.0f} parameters", "gmacs": "{:.2f} GMACs"}
    shown = (
        known[name].format(value) if name in known else f"{printable(name)} {value:,.4g}"
        for name, value in costs.items()
    )
    return ", ".join(shown) or "none known"
