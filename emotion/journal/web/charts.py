"""The data of the charts, as figures of Plotly; `static/charts.js` draws them in the page's colors.

Colors are names of style variables (`happy`, `soft`), which the script looks up, so that light and
dark mode need one figure.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from emotion.journal.schema import Entry
from emotion.journal.trends import Recognition, Share, WeekdayShare
from emotion.journal.web.dates import Dates
from emotion.journal.web.templating import percent

Figure = dict[str, Any]
MAX_TICKS = 6
MAX_DAYS = 400  # of a curve; of longer ones, each second or third day and so on
MAX_MARKS = 400  # of the latest entries
MAX_ROWS = 12  # of the table beside a chart


def entry_tip(entry: Entry, dates: Dates) -> str:
    """Describe an entry in the lines of a tooltip, without its note."""
    sure = f" {percent(entry.probability)}" if entry.correction is None else ", corrected"
    return f"{dates.full(entry.day)}, {dates.time(entry.recorded_at)}<br>{entry.emotion}{sure}"


def shares_figure(
    rows: Sequence[Share],
    entries: Sequence[Entry],
    labels: Sequence[str],
    color: Mapping[str, str],
    dates: Dates,
) -> Figure:
    """Stack the shares of the emotions over the days, with a mark for each entry above them."""
    days = sorted({row.day for row in rows})
    days = set(days[:: -math.ceil(len(days) / MAX_DAYS)] if days else ())  # the last one included
    traces = []
    for label in labels:
        own = [row for row in rows if row.emotion == label and row.day in days]
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
    yaxis = {"range": [0, 1.12], "tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    layout = {"xaxis": day_ticks([row.day for row in rows], dates), "yaxis": yaxis}
    return {"data": traces, "layout": layout}


def day_ticks(days: Sequence[date], dates: Dates) -> Figure:
    """Label some of the days of an axis, with the year where it changes."""
    if not days:
        return {}
    first, last = days[0], days[-1]
    step = max(1, math.ceil(((last - first).days + 1) / MAX_TICKS))
    ticks = [first + timedelta(place) for place in range(0, (last - first).days + 1, step)]
    years = [None] + [tick.year for tick in ticks]
    texts = [
        dates.short(tick) + (f"<br>{tick.year}" if tick.year != before else "")
        for tick, before in zip(ticks, years, strict=False)
    ]
    return {"tickvals": [tick.isoformat() for tick in ticks], "ticktext": texts}


def table_of_shares(rows: Sequence[Share], labels: Sequence[str]) -> list[tuple[date, list[float]]]:
    """List the shares of the emotions at the end of each of the last weeks, latest first."""
    days: dict[date, dict[str, float]] = {}
    for row in rows:
        days.setdefault(row.day, {})[row.emotion] = row.share
    latest = sorted(days, reverse=True)[::7][:MAX_ROWS]
    return [(day, [days[day].get(label, 0.0) for label in labels]) for day in latest]


def weekday_shares(
    rows: Sequence[WeekdayShare], labels: Sequence[str], dates: Dates
) -> list[tuple[str, int, list[float]]]:
    """List name, number of entries and shares of the emotions of the weekdays."""
    shares = {(row.weekday, row.emotion): row.share for row in rows}
    totals = {row.weekday: row.num_entries for row in rows}
    return [
        (name, totals.get(number, 0), [shares.get((number, label), 0.0) for label in labels])
        for number, name, _ in dates.weekdays()
    ]


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


def recognition_figure(points: Sequence[Recognition]) -> Figure:
    """Draw the share of right answers over the entries, with its interval as a band."""
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
             "hovertemplate": "after entry %{x}: %{y:.0%} right<extra></extra>"},
        ],
        "layout": {
            "yaxis": {"range": [0, 1], "tickformat": ".0%"},
            "xaxis": {"type": "linear", "title": {"text": "entries"}},
        },
    }  # fmt: skip
