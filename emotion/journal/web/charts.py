"""The data of the charts, as figures of Plotly; `static/charts.js` draws them in the page's colors.

Colors are names of style variables (`happy`, `soft`), which the script looks up, so that light and
dark mode need one figure.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from emotion.journal.web.dates import Dates
from emotion.journal.web.templating import percent

Figure = dict[str, Any]
MAX_ROWS = 12  # of the table beside a chart


def entry_tip(entry: Any, dates: Dates) -> str:
    """Describe an entry in the lines of a tooltip, without its note."""
    sure = f" {percent(entry.probability)}" if entry.correction is None else ", corrected"
    return f"{dates.full(entry.day)}, {dates.time(entry.recorded_at)}<br>{entry.emotion}{sure}"


def shares_figure(
    rows: Sequence[Any],
    entries: Sequence[Any],
    labels: Sequence[str],
    color: Mapping[str, str],
    dates: Dates,
) -> Figure:
    """Stack the shares of the emotions over the days, with a mark for each entry above them."""
    traces = []
    for label in labels:
        own = [row for row in rows if row.emotion == label]
        traces.append({
            "type": "scatter", "mode": "lines", "stackgroup": "shares", "name": label,
            "x": [row.day.isoformat() for row in own], "y": [row.share for row in own],
            "line": {"width": 0.5, "color": color[label]}, "fillcolor": color[label],
            "hovertemplate": f"{label} %{{y:.0%}}<extra></extra>",
        })  # fmt: skip
    shown = [entry for entry in entries if entry.emotion in color]
    traces.append({
        "type": "scatter", "mode": "markers", "name": "entries", "showlegend": False,
        "x": [entry.day.isoformat() for entry in shown], "y": [1.06] * len(shown),
        "marker": {"color": [color[entry.emotion] for entry in shown], "size": 7},
        "text": [entry_tip(entry, dates) for entry in shown],
        "customdata": [f"/people/{entry.person_id}/entries/{entry.id}" for entry in shown],
        "hovertemplate": "%{text}<extra></extra>",
    })  # fmt: skip
    return {"data": traces, "layout": {"yaxis": {"range": [0, 1.12], "tickformat": ".0%"}}}


def table_of_shares(rows: Sequence[Any], labels: Sequence[str]) -> list[tuple[date, list[float]]]:
    """List the shares of the emotions at the end of each of the last weeks, latest first."""
    days: dict[date, dict[str, float]] = {}
    for row in rows:
        days.setdefault(row.day, {})[row.emotion] = row.share
    latest = sorted(days, reverse=True)[::7][:MAX_ROWS]
    return [(day, [days[day].get(label, 0.0) for label in labels]) for day in latest]


def weekday_shares(
    rows: Sequence[Any], labels: Sequence[str], dates: Dates
) -> list[tuple[str, int, list[float]]]:
    """List name, number of entries and shares of the emotions of the weekdays."""
    counts = {(row.weekday, row.emotion): row.count for row in rows}
    found = []
    for number, name, _ in dates.weekdays():
        own = [counts.get((number, label), 0) for label in labels]
        total = sum(own)
        found.append((name, total, [count / total if total else 0.0 for count in own]))
    return found


def weekday_figure(
    weekdays: Sequence[tuple[str, int, Sequence[float]]],
    labels: Sequence[str],
    color: Mapping[str, str],
) -> Figure:
    """Stack a bar of shares for each weekday."""
    traces = [
        {
            "type": "bar", "name": label, "marker": {"color": color[label]},
            "x": [name for name, _, _ in weekdays], "y": [shares[k] for _, _, shares in weekdays],
            "customdata": [total for _, total, _ in weekdays],
            "hovertemplate": f"{label} %{{y:.0%}} of %{{customdata}}<extra></extra>",
        }
        for k, label in enumerate(labels)
    ]  # fmt: skip
    layout = {"barmode": "stack", "bargap": 0.25, "yaxis": {"range": [0, 1], "tickformat": ".0%"}}
    return {"data": traces, "layout": layout}


def recognition_figure(points: Sequence[Any]) -> Figure:
    """Draw the share of right answers over the corrected entries, with its interval as a band."""
    x = list(range(1, len(points) + 1))
    base = {"type": "scatter", "mode": "lines", "x": x, "showlegend": False}
    no_line = {"line": {"width": 0, "color": "accent"}, "hoverinfo": "skip"}
    return {
        "data": [
            {**base, **no_line, "y": [point.low for point in points]},
            {**base, **no_line, "y": [point.high for point in points],
             "fill": "tonexty", "fillcolor": "band"},
            {**base, "mode": "lines+markers" if len(x) < 3 else "lines",
             "line": {"width": 2.5, "color": "accent"}, "y": [point.share for point in points],
             "hovertemplate": "entry %{x}: %{y:.0%} right<extra></extra>"},
        ],
        "layout": {
            "yaxis": {"range": [0, 1], "tickformat": ".0%"},
            "xaxis": {"type": "linear", "title": {"text": "corrected or confirmed entries"}},
        },
    }  # fmt: skip
