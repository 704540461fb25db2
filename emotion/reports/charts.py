"""results ──draw──> pictures: SVG that stands in the report's page, PNG for W&B and documents.

The SVG charts are 340 wide, the width of a phone's screen, so that their words are read at the size
they are drawn; colours are classes, which the page's style sheet sets for light and dark.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emotion.reports.results import Entry, Results

WIDTH = 340
SHAPES = 4  # of markers, see `marker`
FEW_POINTS = 3  # of a curve, up to which it shows them

Curve = Sequence[tuple[int, float]]  # epoch, counted from 1, and value


@dataclass(frozen=True)
class Axis:
    """Where values lie on a line of the chart.

    Attributes:
        low: value at `start`.
        high: value at `end`.
        start: in the chart's units.
        end: likewise; below `start` for a vertical axis, as SVG counts downwards.
        log: whether equal factors take equal room.
        whole: whether there is nothing between whole numbers.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        """Place a value."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        """Three to seven round numbers between low and high."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
            ticks = [tick for tick in ticks if self.low <= tick <= self.high]
            return ticks if len(ticks) <= 6 else ticks[:: math.ceil(len(ticks) / 6)]
        rough = (self.high - self.low) / 5
        decade = 10.0 ** math.floor(math.log10(rough))
        step = next(s * decade for s in (1, 2, 5, 10) if s * decade >= rough * 0.999)
        step = max(1.0, step) if self.whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(n * step, 10) for n in range(first, last + 1)]


def tag(name: str, content: str = "", **attributes: object) -> Markup:
    """Write an SVG element.

    Args:
        name: of the element.
        content: markup inside it.
        **attributes: `class_` stands for `class`, other `_` for `-`; values are escaped.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{content}</{name}>")


def text(x: float, y: float, words: object, class_: str = "", anchor: str = "start") -> Markup:
    """Write words into a chart; `anchor` is `start`, `middle` or `end`."""
    return tag("text", escape(words), x=x, y=y, class_=class_, text_anchor=anchor)


def svg(height: float, parts: Iterable[Markup], label: str) -> Markup:
    """Put parts into a chart that says to those who can't see it what it shows."""
    content = Markup("").join(parts)
    box = f"0 0 {WIDTH} {height:g}"
    return tag("svg", content, viewBox=box, role="img", aria_label=label, class_="chart")


def grid(x: Axis, y: Axis, x_name: str, y_name: str) -> list[Markup]:
    """Draw the lines and numbers of both axes."""
    parts = [text(x.start - 30, y.end - 8, y_name, "name")]
    for tick in y.ticks:
        at = y(tick)
        parts.append(tag("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="grid"))
        parts.append(text(x.start - 6, at + 4, f"{tick:g}", "tick", "end"))
    for tick in x.ticks:
        parts.append(text(x(tick), y.start + 15, f"{tick:g}", "tick", "middle"))
    parts.append(text((x.start + x.end) / 2, y.start + 31, x_name, "name", "middle"))
    return parts


def path(x: Axis, y: Axis, curve: Curve, class_: str) -> Markup:
    """Draw a curve; one of few points as dots too, for one point makes no line."""
    places = [(x(epoch), y(value)) for epoch, value in curve]
    line = tag("polyline", points=" ".join(f"{a:g},{b:g}" for a, b in places), class_=class_)
    dots = places if len(places) <= FEW_POINTS else []
    return line + Markup("").join(tag("circle", cx=a, cy=b, r=2, class_=class_) for a, b in dots)


def learning_chart(
    curves: Sequence[Mapping[str, Curve]], best_epochs: Sequence[int], num_classes: int, title: str
) -> Markup:
    """Draw accuracy and loss of an entry's runs over the epochs; chance is dashed.

    Loss is cut off at twice that of chance, ln C, so that one wild epoch does not flatten all.

    Args:
        curves: of every run, as `read_curves` gives them; none is empty.
        best_epochs: of every run, marked on the validation curves.
        num_classes: C.
        title: of the entry.
    """
    epochs = max(epoch for of_run in curves for curve in of_run.values() for epoch, _ in curve)
    x = Axis(1, max(2, epochs), 38, WIDTH - 8, whole=True)
    panels = (
        ("accuracy", "accuracy, %", 100, 100 / num_classes, Axis(0, 100, 130, 22)),
        ("loss", "loss", 1, math.log(num_classes), Axis(0, 2 * math.log(num_classes), 290, 182)),
    )
    parts, said = [], []
    for metric, name, factor, chance, y in panels:
        parts += grid(x, y, "" if metric == "accuracy" else "epoch", name)
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(chance), y2=y(chance), class_="chance"))
        for phase in ("train", "val"):
            for of_run, best in zip(curves, best_epochs, strict=True):
                curve = of_run.get(f"{phase}/{metric}", [])
                curve = [(epoch, min(factor * value, y.high)) for epoch, value in curve]
                if not curve:
                    continue
                parts.append(path(x, y, curve, phase))
                at_best = dict(curve).get(best)
                if phase == "val" and at_best is not None:
                    dot = tag("title", f"best epoch {best}: {at_best:.3g}")
                    parts.append(
                        tag("circle", dot, cx=x(best), cy=y(at_best), r=3.5, class_="best")
                    )
                    if metric == "accuracy":
                        said.append(f"best epoch {best} with {at_best:.1f} % on val")
    return svg(326, parts, f"{title}: learning curves over {epochs} epochs; {', '.join(said)}")


def class_chart(
    labels: Sequence[str],
    counts: Sequence[int],
    recall: Sequence[float | None],
    f1: Sequence[float | None],
    title: str,
) -> Markup:
    """Draw recall and F1 of every class as bars, with their numbers.

    Args:
        labels: the C classes.
        counts: how many stacks of each were judged.
        recall: of each class, 0 to 1; None where undefined.
        f1: likewise.
        title: of the entry.
    """
    x = Axis(0, 1, 96, WIDTH - 48)
    parts, said = [], []
    for row, (label, count) in enumerate(zip(labels, counts, strict=True)):
        top = 4 + 40 * row
        parts.append(text(x.start - 8, top + 14, label, "label", "end"))
        parts.append(text(x.start - 8, top + 28, f"of {count}", "tick", "end"))
        for place, (kind, share) in enumerate((("recall", recall[row]), ("f1", f1[row]))):
            y = top + 2 + 15 * place
            parts.append(
                tag("rect", x=x.start, y=y, width=x.end - x.start, height=12, class_="track")
            )
            if share is not None:
                width = round(x(share) - x.start, 1)
                parts.append(tag("rect", x=x.start, y=y, width=width, height=12, class_=kind))
            shown = "none" if share is None else f"{100 * share:.1f}"
            parts.append(text(x.end + 6, y + 10, shown, "tick"))
        said.append(
            f"{label} recall {percent(recall[row])}, F1 {percent(f1[row])}"  # as the bars say
        )
    return svg(6 + 40 * len(labels), parts, f"{title}, per class: {'; '.join(said)}")


def percent(share: float | None) -> str:
    """Write a share in percent; one that is undefined, as such."""
    return "undefined" if share is None else f"{100 * share:.1f} %"


@dataclass(frozen=True)
class Point:
    """An entry in a chart of accuracy against its cost.

    Attributes:
        cost: above 0.
        accuracy: 0 to 1.
        low: lower bound of its confidence interval; None if it has none.
        high: upper bound.
        colour: number of the model.
        shape: number of the row of the table.
        title: of the entry.
    """

    cost: float
    accuracy: float
    low: float | None
    high: float | None
    colour: int
    shape: int
    title: str


def cost_chart(points: Sequence[Point], cost_name: str) -> Markup:
    """Draw accuracy against a cost on a scale of factors, with confidence intervals.

    Points of one model are moved apart sideways in the order of their costs, which are nearly the
    same.

    Args:
        points: at least one.
        cost_name: what the cost is, with its unit.
    """
    lowest = min(point.accuracy if point.low is None else point.low for point in points)
    costs = [point.cost for point in points]
    x = Axis(min(costs) / 1.6, max(costs) * 1.6, 38, WIDTH - 8, log=True)
    y = Axis(10 * math.floor(10 * min(lowest, 0.9)), 100, 214, 22)
    room = min(9.0, 60 / len({point.shape for point in points}))
    parts = grid(x, y, cost_name, "accuracy, %")
    for point in points:
        of_model = sorted((p.cost, p.shape) for p in points if p.colour == point.colour)
        aside = of_model.index((point.cost, point.shape)) - (len(of_model) - 1) / 2
        at = round(x(point.cost) + room * aside, 1)
        words = f"{point.title}: {100 * point.accuracy:.2f} %, {point.cost:.3g} {cost_name}"
        drawn = [tag("title", escape(words))]
        if point.low is not None and point.high is not None:
            low, high = y(100 * point.low), y(100 * point.high)
            drawn.append(tag("line", x1=at, x2=at, y1=low, y2=high))
            for end in (low, high):
                drawn.append(tag("line", x1=at - 3, x2=at + 3, y1=end, y2=end))
        drawn.append(marker(at, y(100 * point.accuracy), point.shape))
        class_ = f"point c{point.colour % 6}"
        parts.append(tag("g", Markup("").join(drawn), class_=class_))
    said = ", ".join(f"{p.title} {p.cost:.3g} and {100 * p.accuracy:.1f} %" for p in points)
    return svg(250, parts, f"accuracy against {cost_name}: {said}")


def marker(x: float, y: float, shape: int) -> Markup:
    """Draw a disc, a square, a diamond or a triangle."""
    if shape % SHAPES == 0:
        return tag("circle", cx=x, cy=y, r=4.5)
    if shape % SHAPES == 1:
        return tag("rect", x=x - 4, y=y - 4, width=8, height=8)
    corners = {2: ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)), 3: ((0, -5.5), (5.5, 4), (-5.5, 4))}
    places = ((x + dx, y + dy) for dx, dy in corners[shape % SHAPES])
    return tag("polygon", points=" ".join(f"{a:g},{b:g}" for a, b in places))


def legend_marker(shape: int) -> Markup:
    """Draw a marker to stand in a line of words."""
    return tag("svg", marker(7, 7, shape), viewBox="0 0 14 14", aria_hidden="true", class_="key")


def confusion_figure(results: Results) -> Figure:
    """Draw every entry's confusion matrix, rows and columns as in the table; seeds add up."""
    entries = [
        entry
        for protocol in results.protocols
        for row in results.rows(protocol).values()
        for entry in row
    ]
    num_models = len(results.models)
    columns = num_models if num_models > 1 else len(entries)  # one model: one row
    rows = len(entries) // columns
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(0.6 + 3.1 * columns, 0.6 + 3.1 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis, entry in zip(axes.flat, entries, strict=True):
            draw_confusion(axis, entry, f"{results.title(entry.model)}, interval {entry.interval}")
            if len(results.protocols) > 1:
                axis.set_title(f"{entry.protocol}\n{axis.get_title()}", fontsize=9)
        for axis in axes[:, 0]:
            axis.set_ylabel("true")
        for axis in axes[-1]:
            axis.set_xlabel("predicted")
    return figure


def draw_confusion(axis: Axes, entry: Entry, title: str) -> None:
    """Draw one confusion matrix: counts, shaded by their share of the true class."""
    if entry.variant:
        title = f"{entry.variant}\n{title}"
    if not entry.is_finished:
        axis.set_title(title, fontsize=9)
        axis.text(0.5, 0.5, entry.text(), ha="center", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
        return
    axis.set_title(f"{title}: {entry.estimate().mean:.1%}", fontsize=9)
    labels, counts = entry.protocol.labels, entry.confusion["stacks"]
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(counts.shape):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axis.text(j, i, counts[i, j], ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(labels)), labels, fontsize=7, rotation=30)
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
