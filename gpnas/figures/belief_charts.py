"""Charts of what the surrogate believes, what is left to find out, and which networks belong together."""

from __future__ import annotations

from typing import Any

import altair as alt

from gpnas.figures.charts import tooltips
from gpnas.figures.data import Learning, Left, PosteriorMap, Slice, Together, Trust
from gpnas.figures.style import PALETTE, SEQUENTIAL, UNCERTAIN, categories, domain, finished, rows

LEVELS = tuple(step / 20 for step in range(1, 20))
"""Nominal probabilities of a calibration curve."""

CELL = 30
"""Least pixels of a cell with a number in it."""


def mean_map(data: PosteriorMap) -> alt.LayerChart:
    """Posterior mean over two axes."""
    best = max(data.cells, key=lambda cell: cell.mean, default=None)
    where = ""
    if best is not None:
        where = f": highest at {data.x} {best.x}, {data.y} {best.y} ({data.objective.shown(best.mean)})"
    title = f"Predicted {data.objective.name} of {data.family} over {data.x} and {data.y}{where}"
    return _map(data, "mean", data.objective.label, SEQUENTIAL, title)


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
            "group": "trained, these other axes" if mark.within else "trained, other axes differ",
        }
        for mark in data.marks
    ]
    feasible = {(cell.x, cell.y) for cell in data.cells}
    missing = [{"x": x, "y": y} for x in data.x_values for y in data.y_values if (x, y) not in feasible]
    across, upward = alt.Scale(domain=list(data.x_values)), alt.Scale(domain=list(reversed(data.y_values)))
    x = alt.X("x:O", title=data.x, scale=across, axis=alt.Axis(labelAngle=0, grid=False))
    y = alt.Y("y:O", title=data.y, scale=upward, axis=alt.Axis(grid=False))
    gaps = alt.Chart(rows(missing)).mark_rect(style="gap").encode(x=x, y=y)
    heat = (
        alt.Chart(rows(cells))
        .mark_rect()
        .encode(
            x=x,
            y=y,
            color=alt.Color("value:Q", title=label, scale=alt.Scale(scheme=scheme), legend=_gradient()),
            tooltip=[
                alt.Tooltip("x:N", title=data.x),
                alt.Tooltip("y:N", title=data.y),
                alt.Tooltip("value:Q", title=label, format=".4f"),
            ],
        )
    )
    shapes = {"trained, these other axes": "circle", "trained, other axes differ": "diamond"}
    points = (
        alt.Chart(rows(marks))
        .mark_point(filled=True, size=55, fill="white", stroke="black", strokeWidth=1.2, opacity=1)
        .encode(
            x=x,
            y=y,
            shape=alt.Shape(
                "group:N",
                title=None,
                scale=alt.Scale(domain=list(shapes), range=list(shapes.values())),
                legend=None,
            ),
            tooltip=tooltips("id", x=data.x, y=data.y, value=data.objective.label),
        )
    )
    others = "averaged over the other axes"
    if data.others is not None:
        held = ", ".join(f"{name} {value}" for name, value in data.others.items())
        others = f"the other axes held at {held}" if held else "there are no other axes"
    told = (
        f"Heat map of {label} over {data.x} and {data.y} of {data.family}, {others}; grey cells are not in "
        f"the space, points are {len(marks)} trained architectures."
    )
    high = _rows_high(len(data.y_values))
    return finished(alt.layer(gaps, heat, points), title, told, cells, width=360, height=high)


def slice_chart(data: Slice) -> alt.LayerChart:
    """The posterior along one axis, with an interval for one training."""
    unit = data.objective
    table = [{"x": p.x, "mean": p.mean, "low": p.low, "high": p.high} for p in data.points]
    marks = [{"id": mark.trial, "x": mark.x, "value": mark.value} for mark in data.marks]
    values = [each for p in data.points for each in (p.low, p.high)] + [mark.value for mark in data.marks]
    scale = alt.Scale(domain=domain(values), nice=False, zero=False)
    kind = "Q" if data.ordered else "N"
    axis = alt.Axis(format="d", tickMinStep=1) if data.ordered else alt.Axis(labelAngle=0)
    ordered = alt.Scale(zero=False, padding=12) if data.ordered else alt.Undefined
    x = alt.X(f"x:{kind}", title=data.axis, axis=axis, scale=ordered)
    base = alt.Chart(rows(table)).encode(x=x)
    low = alt.Y("low:Q", title=unit.label, scale=scale)
    if data.ordered:
        band = base.mark_area(style="band").encode(y=low, y2="high:Q")
        line = base.mark_line(color=PALETTE[0], strokeWidth=2)
    else:
        band = base.mark_rule(style="interval", strokeWidth=5).encode(y=low, y2="high:Q")
        line = base.mark_tick(color=PALETTE[0], thickness=3)
    line = line.encode(y=alt.Y("mean:Q", title=unit.label, scale=scale))
    points = (
        alt.Chart(rows(marks))
        .mark_point(style="ink", filled=True, size=50, opacity=1)
        .encode(
            x=x, y=alt.Y("value:Q", title=unit.label, scale=scale), tooltip=tooltips("id", value=unit.label)
        )
    )
    best = max(data.points, key=lambda p: p.mean)
    least = min(data.points, key=lambda p: p.mean)
    above = unit.shown(best.mean - least.mean, more=1)
    title = f"{data.axis}: {best.x} is predicted {above} above {least.x}"
    told = (
        f"Posterior mean of {unit.label} along {data.axis} of {data.family}, with the interval that holds "
        f"one training with a probability of 90 %, and {len(marks)} trained architectures."
    )
    return finished(alt.layer(band, line, points), title, told, table, width=300, height=200)


def relevance(data: Learning) -> alt.LayerChart:
    """What each axis matters."""
    table: list[dict[str, Any]] = [
        {
            "name": f"{row.name} (cost)" if row.kind == "cost" else row.name,
            "share": row.share,
            "words": row.words,
        }
        for row in data.relevance[:30]
    ]
    order = [row["name"] for row in table]
    base = alt.Chart(rows(table)).encode(
        y=alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=180, grid=False)),
        x=alt.X("share:Q", title="share of what values may vary by", axis=alt.Axis(format="%", tickCount=6)),
    )
    bars = base.mark_bar(color=PALETTE[0]).encode(tooltip=tooltips("name", "words"))
    texts = base.mark_text(style="label", align="left", dx=5).encode(text=alt.Text("share:Q", format=".0%"))
    first = data.relevance[0]
    title = f"{first.name} matters most: {first.share:.0%} of what changing one column alone can change"
    told = (
        "Bars: share of each axis and cost in what the surrogate lets values vary, the largest first. "
        + "; ".join(f"{row.name} {row.share:.0%}" for row in data.relevance[:8])
    )
    return finished(alt.layer(bars, texts), title, told, table, height=max(90, 26 * len(table)))


def left_out(data: Trust) -> alt.LayerChart:
    """Each observation as it is predicted from all others, beside ridge regression."""
    table: list[dict[str, Any]] = [
        {
            "id": each.trial,
            "observed": each.observed,
            "predicted": value,
            "low": low,
            "high": high,
            "group": group,
        }
        for each in data.left_out
        for group, value, low, high in (
            ("surrogate", each.surrogate, each.low, each.high),
            ("ridge regression", each.ridge, None, None),
        )
        if value is not None
    ]
    held = sum(each.low <= each.observed <= each.high for each in data.left_out)
    title = f"Left out one by one, {held} of {len(data.left_out)} observations lie in their 90 % interval"
    told = (
        f"Predicted against observed {data.objective.label}: each of {len(data.left_out)} observations is "
        "predicted from all others, by the surrogate (with its 90 % interval) and by ridge regression. On "
        "the diagonal predictions are right."
    )
    return _against(data, table, title, told)


def foretold_chart(data: Trust) -> alt.LayerChart:
    """Each observation beside what was predicted of it when it was chosen."""
    table: list[dict[str, Any]] = [
        {
            "id": each.trial,
            "observed": each.observed,
            "predicted": each.mean,
            "low": each.low,
            "high": each.high,
            "group": "predicted before the training",
        }
        for each in data.foretold
    ]
    held = sum(each.low <= each.observed <= each.high for each in data.foretold)
    title = f"Foretold when chosen, {held} of {len(data.foretold)} observations lie in their 90 % interval"
    told = (
        f"Predicted against observed {data.objective.label}, for {len(data.foretold)} observations, as "
        "predicted when each was chosen. On the diagonal predictions are right."
    )
    return _against(data, table, title, told)


def _against(data: Trust, table: list[dict[str, Any]], title: str, told: str) -> alt.LayerChart:
    unit = data.objective
    seen = [float(row["observed"]) for row in table]
    limits = domain(seen, 0.25) if seen else [0.0, 1.0]
    scale = alt.Scale(domain=limits, nice=False, zero=False, clamp=True)
    x = alt.X("observed:Q", title=f"observed {unit.label}", scale=scale)
    y = alt.Y("predicted:Q", title=f"predicted {unit.label}", scale=scale)
    base = alt.Chart(rows(table)).encode(x=x)
    groups = list(dict.fromkeys(str(row["group"]) for row in table))
    bars = base.mark_rule(style="interval", strokeWidth=2).encode(
        y=alt.Y("low:Q", scale=scale, title=f"predicted {unit.label}"), y2="high:Q"
    )
    points = base.mark_point(filled=True, size=50, opacity=0.9).encode(
        y=y,
        color=categories(groups, None),
        shape=alt.Shape("group:N", title=None, scale=alt.Scale(domain=groups)),
        tooltip=tooltips(
            "id", "group", observed=f"observed {unit.label}", predicted=f"predicted {unit.label}"
        ),
    )
    ends = [{"observed": limit, "predicted": limit} for limit in limits]
    diagonal = alt.Chart(rows(ends)).mark_line(style="muted-line", strokeDash=[4, 4]).encode(x=x, y=y)
    return finished(alt.layer(diagonal, bars, points), title, told, table, width=360, height=320)


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
    lines = (
        alt.Chart(rows(table))
        .mark_line(point={"size": 30}, strokeWidth=2)
        .encode(
            x=x,
            y=y,
            color=categories(list(curves), None, columns=1),
            strokeDash=alt.StrokeDash("group:N", title=None, scale=alt.Scale(domain=list(curves))),
        )
    )
    ends = [{"nominal": end, "share": end} for end in (0, 1)]
    diagonal = alt.Chart(rows(ends)).mark_line(style="muted-line", strokeDash=[4, 4]).encode(x=x, y=y)
    first = next(iter(curves), None)
    title = "Nothing was observed yet that intervals could be compared with"
    if first is not None:
        title = f"Intervals of 90 % hold {coverage(curves[first], 0.9):.0%} ({first})"
    told = (
        "Share of observations within their interval, by the probability that the interval claims; on the "
        "diagonal intervals are honest, below it too narrow."
    )
    return finished(alt.layer(diagonal, lines), title, told, table, width=360, height=320)


def regret(data: Left) -> alt.LayerChart:
    """The expected regret of stopping, and how it became less."""
    unit = data.objective
    table: list[dict[str, Any]] = [
        {"observations": each.observations, "regret": each.regret, "bound": each.bound}
        for each in data.course
    ]
    label = f"expected regret{f', {unit.unit}' if unit.unit else ''}"
    x = alt.X("observations:Q", title="observations", axis=alt.Axis(tickMinStep=1, format="d"))
    base = alt.Chart(rows(table)).encode(x=x)
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
        x=alt.X("observations:Q", title="observations", axis=alt.Axis(tickMinStep=1, format="d")),
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
    return finished(
        alt.layer(base.mark_line(point={"color": PALETTE[0]}, color=PALETTE[0])),
        title,
        told,
        table,
        height=200,
    )


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
    heat = (
        alt.Chart(rows(table))
        .mark_rect()
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "value:Q",
                title="correlation of errors",
                scale=alt.Scale(scheme=UNCERTAIN),
                legend=_gradient(),
            ),
            tooltip=tooltips("x", "y", value="correlation"),
        )
    )
    texts = (
        alt.Chart(rows(table))
        # where a cell is too narrow for its number there is none; the table of numbers has it
        .mark_text(fontSize=alt.ExprRef(f"width / {max(1, len(names))} < {CELL} ? 0 : 10"))
        .encode(
            x=x,
            y=y,
            text=alt.Text("value:Q", format=".3f"),
            color=alt.condition(
                alt.datum.value > _middle([row["value"] for row in table]),
                alt.value("black"),
                alt.value("white"),
            ),
        )
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
    scale = alt.Scale(type="log", nice=False, padding=16)
    base = alt.Chart(rows(table)).encode(
        x=alt.X(
            "gmacs:Q",
            title="GMACs of all members, 120×120 LR",
            scale=scale,
            axis=alt.Axis(format="~g"),
        ),
        y=alt.Y("psnr:Q", title="PSNR of the average, dB", scale=alt.Scale(zero=False)),
    )
    groups = sorted({row["group"] for row in table}, key=lambda name: int(str(name).split()[0]))
    line = base.mark_line(style="muted-line", interpolate="step-after")
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        color=categories([str(group) for group in groups], None),
        shape=alt.Shape("group:N", title=None, scale=alt.Scale(domain=groups)),
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


def _middle(values: list[float]) -> float:
    return (min(values) + max(values)) / 2 if values else 0.0


def _gradient() -> alt.Legend:
    return alt.Legend(gradientLength=180, orient="top", titleLimit=300)


def _rows_high(count: int) -> int:
    return max(120, min(360, 40 * count))
