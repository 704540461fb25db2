"""Score runs on unseen subjects, without and with a neutral clip of each subject.

python -m emotion.reports.personal RUN_DIR ...               of one cell, all its folds and seeds
python -m emotion.reports.personal RUN_DIR ... --share 0.5   with another share of the difference
"""

from emotion.stopping import stop_on_signals

if __name__ == "__main__":  # before the other imports, which take a second
    stop_on_signals("stopped; the same command prints the table")

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion.cli import exit_on_error
from emotion.errors import UserError
from emotion.evaluation.metrics import SCORES, bootstrap, judge
from emotion.evaluation.personal import PERSON_SHARE, mean_of, with_baselines
from emotion.evaluation.predictions import Predictions
from emotion.tables import markdown_table


def personal_table(run_dirs: Sequence[Path], share: float = PERSON_SHARE) -> str:
    """Score the clips of finished runs of one cell on the splits that they report on.

    Returns:
        A Markdown table: without a baseline, with one (see `with_baselines`), and both with the
        mean of the seeds' probabilities.
    """
    from emotion.training.finished_run import Run  # after --help

    if not 0 <= share <= 1:
        raise UserError(f"--share must be 0 to 1, got {share}")
    plain: dict[int, list[Predictions]] = defaultdict(list)
    based: dict[int, list[Predictions]] = defaultdict(list)
    cells = set()
    for run_dir in run_dirs:
        run = Run.read(run_dir)
        record, recipe = run.record, run.recipe
        cells.add(f"{record.model_title}, interval {record.interval}")
        if len(cells) > 1:
            raise UserError(f"all runs must be of one cell, got {' and '.join(sorted(cells))}")
        raw = run.predictions.of_split(record.reported_on)
        if not all(raw.subjects):
            raise UserError(f"{run_dir}: the subjects of its clips are unknown")
        if not recipe.neutral or recipe.neutral_label is None:
            raise UserError(f"{run_dir}: its model has no neutral class")
        temperature = record.calibration.temperature
        plain[record.seed].append(raw.calibrated(temperature))
        based[record.seed].append(
            with_baselines(raw, recipe.neutral, recipe.neutral_label, temperature, share)
        )
    rows = []
    for title, by_seed in (("without a baseline", plain), ("with one neutral clip", based)):
        pooled = [Predictions.joined(folds).of_clips() for folds in by_seed.values()]
        rows.append(table_row(title, pooled))
        if len(pooled) > 1:
            rows.append(table_row(f"{title}, mean of the seeds", [mean_of(pooled)]))
    return markdown_table(["clips of unseen subjects", *SCORES], rows)


def table_row(title: str, runs: Sequence[Predictions]) -> list[str]:
    """Format the mean over seeds of each score, and its 95 % interval over subjects.

    Subjects are resampled however few they are, because the clips of one are not independent.
    """
    scores = [judge(run) for run in runs]
    bounds = bootstrap(runs, min_subjects=2).bounds
    cells = []
    for key in SCORES:
        mean = 100 * np.mean([getattr(score, key) for score in scores])
        cells.append(f"{mean:.1f} [{100 * bounds[key][0]:.1f}, {100 * bounds[key][1]:.1f}]")
    return [title, *cells]


def main() -> None:
    """Print the table of the runs that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m emotion.reports.personal",
        description="Score runs on unseen subjects, without and with a neutral clip of each.",
    )
    parser.add_argument("run_dirs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument(
        "--share",
        type=float,
        default=PERSON_SHARE,
        help="of a neutral clip's difference that is subtracted; 0 to 1 (%(default)s)",
    )
    arguments = parser.parse_args()
    with exit_on_error():
        print(personal_table(arguments.run_dirs, arguments.share))


if __name__ == "__main__":
    main()
