"""Charts of a report, drawn by Matplotlib: SVG inside the page, PNG for W&B and documents.

Matplotlib rather than Plotly, because of the size of the page. A report of nine models and
intervals takes about 0.4 MB with Matplotlib's SVG; Plotly's script alone adds 4.8 MB and a
dependency. Without a script there is no zoom, but points keep a tooltip, every chart repeats its
numbers as text for screen readers, and the style sheet switches the colors in dark mode.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from emotion.reports.results import Curve, Results

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
MARKERS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚"}  # and in the page's legend
WIDTH_PX = 340  # of a phone's screen without margins, so that 11 px text is read at 11 px
DPI = 72  # of Matplotlib's SVG: 1 pt is 1 px
FEW_POINTS = 3  # a curve of so few points shows them as dots, since one point is no line
TIP = "tip: "  # prefix of a group's id that becomes the tooltip of the group
SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": PALETTE["ink"],
    "axes.edgecolor": PALETTE["line"],
    "axes.labelcolor": PALETTE["soft"],
    "axes.titlecolor": PALETTE["soft"],
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": PALETTE["soft"],
    "ytick.color": PALETTE["soft"],
    "grid.color": PALETTE["line"],
    "svg.fonttype": "none",
}
Shares = Sequence[float | None]  # of each class, 0 to 1; None if undefined


@dataclass(frozen=True)
class Point:
    """An entry in a chart of accuracy, 0 to 1, against a cost above 0."""

    cost: float
    accuracy: float
    low: float | None  # bounds of the confidence interval, if there is one
    high: float | None
    model: int  # its index selects the color
    row: int  # its index selects the marker
    title: str


def model_color(index: int) -> str:
    """Return the name of the color of a model."""
    return MODEL_COLORS[index % len(MODEL_COLORS)]


def row_marker(index: int) -> str:
    """Return Matplotlib's name of the marker of a row."""
    return list(MARKERS)[index % len(MARKERS)]


# Drawing on axes


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
    axes.set(
        xlim=(-0.5, len(labels) - 0.5), ylim=(len(labels) - 0.5, -0.5), aspect="equal", anchor="N"
    )
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_learning(
    axes: Axes, metric: str, runs: Sequence[Sequence[Curve]], best_epochs: Sequence[int]
) -> None:
    """Draw `accuracy`, in percent, or `loss` of an entry's runs over the epochs.

    Values above the y limit are drawn at the limit. The best epoch of each run is marked on its
    validation curve.
    """
    scale, unit = (100, " %") if metric == "accuracy" else (1, "")
    top = axes.get_ylim()[1]
    for curves, best in zip(runs, best_epochs, strict=True):
        for curve in (curve for curve in curves if curve.metric == metric):
            values = [min(scale * value, top) for value in curve.values]
            color = PALETTE["accent" if curve.phase == "val" else "second"]
            marker = "o" if len(values) <= FEW_POINTS else None
            axes.plot(curve.epochs, values, color=color, marker=marker, markersize=4, linewidth=1.6)
            if curve.phase == "val" and best in curve.epochs:
                value = values[curve.epochs.index(best)]
                (dot,) = axes.plot(
                    best, value, "o", markersize=7, markerfacecolor="none", color=color
                )
                dot.set_gid(f"{TIP}best epoch {best}: {value:.3g}{unit}")


def draw_classes(
    axes: Axes, labels: Sequence[str], counts: Sequence[int], recall: Shares, f1: Shares
) -> None:
    """Draw recall and F1 of every class as bars, in percent; undefined ones have no bar."""
    places = np.arange(len(labels))
    for shares, color, offset in ((recall, "accent", -0.19), (f1, "second", 0.19)):
        percents = [0 if share is None else 100 * share for share in shares]
        bars = axes.barh(places + offset, percents, height=0.34, color=PALETTE[color])
        texts = ["undefined" if share is None else f"{100 * share:.1f}" for share in shares]
        axes.bar_label(bars, texts, padding=4, color=PALETTE["soft"])
    names = [f"{label}\nof {count}" for label, count in zip(labels, counts, strict=True)]
    axes.set_yticks(places, names)
    axes.set(xlim=(0, 119), ylim=(len(labels) - 0.5, -0.5), xticks=range(0, 101, 25))
    axes.grid(axis="x")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_costs(axes: Axes, points: Sequence[Point], cost_name: str) -> None:
    """Draw accuracy against a cost on a logarithmic scale, with confidence intervals.

    The points of one model, whose costs are nearly equal, are moved apart in the order of costs.
    """
    for point in points:
        model = sorted((p.cost, p.row) for p in points if p.model == point.model)
        aside = model.index((point.cost, point.row)) - (len(model) - 1) / 2
        bars = None
        if point.low is not None:
            bars = [[100 * (point.accuracy - point.low)], [100 * (point.high - point.accuracy)]]
        drawn = axes.errorbar(
            point.cost * 1.07**aside, 100 * point.accuracy, bars, fmt=row_marker(point.row),
            color=PALETTE[model_color(point.model)], markersize=7, capsize=3, elinewidth=1.2,
        )  # fmt: skip
        drawn.lines[0].set_gid(
            f"{TIP}{point.title}: {100 * point.accuracy:.2f} %, {point.cost:.3g} {cost_name}"
        )
    costs = [point.cost for point in points]
    lowest = min(point.accuracy if point.low is None else point.low for point in points)
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.6, max(costs) * 1.6)
    axes.set_ylim(10 * math.floor(10 * min(lowest, 0.9)) - 1, 101)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(cost_name)
    axes.set_title("accuracy, %", loc="left")
    axes.grid(axis="y")


# Charts of the page


@matplotlib.rc_context(STYLE)
def confusion_chart(labels: Sequence[str], counts: np.ndarray, title: str) -> Markup:
    """Draw a confusion matrix for the page; see `draw_confusion`."""
    left, bottom = 16 + label_px(labels), 30 + label_px(labels) // 2
    height = WIDTH_PX - left - 8 + bottom + 2  # so that the matrix, a square, fills it
    figure, axes = new_figure(height, left_px=left, bottom_px=bottom, top_px=2)
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
    """Draw accuracy and loss over the epochs for the page; chance is dashed.

    Losses above twice that of chance, ln C, are drawn there, so that one diverging epoch does not
    flatten all others.
    """
    chance = {"accuracy": 100 / num_classes, "loss": math.log(num_classes)}
    tops = {"accuracy": 100, "loss": 2 * chance["loss"]}
    last = max(epoch for curves in runs for curve in curves for epoch in curve.epochs)
    figure, panels = new_figure(326, rows=2)
    for axes, (metric, top), name in zip(
        panels, tops.items(), ("accuracy, %", "loss"), strict=True
    ):
        axes.set(xlim=(0.8, max(2, last) + 0.2), ylim=(0, top))
        axes.set_title(name, loc="left")
        axes.axhline(chance[metric], color=PALETTE["soft"], linestyle="--", linewidth=1)
        draw_learning(axes, metric, runs, best_epochs)
        axes.set_ylim(-0.02 * top, 1.03 * top)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y")
    panels[1].set_xlabel("epoch")
    best = [
        f"best epoch {epoch}: {100 * curve.values[curve.epochs.index(epoch)]:.1f} % on val"
        for curves, epoch in zip(runs, best_epochs, strict=True)
        for curve in curves
        if (curve.phase, curve.metric) == ("val", "accuracy") and epoch in curve.epochs
    ]
    return to_svg(figure, f"{title}: learning curves", "; ".join([f"{last} epochs", *best]))


@matplotlib.rc_context(STYLE)
def class_chart(
    labels: Sequence[str], counts: Sequence[int], recall: Shares, f1: Shares, title: str
) -> Markup:
    """Draw recall and F1 of every class for the page; see `draw_classes`."""
    height = 26 + 40 * len(labels)
    figure, axes = new_figure(height, left_px=label_px(labels), bottom_px=22, top_px=2)
    draw_classes(axes, labels, counts, recall, f1)
    shares = [
        f"{label} recall {percent(recall[i])}, F1 {percent(f1[i])}"
        for i, label in enumerate(labels)
    ]
    return to_svg(figure, f"{title}: scores of each class", "; ".join(shares))


@matplotlib.rc_context(STYLE)
def cost_chart(points: Sequence[Point], cost_name: str, title: str) -> Markup:
    """Draw accuracy against a cost for the page; see `draw_costs`."""
    figure, axes = new_figure(250)
    draw_costs(axes, points, cost_name)
    costs = [f"{p.title}: {p.cost:.3g}, {100 * p.accuracy:.1f} %" for p in points]
    return to_svg(figure, title, "; ".join(costs))


def percent(share: float | None) -> str:
    """Format a share in percent; None is `undefined`."""
    return "undefined" if share is None else f"{100 * share:.1f} %"


def new_figure(
    height_px: int, *, left_px: int = 38, bottom_px: int = 36, top_px: int = 22, rows: int = 1
) -> tuple[Figure, Axes | np.ndarray]:
    """Return a figure as wide as a phone's screen, and its axes (an array of several rows).

    Margins are given, because Matplotlib's layout engines take as long as the drawing.
    """
    figure = Figure(figsize=(WIDTH_PX / DPI, height_px / DPI), dpi=DPI)
    figure.subplots_adjust(
        left=left_px / WIDTH_PX,
        right=1 - 8 / WIDTH_PX,
        bottom=bottom_px / height_px,
        top=1 - top_px / height_px,
        hspace=0.3,
    )
    return figure, figure.subplots(rows)


def label_px(labels: Sequence[str]) -> int:
    """Return the room for the longest of some labels."""
    return min(120, 16 + 7 * max(map(len, labels)))


def to_svg(figure: Figure, title: str, description: str) -> Markup:
    """Convert a figure to an SVG element for an HTML page.

    Its colors become variables of the style sheet, and ids of groups that start with `TIP` become
    tooltips. The title must be unique in the page; the description repeats the numbers for readers
    who cannot see the chart.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title}):  # ids that are unique in the page
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    referenced = set(re.findall(r"#([\w-]+)", buffer.getvalue()))
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):  # a style would be global
                element.remove(child)
        identity = element.get("id", "")
        if identity not in referenced:
            element.attrib.pop("id", None)
        if identity.startswith(TIP):
            ElementTree.SubElement(element, f"{{{SVG}}}title").text = identity.removeprefix(TIP)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    label = f"{title}. {description}"
    root.attrib |= {"class": "chart", "role": "img", "aria-label": label}
    text = ElementTree.tostring(root, encoding="unicode")
    variables = {color: f"var(--{name})" for name, color in PALETTE.items()}
    text = re.sub("|".join(variables), lambda match: variables[match[0]], text)
    return Markup(re.sub(r">\s+<", "><", text))


# The picture of all confusion matrices


def confusion_figure(results: Results) -> Figure:
    """Draw every entry's confusion matrix, summed over seeds, in the order of the table."""
    entries = results.all_entries()
    columns = len(results.models) if len(results.models) > 1 else len(entries)
    rows = len(entries) // columns
    with matplotlib.rc_context(STYLE | {"font.size": 8, "axes.titlesize": 9}):
        figure = Figure(figsize=(0.6 + 3.1 * columns, 0.6 + 3.3 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, entry in zip(grid.flat, entries, strict=True):
            title = [f"{results.title(entry.model)}, interval {entry.interval}"]
            title = [entry.variant, *title] if entry.variant else title
            title = [str(entry.protocol), *title] if len(results.protocols) > 1 else title
            text = "\n".join(title)
            if entry.is_finished:
                text += f": {entry.estimate().mean:.1%}"
                draw_confusion(axes, entry.protocol.labels, entry.confusion["stacks"])
            else:
                axes.text(0.5, 0.5, entry.text(), ha="center", va="center")
                axes.set(xticks=[], yticks=[])
            axes.set_title(text, color=PALETTE["ink"])
        for axes in grid[:, 0]:
            axes.set_ylabel("true")
        for axes in grid[-1]:
            axes.set_xlabel("predicted")
    return figure
