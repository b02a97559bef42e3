"""Charts of what the surrogate believes, what is left to find out, and which networks belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import altair as alt

from gpnas.figures.charts import tooltips
from gpnas.figures.data import Left, PosteriorMap, Predicted, Slice, Together, Trust, held
from gpnas.figures.style import (
    PALETTE,
    SEQUENTIAL,
    UNCERTAIN,
    categories,
    counted,
    domain,
    finished,
    priced,
    rows,
    shapes,
)

if TYPE_CHECKING:
    from gpnas.learned import Learned

LEVELS = tuple(step / 20 for step in range(1, 20))
"""Nominal probabilities of a calibration curve."""

CELL = 30
"""Least pixels of a cell with a number in it."""
TRAINED = {True: "trained, these other axes", False: "trained, other axes differ"}
"""Whether a trained architecture has the other axes of a map to what it is called."""


def mean_map(data: PosteriorMap) -> alt.LayerChart:
    """Posterior mean over two axes."""
    unit = data.objective
    best = max(data.cells, key=lambda cell: unit.merit(cell.mean), default=None)
    where = ""
    if best is not None:
        most = "lowest" if unit.lower else "highest"
        where = f": {most} at {data.x} {best.x}, {data.y} {best.y} ({unit.shown(best.mean)})"
    title = f"Predicted {unit.name} of {data.family} over {data.x} and {data.y}{where}"
    return _map(data, "mean", unit.label, SEQUENTIAL, title)


def stddev_map(data: PosteriorMap) -> alt.LayerChart:
    """Posterior standard deviation over two axes."""
    most = max(data.cells, key=lambda cell: cell.stddev, default=None)
    where = f": least known at {data.x} {most.x}, {data.y} {most.y}" if most is not None else ""
    unit = f"standard deviation{f', {data.objective.unit}' if data.objective.unit else ''}"
    title = f"What is not known of {data.family} over {data.x} and {data.y}{where}"
    return _map(data, "stddev", unit, UNCERTAIN, title)


def _map(data: PosteriorMap, field: str, label: str, scheme: Any, title: str) -> alt.LayerChart:
    cells = [{"x": cell.x, "y": cell.y, "value": getattr(cell, field)} for cell in data.cells]
    marks = [
        {
            "id": mark.trial,
            "x": mark.x,
            "y": mark.y,
            "value": mark.value,
            "group": TRAINED[mark.within],
        }
        for mark in data.marks
    ]
    feasible = {(cell.x, cell.y) for cell in data.cells}
    missing = [{"x": x, "y": y} for x in data.x_values for y in data.y_values if (x, y) not in feasible]
    across, upward = alt.Scale(domain=list(data.x_values)), alt.Scale(domain=list(reversed(data.y_values)))
    x = alt.X("x:O", title=data.x, scale=across, axis=alt.Axis(labelAngle=0, grid=False))
    y = alt.Y("y:O", title=data.y, scale=upward, axis=alt.Axis(grid=False))
    gaps = alt.Chart(rows(missing)).mark_rect(style="gap").encode(x=x, y=y)
    heat = _heat(cells, x, y, label, scheme).encode(
        tooltip=[
            alt.Tooltip("x:N", title=data.x),
            alt.Tooltip("y:N", title=data.y),
            alt.Tooltip("value:Q", title=label, format=".4f"),
        ]
    )
    known = alt.Scale(domain=list(TRAINED.values()), range=["circle", "diamond"])
    points = alt.Chart(rows(marks)).encode(
        x=x,
        y=y,
        shape=alt.Shape("group:N", title=None, scale=known, legend=None),
        tooltip=tooltips("id", x=data.x, y=data.y, value=data.objective.label),
    )
    points = points.mark_point(filled=True, size=55, fill="white", stroke="black", strokeWidth=1.2, opacity=1)
    others = "averaged over the other axes"
    if data.others is not None:
        held = ", ".join(f"{name} {value}" for name, value in data.others.items())
        others = f"the other axes held at {held}" if held else "there are no other axes"
    told = (
        f"Heat map of {label} over {data.x} and {data.y} of {data.family}, {others}; grey cells are not in "
        f"the space, points are {len(marks)} trained architectures."
    )
    high = max(120, min(360, 40 * len(data.y_values)))
    return finished(alt.layer(gaps, heat, points), title, told, cells, width=360, height=high)


def slice_chart(data: Slice) -> alt.LayerChart:
    """The posterior along one axis, with an interval for one training."""
    unit = data.objective
    table = [vars(point) for point in data.points]
    marks = [{"id": mark.trial, "x": mark.x, "value": mark.value} for mark in data.marks]
    values = [each for p in data.points for each in (p.low, p.high)] + [mark.value for mark in data.marks]
    scale = alt.Scale(domain=domain(values), nice=False, zero=False)
    kind = "Q" if data.ordered else "N"
    axis = alt.Axis(format="d", tickMinStep=1) if data.ordered else alt.Axis(labelAngle=0)
    ordered = alt.Scale(zero=False, padding=12) if data.ordered else alt.Undefined
    x = alt.X(f"x:{kind}", title=data.axis, axis=axis, scale=ordered)
    base = alt.Chart(rows(table)).encode(x=x)
    low, mean, value = (
        alt.Y(f"{field}:Q", title=unit.label, scale=scale) for field in ("low", "mean", "value")
    )
    if data.ordered:
        band = base.mark_area(style="band").encode(y=low, y2="high:Q")
        line = base.mark_line(color=PALETTE[0], strokeWidth=2)
    else:
        band = base.mark_rule(style="interval", strokeWidth=5).encode(y=low, y2="high:Q")
        line = base.mark_tick(color=PALETTE[0], thickness=3)
    line = line.encode(y=mean)
    points = alt.Chart(rows(marks)).mark_point(style="ink", filled=True, size=50, opacity=1)
    points = points.encode(x=x, y=value, tooltip=tooltips("id", value=unit.label))
    best = max(data.points, key=lambda p: unit.merit(p.mean))
    least = min(data.points, key=lambda p: unit.merit(p.mean))
    apart = unit.shown(abs(best.mean - least.mean), more=1)
    title = f"{data.axis}: {best.x} is predicted {apart} {'below' if unit.lower else 'above'} {least.x}"
    told = (
        f"Posterior mean of {unit.label} along {data.axis} of {data.family}, with the interval that holds "
        f"one training with a probability of 90 %, and {len(marks)} trained architectures."
    )
    return finished(alt.layer(band, line, points), title, told, table, width=300, height=200)


def relevance(data: Learned) -> alt.LayerChart:
    """What each axis matters."""
    table: list[dict[str, Any]] = [
        {
            "name": f"{column.name} (cost)" if column.kind == "cost" else column.name,
            "share": column.relevance,
            "words": column.words,
        }
        for column in data.columns[:30]
    ]
    order = [row["name"] for row in table]
    base = alt.Chart(rows(table)).encode(
        y=alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=180, grid=False)),
        x=alt.X("share:Q", title="share of what values may vary by", axis=alt.Axis(format="%", tickCount=6)),
    )
    bars = base.mark_bar(color=PALETTE[0]).encode(tooltip=tooltips("name", "words"))
    texts = base.mark_text(style="label", align="left", dx=5).encode(text=alt.Text("share:Q", format=".0%"))
    first = data.columns[0]
    title = f"{first.name} matters most: {first.relevance:.0%} of what changing one column alone can change"
    costs = sum(column.relevance for column in data.columns if column.kind == "cost")
    if first.kind != "cost" and costs > first.relevance:
        title = (
            f"costs, which follow several axes, matter {costs:.0%}; beside them {first.name} matters most, "
            f"{first.relevance:.0%}"
        )
    told = (
        "Bars: share of each axis and cost in what the surrogate lets values vary, the largest first. "
        + "; ".join(f"{column.name} {column.relevance:.0%}" for column in data.columns[:8])
    )
    return finished(alt.layer(bars, texts), title, told, table, height=max(90, 26 * len(table)))


def left_out(data: Trust) -> alt.LayerChart:
    """Each observation as it is predicted from all others, beside ridge regression."""
    told = (
        f": each of {len(data.left_out)} observations is predicted from all others, by the surrogate (with "
        "its 90 % interval) and by ridge regression"
    )
    return _against(data, data.left_out, "surrogate", "Left out one by one", told)


def foretold_chart(data: Trust) -> alt.LayerChart:
    """Each observation beside what was predicted of it when it was chosen."""
    told = f", for {len(data.foretold)} observations, as predicted when each was chosen"
    return _against(data, data.foretold, "predicted before the training", "Foretold when chosen", told)


def _against(data: Trust, judged: Sequence[Predicted], group: str, how: str, told: str) -> alt.LayerChart:
    """Predictions of a group against observed values; how they were made, in short and in words."""
    table: list[dict[str, Any]] = []
    for each in judged:
        row = {"id": each.trial, "observed": each.observed}
        table.append(row | {"predicted": each.mean, "low": each.low, "high": each.high, "group": group})
        if each.ridge is not None:
            table.append(
                row | {"predicted": each.ridge, "low": None, "high": None, "group": "ridge regression"}
            )
    limits = domain([each.observed for each in judged], 0.25) if judged else [0.0, 1.0]
    scale = alt.Scale(domain=limits, nice=False, zero=False, clamp=True)
    observed, predicted = (f"{word} {data.objective.label}" for word in ("observed", "predicted"))
    x = alt.X("observed:Q", title=observed, scale=scale)
    y = alt.Y("predicted:Q", title=predicted, scale=scale)
    base = alt.Chart(rows(table)).encode(x=x)
    groups = list(dict.fromkeys(str(row["group"]) for row in table))
    bars = base.mark_rule(style="interval", strokeWidth=2).encode(
        y=alt.Y("low:Q", scale=scale, title=predicted), y2="high:Q"
    )
    points = base.mark_point(filled=True, size=50, opacity=0.9).encode(
        y=y,
        color=categories(groups, None),
        shape=shapes(groups),
        tooltip=tooltips("id", "group", observed=observed, predicted=predicted),
    )
    ends = [{"observed": limit, "predicted": limit} for limit in limits]
    title = f"{how}, {held(judged)} of {len(judged)} observations lie in their 90 % interval"
    told = f"Predicted against observed {data.objective.label}{told}. On the diagonal predictions are right."
    shown = alt.layer(_diagonal(ends, x, y), bars, points)
    return finished(shown, title, told, table, width=360, height=320)


def coverage(levels: list[float], nominal: float) -> float:
    """Share of observations that lie in their central interval of a nominal probability.

    Args:
        levels: of the narrowest interval that holds each; at least one.
        nominal: probability of the intervals.
    """
    return sum(level <= nominal for level in levels) / len(levels)


def calibration(data: Trust) -> alt.LayerChart:
    """How often intervals of every probability hold."""
    curves = {
        "surrogate, left out": [each.level for each in data.left_out],
        "surrogate, foretold": [each.level for each in data.foretold],
        "ridge regression, left out": [
            each.ridge_level for each in data.left_out if each.ridge_level is not None
        ],
    }
    curves = {name: levels for name, levels in curves.items() if levels}
    table: list[dict[str, Any]] = [
        {"group": name, "nominal": nominal, "share": coverage(levels, nominal)}
        for name, levels in curves.items()
        for nominal in LEVELS
    ]
    scale = alt.Scale(domain=[0, 1])
    x = alt.X(
        "nominal:Q", title="probability that the interval claims", scale=scale, axis=alt.Axis(format="%")
    )
    y = alt.Y("share:Q", title="share of observations in it", scale=scale, axis=alt.Axis(format="%"))
    lines = alt.Chart(rows(table)).mark_line(point={"size": 30}, strokeWidth=2)
    lines = lines.encode(
        x=x,
        y=y,
        color=categories(list(curves), None, columns=1),
        strokeDash=alt.StrokeDash("group:N", title=None, scale=alt.Scale(domain=list(curves))),
    )
    ends = [{"nominal": end, "share": end} for end in (0, 1)]
    first = next(iter(curves), None)
    title = "Nothing was observed yet that intervals could be compared with"
    if first is not None:
        title = f"Intervals of 90 % hold {coverage(curves[first], 0.9):.0%} ({first})"
    told = (
        "Share of observations within their interval, by the probability that the interval claims; on the "
        "diagonal intervals are honest, below it too narrow."
    )
    shown = alt.layer(_diagonal(ends, x, y), lines)
    return finished(shown, title, told, table, width=360, height=320)


def regret(data: Left) -> alt.LayerChart:
    """The expected regret of stopping, and how it became less."""
    unit = data.objective
    table: list[dict[str, Any]] = [
        {"observations": each.observations, "regret": each.regret, "bound": each.bound}
        for each in data.course
    ]
    label = f"expected regret{f', {unit.unit}' if unit.unit else ''}"
    base = alt.Chart(rows(table)).encode(x=counted("observations", "observations"))
    band = base.mark_area(style="band").encode(y=alt.Y("regret:Q", title=label), y2="bound:Q")
    line = base.mark_line(color=PALETTE[0], strokeWidth=2, point={"color": PALETTE[0]}).encode(
        y=alt.Y("regret:Q", title=label, scale=alt.Scale(zero=True)),
        tooltip=tooltips("observations", regret=label, bound="90 % quantile"),
    )
    now = data.course[-1]
    most = unit.shown(now.bound, more=1)
    title = f"Stopping now would miss {unit.about(now.regret)}; 9 times of 10 at most {most}"
    told = (
        f"How far the best of {data.weighed} promising architectures is expected to lie above the one that "
        f"would be recommended, after 1 to {now.observations} observations; the band ends at the 90 % "
        "quantile."
    )
    return finished(alt.layer(band, line), title, told, table, height=240)


def unknown(data: Left) -> alt.LayerChart:
    """Which share of the variance over the space was left after so many observations."""
    table = [{"observations": each.observations, "unknown": each.unknown} for each in data.course]
    base = alt.Chart(rows(table)).encode(
        x=counted("observations", "observations"),
        y=alt.Y(
            "unknown:Q",
            title="share of the variance over the space",
            axis=alt.Axis(format="%"),
            scale=alt.Scale(domain=[0, 1]),
        ),
    )
    now = data.course[-1]
    title = f"{now.unknown:.0%} of what varies over the space is still unknown"
    told = (
        "Mean posterior variance over the space as a share of the prior variance, after each number of "
        "observations, with today's hyperparameters."
    )
    line = base.mark_line(point={"color": PALETTE[0]}, color=PALETTE[0])
    return finished(alt.layer(line), title, told, table, height=200)


def correlation(data: Together) -> alt.LayerChart:
    """What the errors of the best networks have in common."""
    names = list(data.names)
    table: list[dict[str, Any]] = [
        {"x": a, "y": b, "value": data.correlation[i][j]}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i != j
    ]
    x = alt.X("x:N", sort=names, title=None, axis=alt.Axis(labelAngle=-45))
    y = alt.Y("y:N", sort=names, title=None)
    heat = _heat(table, x, y, "correlation of errors", UNCERTAIN)
    heat = heat.encode(tooltip=tooltips("x", "y", value="correlation"))
    # where a cell is too narrow for its number there is none; the table of numbers has it
    size = alt.ExprRef(f"width / {max(1, len(names))} < {CELL} ? 0 : 10")
    values = [row["value"] for row in table] or [0.0]
    bright = alt.datum.value > (min(values) + max(values)) / 2
    texts = alt.Chart(rows(table)).mark_text(fontSize=size)
    texts = texts.encode(
        x=x,
        y=y,
        text=alt.Text("value:Q", format=".3f"),
        color=alt.condition(bright, alt.value("black"), alt.value("white")),
    )
    least = min(table, key=lambda row: row["value"], default=None)
    title = "One network alone has nothing to be averaged with"
    if least is not None:
        pair = f"{least['x']} and {least['y']}"
        title = f"{pair} have least in common: their errors correlate by {least['value']:.3f}"
    told = f"Matrix of the correlations of the errors of the {len(names)} best networks, the best first."
    return finished(alt.layer(heat, texts), title, told, table, width=360, height=max(120, 30 * len(names)))


def frontier(data: Together) -> alt.LayerChart:
    """Portfolios of which no other is as good and as cheap."""
    table: list[dict[str, Any]] = [
        {
            "members": " + ".join(members),
            "gmacs": gmacs,
            "psnr": psnr,
            "group": f"{len(members)} network{'s' * (len(members) > 1)}",
        }
        for members, gmacs, psnr in data.frontier
    ]
    base = alt.Chart(rows(table)).encode(
        x=priced("gmacs", "GMACs of all members, 120×120 LR", axis=alt.Axis(format="~g")),
        y=alt.Y("psnr:Q", title="PSNR of the average, dB", scale=alt.Scale(zero=False)),
    )
    groups = sorted({str(row["group"]) for row in table}, key=lambda name: int(name.split()[0]))
    line = base.mark_line(style="muted-line", interpolate="step-after")
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        color=categories(groups, None),
        shape=shapes(groups),
        tooltip=tooltips("members", "group", gmacs="GMACs", psnr="PSNR, dB"),
    )
    gain = data.delivered - max(data.psnr)
    title = f"The delivered average is {gain:+.3f} dB beside its best network alone, on the validation images"
    if len(data.members) == 1:
        title = "No average was worth more than the one network that is delivered"
    told = f"PSNR of averages against the GMACs of all their members: {len(table)} that no other beats."
    return finished(alt.layer(line, points), title, told, table, width=360, height=300)


def weights(data: Together) -> alt.LayerChart:
    """The members of the delivered portfolio and their weights."""
    shares = zip(data.members, data.weights, strict=True)
    table = [{"name": name, "weight": weight} for name, weight in shares]
    base = alt.Chart(rows(table)).encode(
        y=alt.Y("name:N", sort=list(data.members), title=None),
        x=alt.X("weight:Q", title="share of the average", axis=alt.Axis(format="%", tickCount=6)),
    )
    bars = base.mark_bar(color=PALETTE[2])
    texts = base.mark_text(style="label", align="left", dx=5).encode(text=alt.Text("weight:Q", format=".1%"))
    title = f"{len(table)} networks are averaged, {data.members[0]} with the largest share"
    if len(table) == 1:
        title = f"One network is delivered: {data.members[0]}"
    told = "Bars: weight of each member of the delivered portfolio. " + "; ".join(
        f"{row['name']} {row['weight']:.1%}" for row in table
    )
    return finished(alt.layer(bars, texts), title, told, table, width=360, height=max(60, 34 * len(table)))


def _heat(cells: Sequence[dict[str, Any]], x: alt.X, y: alt.Y, title: str, scheme: Any) -> alt.Chart:
    """Cells in the colours of their values, with a gradient above them."""
    legend = alt.Legend(gradientLength=180, orient="top", titleLimit=300)
    color = alt.Color("value:Q", title=title, scale=alt.Scale(scheme=scheme), legend=legend)
    return alt.Chart(rows(cells)).mark_rect().encode(x=x, y=y, color=color)


def _diagonal(ends: Sequence[Mapping[str, float]], x: alt.X, y: alt.Y) -> alt.Chart:
    return alt.Chart(rows(ends)).mark_line(style="muted-line", strokeDash=[4, 4]).encode(x=x, y=y)
