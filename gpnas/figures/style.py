"""How figures look: one palette that colour-blind readers can tell apart, in light and in dark.

Ink and paper are named styles, not colours, so that a page can draw the same chart on either.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import altair as alt

PALETTE = ("#1F83C4", "#CC7F00", "#009E73", "#CC79A7", "#D55E00", "#8C6BB1", "#7F7F2A", "#5F6B7A")
"""After M. Okabe, K. Ito, "Color Universal Design", 2008; made lighter or darker until each has a contrast
of at least 3 with either paper."""
STATES = {"observed": "circle", "stopped early": "triangle-down", "failed": "cross"}
"""State of a trial to the shape of its point."""
SEQUENTIAL: Any = "viridis"
UNCERTAIN: Any = "cividis"
WIDTH, HEIGHT = 620, 300

LIGHT = {"ink": "#1d2733", "muted": "#56616e", "faint": "#dfe4ea", "paper": "#ffffff", "gap": "#eceff3"}
DARK = {"ink": "#e8edf3", "muted": "#a7b1bd", "faint": "#333d49", "paper": "#161b22", "gap": "#262e38"}
"""Colours of what is written and drawn around the data, by their use."""


def config(colours: dict[str, str]) -> dict[str, Any]:
    """Vega-Lite's configuration for one colour scheme."""
    ink, muted, faint = colours["ink"], colours["muted"], colours["faint"]
    font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
    return {
        "background": colours["paper"],
        "font": font,
        "view": {"stroke": None},
        "title": {"color": ink, "anchor": "start", "fontSize": 14, "subtitleColor": muted, "offset": 12},
        "axis": {
            "labelColor": muted,
            "titleColor": ink,
            "gridColor": faint,
            "domainColor": muted,
            "tickColor": muted,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "labelOverlap": True,
        },
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "orient": "top",
            "symbolBaseFillColor": ink,
            "symbolBaseStrokeColor": ink,
            "labelLimit": 260,
        },
        "header": {"labelColor": ink, "titleColor": ink},
        "text": {"color": ink},
        "range": {"category": list(PALETTE)},
        "style": {
            "ink": {"color": ink, "stroke": ink, "fill": ink},
            "ink-line": {"color": ink, "stroke": ink},
            "label": {"color": ink, "fill": ink, "stroke": None, "fontSize": 12},
            "muted-line": {"color": muted, "stroke": muted},
            "interval": {"color": muted, "stroke": muted, "opacity": 0.55},
            "band": {"color": muted, "stroke": None, "opacity": 0.22},
            "ring": {"stroke": colours["paper"], "fill": None},
            "gap": {"color": colours["gap"], "stroke": None},
        },
    }


def rows(values: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    """Rows as the data of a chart, to nine significant digits; no data frame is needed.

    They are one JSON text, since Altair walks through, copies and checks whatever else it is given.
    """
    plain = [{key: _rounded(value) for key, value in row.items()} for row in values]
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    return alt.InlineData(values=text, format=alt.DataFormat(type="json"))


def unchecked() -> AbstractContextManager[None]:
    """Within it Altair does not check what it is given against Vega-Lite's schema."""
    return alt.utils.schemapi.debug_mode(False)


def finished(
    chart: Any,
    title: str,
    description: str,
    table: Sequence[Mapping[str, Any]],
    *,
    width: int | str = WIDTH,
    height: int = HEIGHT,
) -> Any:
    """A chart with its title, its alternative text, its size and the light scheme.

    Args:
        chart: of one view or of layers, just made; it is changed, since Altair's own way, a copy for each
            property, makes all layers anew three times.
        title: what to see in it.
        description: the alternative text.
        table: the rows that a reader may want as numbers.
        width, height: in pixels.
    """
    about = {"title": title, "alt": description, "fields": list(table[0]) if table else []}
    chart.title = alt.TitleParams(wrapped(title))
    chart.description, chart.usermeta = description, about
    chart.width, chart.height = width, height
    chart.config = alt.Config(**config(LIGHT))
    return chart


def wrapped(text: str) -> list[str]:
    """Lines of at most 84 characters, at spaces; a longer word has a line of its own."""
    words = " ".join(text.split())
    return textwrap.wrap(words, 84, break_long_words=False, break_on_hyphens=False) or [""]


def categories(names: Sequence[str], title: str | None, *, columns: int = 0) -> alt.Color:
    """Colours of categories, in their order; one alone needs no legend.

    Args:
        names: of the categories, in their order.
        title: of the legend.
        columns: of the legend; 0 has it in one row.
    """
    colours = [PALETTE[place % len(PALETTE)] for place in range(len(names))]
    scale = alt.Scale(domain=list(names), range=colours)
    legend = (alt.Legend(columns=columns) if columns else alt.Legend()) if len(names) > 1 else None
    return alt.Color("group:N", title=title, scale=scale, legend=legend)


def shapes(names: Sequence[str]) -> alt.Shape:
    """Shapes of categories, in their order, beside their colours."""
    return alt.Shape("group:N", title=None, scale=alt.Scale(domain=names))


def counted(field: str, title: str) -> alt.X:
    """A horizontal axis of whole numbers."""
    return alt.X(f"{field}:Q", title=title, axis=alt.Axis(tickMinStep=1, format="d"))


def priced(field: str, title: str, **options: Any) -> alt.X:
    """A horizontal axis of costs, which is logarithmic."""
    return alt.X(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=16), **options)


def domain(values: Sequence[float], margin: float = 0.08) -> list[float]:
    """The range of values with a margin on either side."""
    low, high = min(values), max(values)
    pad = margin * (high - low) or abs(high) * 0.01 or 1.0
    return [low - pad, high + pad]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value
