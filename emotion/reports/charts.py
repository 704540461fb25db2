"""Charts of a report, drawn by Matplotlib: SVG inside the page, PNG for W&B and documents.

A report of nine models and intervals takes about 0.4 MB; Plotly's script alone would add 4.8 MB.
Points have tooltips, each chart repeats its numbers as text for screen readers, and the style sheet
switches the colors in dark mode.
"""

import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from emotion.escape import for_terminal
from emotion.reports.results import Curve, Estimate, Results

# Name of the style sheet's variable -> its color in light mode. The SVG refers to the variable.
PALETTE = {
    "ink": "#1b2430",
    "soft": "#5b6675",
    "line": "#dde2e8",
    "cell": "#1450be",
    "accent": "#1f6feb",
    "second": "#c2620a",
    "third": "#10805a",
    "fourth": "#a2358f",
    "fifth": "#6b5b00",
    "sixth": "#0b7a94",
}
MODEL_COLORS = ("accent", "second", "third", "fourth", "fifth", "sixth")
MARKERS = ("o", "s", "D", "^", "v", "P")  # of the rows of the table
SIGNS = ("●", "■", "◆", "▲", "▼", "✚")  # the same in the page's legend
WIDTH_PX = 340  # of a phone's screen without margins, so that 11 px text is read at 11 px
DPI = 72  # of Matplotlib's SVG: 1 pt is 1 px
FEW_POINTS = 3  # a curve of so few points shows them as dots, since one point is no line
MAX_LABEL = 14  # characters
TIP = "tip: "  # prefix of a group's id that becomes the tooltip of the group
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": PALETTE["ink"],
    "text.parse_math": False,
    "axes.edgecolor": PALETTE["line"],
    "axes.labelcolor": PALETTE["soft"],
    "axes.titlecolor": PALETTE["soft"],
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": PALETTE["soft"],
    "ytick.color": PALETTE["soft"],
    "grid.color": PALETTE["line"],
    "svg.fonttype": "none",
}
# The browser has letters that Matplotlib's font lacks.
warnings.filterwarnings("ignore", r"Glyph \d+ .* missing", UserWarning)
Shares = Sequence[float | None]  # of each class, 0 to 1; None if undefined


@dataclass(frozen=True)
class Point:
    """An entry in a chart of accuracy against a cost above 0."""

    cost: float
    accuracy: Estimate
    model: int  # its index selects the color
    row: int  # its index selects the marker
    title: str


def model_color(index: int) -> str:
    """Return the name of the color of a model."""
    return MODEL_COLORS[index % len(MODEL_COLORS)]


def draw_confusion(axes: Axes, labels: Sequence[str], counts: np.ndarray) -> None:
    """Draw (C, C) int64 counts, rows are the true class, shaded by the share of the true class."""
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    for i, j in np.ndindex(counts.shape):
        alpha = 0.04 + 0.9 * shares[i, j]
        axes.add_patch(
            Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, facecolor=PALETTE["cell"], alpha=alpha)
        )
        color = "white" if shares[i, j] > 0.6 else PALETTE["ink"]
        axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=color)
    limits = (-0.5, len(labels) - 0.5)
    axes.set(xlim=limits, ylim=limits[::-1], aspect="equal", anchor="N")
    names = list(map(short, labels))
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


@matplotlib.rc_context(STYLE)
def confusion_chart(labels: Sequence[str], counts: np.ndarray, title: str) -> Markup:
    """Draw a confusion matrix for the page; see `draw_confusion`."""
    figure, axes = new_figure(326)
    draw_confusion(axes, labels, counts)
    axes.set(xlabel="predicted", ylabel="true")
    rows = [
        f"{label}: " + ", ".join(f"{n} {labels[j]}" for j, n in enumerate(row) if n)
        for label, row in zip(labels, counts.tolist(), strict=True)
    ]
    return to_svg(figure, f"{title}: confusion matrix", f"predicted by class, {'; '.join(rows)}")


@matplotlib.rc_context(STYLE)
def learning_chart(
    runs: Sequence[Sequence[Curve]], best_epochs: Sequence[int], num_classes: int, title: str
) -> Markup:
    """Draw accuracy and loss of an entry's runs over the epochs; chance is dashed.

    The best epoch of each run is marked on its validation curve. Losses above twice that of chance,
    ln C, are drawn there, so that one diverging epoch does not flatten all others.
    """
    chance = math.log(num_classes)
    figure, (accuracy, loss) = new_figure(326, rows=2)
    panels = {"accuracy": (accuracy, 1 / num_classes, 1.0), "loss": (loss, chance, 2 * chance)}
    last = max(epoch for curves in runs for curve in curves for epoch in curve.epochs)
    texts = [f"{last} epochs"]
    for axes, at_chance, top in panels.values():
        axes.set(xlim=(0.8, max(2, last) + 0.2), ylim=(-0.02 * top, 1.03 * top))
        axes.axhline(at_chance, color=PALETTE["soft"], linestyle="--", linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y")
    for curves, best in zip(runs, best_epochs, strict=True):
        for curve in (curve for curve in curves if curve.metric in panels):
            axes, _, top = panels[curve.metric]
            values = np.minimum(curve.values, top)
            color = PALETTE["accent" if curve.phase == "val" else "second"]
            marker = "o" if len(values) <= FEW_POINTS else None
            axes.plot(curve.epochs, values, color=color, marker=marker, markersize=4, linewidth=1.6)
            if curve.phase == "val" and best in curve.epochs:
                value = curve.values[curve.epochs.index(best)]
                text = f"{100 * value:.1f} %" if curve.metric == "accuracy" else f"loss {value:.3g}"
                tip = f"best epoch {best}: {text}"
                gid, height = f"{TIP}{tip}", min(value, top)
                axes.plot(best, height, "o", markersize=7, mfc="none", color=color, gid=gid)
                texts += [f"{tip} on val"] if curve.metric == "accuracy" else []
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, 0, ""))
    accuracy.set_title("accuracy, %")
    loss.set(title="loss", xlabel="epoch")
    return to_svg(figure, f"{title}: learning curves", "; ".join(texts))


@matplotlib.rc_context(STYLE)
def class_chart(
    labels: Sequence[str], counts: Sequence[int], recall: Shares, f1: Shares, title: str
) -> Markup:
    """Draw recall and F1 of every class as bars, in percent; undefined ones have no bar."""
    figure, axes = new_figure(26 + 40 * len(labels))
    places = np.arange(len(labels))
    for shares, color, offset in ((recall, "accent", -0.19), (f1, "second", 0.19)):
        percents = [100 * (share or 0) for share in shares]
        bars = axes.barh(places + offset, percents, height=0.34, color=PALETTE[color])
        axes.bar_label(bars, list(map(percent, shares)), padding=4, color=PALETTE["soft"])
    names = [f"{short(label)}\nof {count}" for label, count in zip(labels, counts, strict=True)]
    axes.set_yticks(places, names)
    axes.set(xlim=(0, 119), ylim=(len(labels) - 0.5, -0.5), xticks=range(0, 101, 25))
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    rows = zip(labels, map(percent, recall), map(percent, f1), strict=True)
    texts = [f"{label} recall {first}, F1 {second}" for label, first, second in rows]
    return to_svg(figure, f"{title}: scores of each class in percent", "; ".join(texts))


@matplotlib.rc_context(STYLE)
def cost_chart(points: Sequence[Point], cost_name: str, title: str) -> Markup:
    """Draw accuracy against a cost on a logarithmic scale, with confidence intervals.

    The points of one model, whose costs are nearly equal, are moved apart in the order of costs.
    """
    figure, axes = new_figure(250)
    lowest, texts = 0.9, []
    for point in points:
        model = sorted((p.cost, p.row) for p in points if p.model == point.model)
        aside = model.index((point.cost, point.row)) - (len(model) - 1) / 2
        mean, low, high = point.accuracy.mean, point.accuracy.low, point.accuracy.high
        drawn = axes.errorbar(
            point.cost * 1.07**aside, mean, None if low is None else [[mean - low], [high - mean]],
            fmt=MARKERS[point.row % len(MARKERS)], color=PALETTE[model_color(point.model)],
            markersize=7, capsize=3, elinewidth=1.2,
        )  # fmt: skip
        texts.append(
            f"{for_terminal(point.title)}: {100 * mean:.2f} %, {point.cost:.3g} {cost_name}"
        )
        drawn.lines[0].set_gid(f"{TIP}{texts[-1]}")
        lowest = min(lowest, mean if low is None else low)
    costs = [point.cost for point in points]
    axes.set(xscale="log", xlim=(min(costs) / 1.6, max(costs) * 1.6))
    axes.set_ylim(math.floor(10 * lowest) / 10 - 0.01, 1.01)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0, ""))
    axes.set(xlabel=cost_name, title="accuracy, %")
    axes.grid(axis="y")
    return to_svg(figure, title, "; ".join(texts))


def short(label: str) -> str:
    """Return a label that fits beside a chart."""
    text = for_terminal(" ".join(label.split()))
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}…"


def percent(share: float | None) -> str:
    """Format a share in percent; None is `undefined`."""
    return "undefined" if share is None else f"{100 * share:.1f}"


def new_figure(height_px: int, rows: int = 1) -> tuple[Figure, Axes | np.ndarray]:
    """Return a figure as wide as a phone's screen, and its axes (an array of several rows)."""
    figure = Figure((WIDTH_PX / DPI, height_px / DPI), dpi=DPI, layout="constrained")
    return figure, figure.subplots(rows)


def to_svg(figure: Figure, title: str, description: str) -> Markup:
    """Convert a figure to an SVG element for an HTML page.

    Its colors become variables of the style sheet, and ids of groups that start with `TIP` become
    tooltips. The title must be unique in the page; the description repeats the numbers for readers
    who cannot see the chart.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": title}):  # ids that are unique in the page
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)  # left to the style sheet
    label = escape(for_terminal(f"{title}. {description}"))
    svg = svg.replace("<svg", f'<svg class="chart" role="img" aria-label="{label}"', 1)
    svg = re.sub(f'<g id="{TIP}([^"]*)">', r"<g><title>\1</title>", svg)
    referenced = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] * (match[1] in referenced), svg)
    variables = {color: f"var(--{name})" for name, color in PALETTE.items()}
    svg = re.sub("|".join(variables), lambda match: variables[match[0]], svg)
    return Markup(re.sub(r">\s+<", "><", svg))


@matplotlib.rc_context(
    STYLE | {"font.size": 8, "axes.titlesize": 9, "axes.titlelocation": "center"}
)
def draw_confusions(results: Results, path: Path) -> None:
    """Write a picture of each entry's confusion matrix, in the order of the table."""
    entries = results.all_entries
    columns = len(results.models) if len(results.models) > 1 else len(entries)
    rows = len(entries) // columns
    figure = Figure(figsize=(0.6 + 3.1 * columns, 0.6 + 3.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, entry in zip(grid.flat, entries, strict=True):
        title = results.entry_title(entry).replace(", ", "\n")
        if len(results.protocols) > 1:
            title = f"{entry.protocol}\n{title}"
        if entry.is_finished:
            title += f": {entry.estimate().mean:.1%}"
            draw_confusion(axes, entry.protocol.labels, entry.levels["stacks"].confusion)
        else:
            axes.text(0.5, 0.5, entry.text(), ha="center", va="center")
            axes.set(xticks=[], yticks=[])
        axes.set_title(for_terminal(title), color=PALETTE["ink"])
    for axes in grid[:, 0]:
        axes.set_ylabel("true")
    for axes in grid[-1]:
        axes.set_xlabel("predicted")
    figure.savefig(path, dpi=110, bbox_inches="tight")
