"""Print and draw the learning curve of runs: their scores on unseen people, by known clips.

python -m emotion.reports.personal RUN_DIR ...                 of one cell, all its folds
python -m emotion.reports.personal RUN_DIR ... --picture FILE  and a picture of it
"""

from emotion.stopping import stop_on_signals

if __name__ == "__main__":  # before the other imports, which take a second
    stop_on_signals("stopped; the same command prints the table")

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from emotion.errors import UserError
from emotion.evaluation.learning_curve import (
    DRAWS,
    FEATURES_FILE,
    KINDS,
    NUMS,
    ClipFeatures,
    CurvePoint,
    learning_curve,
)
from emotion.evaluation.metrics import SCORES
from emotion.files import unfinished
from emotion.reports.charts import MODEL_COLORS, PALETTE, STYLE, new_figure, to_svg
from emotion.tables import markdown_table

KIND_COLORS = dict(zip(KINDS, MODEL_COLORS, strict=False))


def read_folds(run_dirs: Sequence[Path]) -> list[ClipFeatures]:
    """Read the features of the clips of runs, which must have the same classes and features."""
    folds = [ClipFeatures.read(run_dir / FEATURES_FILE) for run_dir in run_dirs]
    for run_dir, fold in zip(run_dirs, folds, strict=True):
        if (fold.labels, fold.blocks) != (folds[0].labels, folds[0].blocks):
            raise UserError(f"{run_dir} must be a run of the same cell as {run_dirs[0]}")
        if "" in fold.subjects:
            raise UserError(f"{run_dir}: the subjects of its clips are unknown")
    return folds


def curve_grid(points: Sequence[CurvePoint]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a learning curve's table, in percent."""
    rows = [
        [
            KINDS[point.kind],
            str(point.num),
            *(
                f"{100 * point.scores[key]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                for key in SCORES
                for low, high in [point.bounds[key]]
            ),
            f"{100 * point.ece:.1f}",
            f"{100 * point.gain:+.1f}",
        ]
        for point in points
    ]
    headings = ["known clips of the person", "n", *SCORES.values(), "ECE", "gain in accuracy"]
    return headings, rows


def curve_table(points: Sequence[CurvePoint]) -> str:
    """Format a learning curve as a Markdown table, in percent."""
    return markdown_table(*curve_grid(points))


@matplotlib.rc_context(STYLE)
def curve_chart(points: Sequence[CurvePoint], title: str) -> Markup:
    """Draw a learning curve for a page; see `draw_panels`."""
    figure, (accuracy, ece) = new_figure(390, rows=2)
    draw_panels(points, accuracy, ece)
    accuracy.set_xlabel("")
    texts = [
        f"{KINDS[kind]}: "
        + ", ".join(
            f"{100 * point.scores['accuracy']:.1f} % after {point.num}"
            for point in points
            if point.kind == kind
        )
        for kind in dict.fromkeys(point.kind for point in points)
    ]
    return to_svg(figure, f"{title}: accuracy by known clips", "; ".join(texts))


@matplotlib.rc_context(STYLE)
def draw_curve(points: Sequence[CurvePoint], path: Path) -> None:
    """Draw a learning curve to a picture; see `draw_panels`."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    draw_panels(points, *figure.subplots(1, 2, width_ratios=(3, 2)))
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    with unfinished(path) as temporary:
        figure.savefig(temporary, dpi=120, format=path.suffix[1:] or "png")


def draw_panels(points: Sequence[CurvePoint], accuracy: Axes, ece: Axes) -> None:
    """Draw accuracy and ECE of a learning curve over the number of known clips.

    The band is the 95 % interval over people, of `corrected` only, so that bands do not overlap.
    """
    for kind, color in KIND_COLORS.items():
        curve = [point for point in points if point.kind == kind]
        if not curve:
            continue
        nums = [point.num for point in curve]
        style = {"color": PALETTE[color], "marker": "o", "markersize": 4, "linewidth": 1.6}
        accuracy.plot(nums, [point.scores["accuracy"] for point in curve], **style)
        ece.plot(nums, [point.ece for point in curve], **style, label=KINDS[kind])
        if kind == "corrected":
            bounds = zip(*(point.bounds["accuracy"] for point in curve), strict=True)
            label = f"95 % interval, {KINDS[kind]}"
            band = {"color": PALETTE[color], "alpha": 0.12, "linewidth": 0, "label": label}
            accuracy.fill_between(nums, *bounds, **band)
    accuracy.set_title("accuracy of the other clips, %")
    ece.set(title="expected calibration error, %", ylim=(0, None))
    for axes in (accuracy, ece):
        axes.set(xlabel="known clips of the person", xticks=NUMS)
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0, ""))
        axes.grid(axis="y")


def main() -> None:
    """Print the learning curve of the runs that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m emotion.reports.personal",
        description="Score runs on unseen people, by the number of known clips of each.",
    )
    parser.add_argument("run_dirs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument(
        "--draws",
        type=int,
        default=DRAWS,
        help="random histories of each person (%(default)s)",
    )
    parser.add_argument("--picture", type=Path, help="draw it to this PNG or SVG file, too")
    arguments = parser.parse_args()
    try:
        points = learning_curve(read_folds(arguments.run_dirs), draws=arguments.draws)
        print(curve_table(points))
        if arguments.picture:
            draw_curve(points, arguments.picture)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
