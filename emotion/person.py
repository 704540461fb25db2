"""predictions ──know the person──> predictions with a person's resting face taken into account.

What `EmotionRecognizer.calibrate` does to one person's clips, done to the predictions of a run, so
that it can be judged: each neutral clip of a person in turn is their baseline, set aside, and all
their other clips are answered with it.

    python -m emotion.person RUN_DIR ...               of one cell, or its folds and seeds together
    python -m emotion.person RUN_DIR ... --share 0.5   with another share of the difference
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emotion.calibration import logs
from emotion.errors import UserError
from emotion.metrics import bootstrap, judge
from emotion.predictions import Predictions
from emotion.recognizer import PERSON_SHARE
from emotion.results import markdown_table
from emotion.run import Run

NEUTRAL = "Neutral"  # the class of a resting face
SCORES = ("accuracy", "uar", "macro_f1")


def mean_neutral(predictions: Predictions) -> list[float]:
    """Give the mean log-probabilities of neutral stacks; nothing where there are none."""
    if NEUTRAL not in predictions.labels:
        return []
    is_neutral = predictions.targets == predictions.labels.index(NEUTRAL)
    return logs(predictions)[is_neutral].mean(axis=0).tolist() if is_neutral.any() else []


def with_baselines(
    predictions: Predictions, neutral: Sequence[float], share: float = PERSON_SHARE
) -> Predictions:
    """Answer everybody's stacks with a baseline, each of their neutral clips in turn.

    The log-probabilities of a baseline's stacks are compared with those of everybody's neutral
    stacks, and a share of the difference is taken off. All of it would take one clip's chance for
    the person.

    Args:
        predictions: of stacks of one split, whose subjects are known.
        neutral: (C,), see `mean_neutral`; of the model that made the predictions.
        share: 0 to 1.

    Returns:
        For each person and each of their neutral clips, all their other stacks. A clip's id ends in
        the baseline's, so that it is counted once for each.
    """
    logits, index = logs(predictions), predictions.labels.index(NEUTRAL)
    clips, subjects = np.array(predictions.clips), np.array(predictions.subjects)
    places, shifts, ids = [], [], []
    for baseline in np.unique(clips[predictions.targets == index]):
        of_baseline = clips == baseline
        shift = share * (np.array(neutral) - logits[of_baseline].mean(axis=0))
        for place in np.flatnonzero(np.isin(subjects, subjects[of_baseline]) & ~of_baseline):
            places.append(int(place))
            shifts.append(shift)
            ids.append(f"{clips[place]} given {baseline}")
    shifted = logits[places] + np.array(shifts).reshape(len(places), len(predictions.labels))
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return replace(predictions.take(places), clips=ids, probabilities=probabilities)


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
        plain.setdefault(seed, []).append(predictions)
        neutral = run.recipe.neutral
        if not neutral:
            raise UserError(f"{run_dir}: its model does not know what neutral is (recipe.json)")
        based.setdefault(seed, []).append(with_baselines(predictions, neutral, share))
    rows = []
    for title, by_seed in (("without a baseline", plain), ("with one neutral clip", based)):
        pooled = [Predictions.joined(folds).of_clips() for folds in by_seed.values()]
        mean = mean_of(pooled)
        rows.append(line(title, pooled))
        if len(pooled) > 1:
            rows.append(line(f"{title}, mean of the seeds' answers", [mean]))
    return markdown_table(["clips of people never seen", *SCORES], rows)


def mean_of(runs: Sequence[Predictions]) -> Predictions:
    """Average the probabilities of runs that answered the same clips.

    Raises:
        UserError: they have answered others.
    """
    if any(sorted(run.clips) != sorted(runs[0].clips) for run in runs[1:]):
        raise UserError("the seeds have not answered the same clips: name the same folds of each")
    order = [np.argsort(run.clips) for run in runs]
    first = runs[0].take(order[0].tolist())
    mean = np.mean(
        [run.probabilities[o] for run, o in zip(runs, order, strict=True)], axis=0
    ).astype(np.float32)
    return replace(first, probabilities=mean)


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
        prog="python -m emotion.person",
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
