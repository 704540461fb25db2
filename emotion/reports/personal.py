"""Judge runs on people never seen, without and with a neutral clip of each of them.

python -m emotion.reports.personal RUN_DIR ...               of one cell, or its folds and seeds
python -m emotion.reports.personal RUN_DIR ... --share 0.5   with another share of the difference
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion.errors import UserError
from emotion.evaluation.metrics import bootstrap, judge
from emotion.evaluation.personal import PERSON_SHARE, SCORES, mean_of, with_baselines
from emotion.evaluation.predictions import Predictions
from emotion.tables import markdown_table
from emotion.training.finished_run import Run


def describe(run_dirs: Sequence[Path], share: float = PERSON_SHARE) -> str:
    """Judge the clips of some runs on the splits that they report on.

    Args:
        run_dirs: of the folds of one cell, with one seed or several.
        share: see `with_baselines`.

    Returns:
        A Markdown table: without a baseline, with one, and both with the seeds' mean probabilities.

    Raises:
        UserError: a run has not come to its end or does not know what neutral is, nobody knows
            whose clips they are, the seeds have answered others, the runs are of several cells, or
            `share` is no share.
    """
    if not 0 <= share <= 1:
        raise UserError(f"--share={share}: it is 0 to 1")
    plain: dict[int, list[Predictions]] = {}
    based: dict[int, list[Predictions]] = {}
    cells = set()
    for run_dir in run_dirs:
        run = Run.read(run_dir)
        cells.add(f"{run.metrics['model']}, interval {run.metrics['interval']}")
        if len(cells) > 1:
            raise UserError(f"{' and '.join(sorted(cells))}: name the runs of one cell")
        predictions = run.predictions.of_split(run.metrics["reported_on"])
        if not all(predictions.subjects):
            raise UserError(f"{run_dir}: names don't tell who is seen in its clips")
        seed = run.metrics["seed"]
        temperature = run.recipe.temperature
        plain.setdefault(seed, []).append(predictions.calibrated(temperature))
        neutral = run.recipe.neutral
        if not neutral:
            raise UserError(f"{run_dir}: its model does not know what neutral is (recipe.json)")
        based.setdefault(seed, []).append(
            with_baselines(predictions, neutral, "Neutral", temperature, share)
        )
    rows = []
    for title, by_seed in (("without a baseline", plain), ("with one neutral clip", based)):
        pooled = [Predictions.joined(folds).of_clips() for folds in by_seed.values()]
        mean = mean_of(pooled)
        rows.append(line(title, pooled))
        if len(pooled) > 1:
            rows.append(line(f"{title}, mean of the seeds' answers", [mean]))
    return markdown_table(["clips of people never seen", *SCORES], rows)


def line(title: str, runs: Sequence[Predictions]) -> list[str]:
    """Lay out a row: the mean over seeds of each score, and its 95 % interval over people.

    People are drawn, however few they are: what others of them would change is what matters here,
    and clips of one person are not independent.
    """
    scores = [judge(run) for run in runs]
    bounds = bootstrap(runs, min_subjects=2).bounds
    cells = []
    for key in SCORES:
        mean = 100 * np.mean([getattr(score, key) for score in scores])
        cells.append(f"{mean:.1f} [{100 * bounds[key][0]:.1f}, {100 * bounds[key][1]:.1f}]")
    return [title, *cells]


def main() -> None:
    """Judge the runs named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m emotion.reports.personal",
        description="Judge runs on people never seen, without and with a neutral clip of them.",
    )
    parser.add_argument("run_dirs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument(
        "--share",
        type=float,
        default=PERSON_SHARE,
        help="of what a neutral clip differs by, taken off; 0 to 1 (%(default)s)",
    )
    arguments = parser.parse_args()
    try:
        print(describe(arguments.run_dirs, arguments.share))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
