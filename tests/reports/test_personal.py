"""The table of unseen subjects, from runs that the test writes."""

import re
from pathlib import Path

import numpy as np
import pytest

from emotion.errors import UserError
from emotion.evaluation.metrics import judge
from emotion.evaluation.personal import with_baselines
from emotion.evaluation.predictions import Predictions, Sample
from emotion.models.recipe import Recipe
from emotion.reports.personal import personal_table
from tests.reports.runs import calibration, fail_run, write_run
from tests.stacks.standard import STANDARD

LABELS = ("Anger", "Happy", "Calm")  # the resting face need not be called Neutral
ANGER, HAPPY, CALM = range(3)
NEUTRAL = tuple(np.log([0.25, 0.25, 0.5]).tolist())
TEMPERATURE = 0.8
# clip, segment, subject, target, probabilities
STACKS = [
    ("a-n1", 1, "a", CALM, (0.6, 0.1, 0.3)),
    ("a-n1", 2, "a", CALM, (0.2, 0.4, 0.4)),
    ("a-h", 1, "a", HAPPY, (0.5, 0.4, 0.1)),
    ("b-n", 1, "b", CALM, (0.1, 0.1, 0.8)),
    ("b-a", 1, "b", ANGER, (0.7, 0.2, 0.1)),
    ("a-n2", 1, "a", CALM, (0.3, 0.3, 0.4)),
]


def predictions_of(stacks) -> Predictions:
    samples = [Sample("test", *stack[:3], LABELS[stack[3]]) for stack in stacks]
    return Predictions(LABELS, samples, np.array([stack[4] for stack in stacks], np.float32))


@pytest.fixture
def write(tmp_path: Path):
    """Give a function that writes what is read of a finished run."""

    def write_personal(name: str, stacks, seed=0, neutral=NEUTRAL, interval=5) -> Path:
        folder = tmp_path / name
        Recipe(
            title="net", data="clips", labels=LABELS, settings=STANDARD, interval=interval,
            image_px=224, versions={}, neutral=neutral, neutral_label="Calm" if neutral else None,
        ).write(folder / "recipe.json")  # fmt: skip
        (folder / "best.ckpt").touch()
        write_run(
            folder, predictions_of(stacks), ("recipe.json", "best.ckpt"), seed=seed,
            interval=interval, labels=LABELS, calibration=calibration(TEMPERATURE),
        )  # fmt: skip
        return folder

    return write_personal


def cells(table: str) -> list[list[str]]:
    return [[c.strip() for c in row.strip("| ").split("|")] for row in table.strip().splitlines()]


def score(cell: str) -> float:
    """Read a score, which must be in its interval."""
    mean, low, high = map(float, re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", cell).groups())
    assert low <= mean <= high
    return mean


def test_folds_are_scored_together_without_a_baseline_and_with_one(write):
    of_a, of_b = ([row for row in STACKS if row[2] == person] for person in "ab")
    table = cells(personal_table([write("a", of_a), write("b", of_b)]))
    assert len(table[2:]) == 2 and table[0][1] == "accuracy"
    plain, based = table[2:]
    # Correct: b-n, b-a and a-n2. The stacks of a-n1 have the calibrated probabilities
    # (0.66, 0.07, 0.28) and (0.17, 0.41, 0.41), so that its mean is Anger; a-h is Anger too.
    # Of the two subjects, a has 1 of 3 clips and b 2 of 2, and either may be drawn twice.
    assert plain[1] == "60.0 [33.3, 100.0]"
    answered = with_baselines(predictions_of(of_a), NEUTRAL, "Calm", TEMPERATURE).of_clips()
    correct = (answered.probabilities.argmax(axis=1) == answered.targets).sum() + 1
    assert score(based[1]) == pytest.approx(100 * correct / 5, abs=0.05)


def test_without_a_share_each_clip_counts_once_for_each_baseline(write):
    # a-n2 is correct, a-n1 and a-h are not; both neutral clips of a are baselines: 1 of 4, and b-a
    table = cells(personal_table([write("one", STACKS)], share=0.0))
    assert score(table[3][1]) == 40


def test_seeds_are_scored_one_by_one_and_by_their_mean(write):
    better = ("a-h", 1, "a", HAPPY, (0.1, 0.8, 0.1))
    other = [better if row[0] == "a-h" else row for row in reversed(STACKS)]
    table = cells(personal_table([write("one", STACKS, 0), write("two", other, 1)]))
    assert len(table[2:]) == 4
    each = [
        judge(predictions_of(rows).calibrated(TEMPERATURE).of_clips()) for rows in (STACKS, other)
    ]
    assert score(table[2][1]) == pytest.approx(50 * sum(s.accuracy for s in each), abs=0.05)
    assert score(table[3][1]) == 80  # in the mean a-h is about (0.3, 0.6, 0.1), which is correct


@pytest.mark.parametrize("mistake", ["subjects", "neutral", "clips", "cell", "failed", "share"])
def test_runs_that_cannot_be_scored_are_refused(write, tmp_path: Path, mistake: str):
    unknown = [(*row[:2], "", *row[3:]) for row in STACKS]
    share, named = 0.25, None
    if mistake == "subjects":
        run_dirs = [named := write("unknown", unknown)]
    elif mistake == "neutral":
        run_dirs = [named := write("old", STACKS, neutral=())]
    elif mistake == "clips":
        run_dirs = [write("all", STACKS, 0), write("some", STACKS[:4], 1)]
    elif mistake == "cell":
        run_dirs = [write("five", STACKS), write("ten", STACKS, interval=10)]
    elif mistake == "failed":
        fail_run(named := tmp_path / "failed")
        run_dirs = [named]
    else:
        run_dirs, share, named = [write("one", STACKS)], 1.5, "--share"
    with pytest.raises(UserError, match=re.escape(str(named)) if named else None):
        personal_table(run_dirs, share)
