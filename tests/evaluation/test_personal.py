"""A person's own baseline, by hand; and the table of runs, from files that the test writes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from emotion.errors import UserError
from emotion.evaluation.personal import mean_neutral, with_baselines
from emotion.evaluation.predictions import Predictions
from emotion.models.recipe import Recipe
from emotion.reports.personal import describe

LABELS = ["Anger", "Happy", "Neutral"]
ANGER, HAPPY, NEUTRAL = range(3)
# clip, segment, subject, target, probabilities
STACKS = [
    ("a-n1", 1, "a", NEUTRAL, (0.6, 0.1, 0.3)),
    ("a-n1", 2, "a", NEUTRAL, (0.2, 0.4, 0.4)),
    ("a-h", 1, "a", HAPPY, (0.5, 0.4, 0.1)),
    ("b-n", 1, "b", NEUTRAL, (0.1, 0.1, 0.8)),
    ("b-a", 1, "b", ANGER, (0.7, 0.2, 0.1)),
    ("a-n2", 1, "a", NEUTRAL, (0.3, 0.3, 0.4)),
    ("c-h", 1, "c", HAPPY, (0.2, 0.7, 0.1)),  # nothing neutral is known of c
]


def predictions_of(stacks, split: str = "test") -> Predictions:
    clips, segments, subjects, targets, probabilities = zip(*stacks, strict=True)
    return Predictions(
        LABELS,
        [split] * len(stacks),
        list(clips),
        list(segments),
        list(subjects),
        np.array(targets),
        np.array(probabilities, np.float32),
    )


def test_neutral_is_the_mean_of_the_logarithms():
    expected = [
        (np.log(0.6) + np.log(0.2) + np.log(0.1) + np.log(0.3)) / 4,
        (np.log(0.1) + np.log(0.4) + np.log(0.1) + np.log(0.3)) / 4,
        (np.log(0.3) + np.log(0.4) + np.log(0.8) + np.log(0.4)) / 4,
    ]
    assert mean_neutral(predictions_of(STACKS), "Neutral") == pytest.approx(expected, rel=1e-6)


def test_without_neutral_stacks_there_is_none():
    predictions = predictions_of(STACKS)
    assert mean_neutral(predictions.take([2, 4]), "Neutral") == []
    assert mean_neutral(predictions, None) == mean_neutral(predictions, "Calm") == []
    assert mean_neutral(predictions, "Happy") != []


def test_each_neutral_clip_is_the_baseline_of_its_persons_other_clips_once():
    answered = with_baselines(predictions_of(STACKS), [0.0, 0.0, 0.0], "Neutral", 1.0)
    assert sorted(zip(answered.clips, answered.segments, strict=True)) == [
        ("a-h given a-n1", 1),
        ("a-h given a-n2", 1),
        ("a-n1 given a-n2", 1),
        ("a-n1 given a-n2", 2),
        ("a-n2 given a-n1", 1),
        ("b-a given b-n", 1),
    ]
    assert set(answered.subjects) == {"a", "b"}  # of c nobody has a baseline
    targets = dict(zip(answered.clips, answered.targets.tolist(), strict=True))
    assert targets["a-h given a-n2"] == HAPPY and targets["b-a given b-n"] == ANGER


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_difference_is_taken_off(share: float):
    neutral = np.log([0.2, 0.2, 0.6])
    answered = with_baselines(predictions_of(STACKS), neutral.tolist(), "Neutral", 1.0, share)
    baseline = (np.log([0.6, 0.1, 0.3]) + np.log([0.2, 0.4, 0.4])) / 2  # both segments of a-n1
    powers = np.exp(np.log([0.5, 0.4, 0.1]) + share * (neutral - baseline))
    actual = answered.probabilities[answered.clips.index("a-h given a-n1")]
    np.testing.assert_allclose(actual, powers / powers.sum(), rtol=1e-5)


def test_where_nobody_has_other_clips_nothing_is_answered():
    answered = with_baselines(predictions_of(STACKS[3:4]), [0.0, 0.0, 0.0], "Neutral", 1.0)
    assert len(answered) == 0 and answered.probabilities.shape == (0, 3)


@pytest.fixture
def write_run(run_dir: Path, tmp_path: Path):
    """Give a function that writes what is read of a finished run."""

    def write(name: str, stacks, seed=0, neutral=(-1.0, -1.0, -1.0), interval=5) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        metrics = {"status": "finished", "calibration": {}, "seed": seed, "reported_on": "test"}
        metrics |= {"model": "net", "interval": interval}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        recipe = Recipe.read(run_dir / "recipe.json").model_copy(
            update={"labels": LABELS, "neutral": neutral}
        )
        recipe.write(folder / "recipe.json")
        predictions_of(stacks).write(folder / "predictions.csv")
        return folder

    return write


def cells(table: str) -> list[list[str]]:
    return [[c.strip() for c in row.strip("| ").split("|")] for row in table.strip().splitlines()]


def score(cell: str) -> float:
    """Read a score, and see that it lies in its interval."""
    mean, low, high = map(float, re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", cell).groups())
    assert low <= mean <= high
    return mean


def test_folds_are_judged_together_without_a_baseline_and_with_one(write_run):
    of_a, of_b = ([row for row in STACKS if row[2] == person] for person in "ab")
    neutral = np.log([0.25, 0.25, 0.5]).tolist()
    table = cells(describe([write_run(p, s, 0, neutral) for p, s in (("a", of_a), ("b", of_b))]))
    assert table[0][:2] == ["clips of people never seen", "accuracy"]
    plain, based = table[2:]
    # right: b-n, b-a and a-n2; a-n1 is (0.4, 0.25, 0.35) in the mean, a-h is taken for anger
    assert plain[0] == "without a baseline" and score(plain[1]) == 60
    # two people: a is right in 1 of 3 clips, b in 2 of 2, and either may be drawn twice
    assert plain[1] == "60.0 [33.3, 100.0]"
    assert based[0] == "with one neutral clip"
    answered = with_baselines(predictions_of(of_a), neutral, "Neutral", 0.8).of_clips()
    right = (answered.probabilities.argmax(axis=1) == answered.targets).sum() + 1
    assert score(based[1]) == pytest.approx(100 * right / 5, abs=0.05)


def test_no_share_counts_the_answers_as_they_are_once_for_each_baseline(write_run):
    # a-n2 is right, a-n1 and a-h are not; both neutral clips of a are baselines: 1 of 4, and b-a
    table = cells(describe([write_run("one", STACKS, 0)], share=0.0))
    assert score(table[3][1]) == 40


def test_seeds_are_judged_one_by_one_and_by_their_mean(write_run):
    better = ("a-h", 1, "a", HAPPY, (0.1, 0.8, 0.1))
    other = [better if row[0] == "a-h" else row for row in reversed(STACKS)]
    table = cells(describe([write_run("one", STACKS, 0), write_run("two", other, 1)]))
    assert [row[0] for row in table[2:]] == [
        "without a baseline",
        "without a baseline, mean of the seeds' answers",
        "with one neutral clip",
        "with one neutral clip, mean of the seeds' answers",
    ]
    # 4 and 5 of 6 clips. In the mean a-h is (0.3, 0.6, 0.1), which is right
    assert (score(table[2][1]), score(table[3][1])) == (75, 83.3)


def test_what_cant_be_judged_is_told_in_a_line(write_run):
    unknown = [(*row[:2], "", *row[3:]) for row in STACKS]
    folders = {
        "names don't tell who is seen": [write_run("unknown", unknown)],
        "does not know what neutral is": [write_run("old", STACKS, neutral=())],
        "have not answered the same clips": [
            write_run("all", STACKS, 0), write_run("some", STACKS[:4], 1)
        ],
        "net, interval 10 and net, interval 5: name the runs of one cell": [
            write_run("five", STACKS), write_run("ten", STACKS, interval=10)
        ],
    }  # fmt: skip
    for message, run_dirs in folders.items():
        with pytest.raises(UserError, match=re.escape(message)):
            describe(run_dirs)
    with pytest.raises(UserError, match=r"--share=1\.5: it is 0 to 1"):
        describe([], share=1.5)
