"""Predictions: written and read to the last digit, joined, and averaged over a clip's stacks."""

import csv
from pathlib import Path

import numpy as np
import pytest

from emotion.errors import DamagedFile, UserError
from emotion.evaluation.predictions import Predictions, Sample
from emotion.stacks.manifest import StackRow


def predictions_of(probabilities, targets, clips=None, subjects=None, split="test", segments=None):
    """Make predictions of classes A, B, ... with a clip for each unless clips are named."""
    num, size = np.shape(probabilities)
    labels = tuple("ABCDEFGH"[:size])
    rows = zip(
        clips or [f"clip{i}" for i in range(num)],
        segments or range(1, num + 1),
        subjects or [""] * num,
        [labels[target] for target in targets],
        strict=True,
    )
    samples = [Sample(split, *row) for row in rows]
    return Predictions(labels, samples, np.array(probabilities, dtype=np.float32))


def assert_equal(one: Predictions, other: Predictions):
    assert (one.labels, one.samples) == (other.labels, other.samples)
    np.testing.assert_array_equal(one.targets, other.targets)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert one.probabilities.dtype == other.probabilities.dtype == np.float32


def test_file_gives_back_what_was_written(tmp_path: Path):
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([0.01, 0.1, 1], size=200)
    subjects = [str(generator.choice(["", "01", 'O\'Hara, "Æ"'])) for _ in range(200)]
    written = predictions_of(probabilities, generator.integers(3, size=200), subjects=subjects)
    written.write(tmp_path / "run" / "predictions.csv")
    assert_equal(Predictions.read(tmp_path / "run" / "predictions.csv"), written)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["predictions.csv"]


def test_file_says_what_is_true_and_what_was_predicted(tmp_path: Path):
    predictions_of([[0.25, 0.75], [1, 0]], [0, 0], ["a", "a"], ["ann", "ann"]).write(tmp_path / "p")
    with open(tmp_path / "p", newline="") as file:
        assert list(csv.reader(file)) == [
            ["split", "clip", "segment", "subject", "label", "predicted", "p_A", "p_B"],
            ["test", "a", "1", "ann", "A", "B", "0.25", "0.75"],
            ["test", "a", "2", "ann", "A", "A", "1", "0"],
        ]


def test_rows_of_the_manifest_stand_beside_their_probabilities():
    rows = [
        StackRow("", clip, segment, label, "ann", "val", 90, 1, "1", 1, 1, 30.0, "", "", "")
        for clip, segment, label in (("a", 1, "Sad"), ("a", 2, "Sad"), ("b", 1, "Happy"))
    ]
    probabilities = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], dtype=np.float32)
    predictions = Predictions.of_rows(rows, ["Happy", "Sad"], probabilities)
    assert predictions.targets.tolist() == [1, 1, 0]
    assert predictions.samples == [
        Sample("val", "a", 1, "ann", "Sad"),
        Sample("val", "a", 2, "ann", "Sad"),
        Sample("val", "b", 1, "ann", "Happy"),
    ]


def test_stacks_of_a_clip_are_averaged():
    stacks = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]
    means = predictions_of(stacks, [0, 1, 0], ["b", "a", "b"], ["ann", "bea", "ann"]).of_clips()
    np.testing.assert_allclose(means.probabilities, [[0.6, 0.4], [0.2, 0.8]], rtol=1e-6)
    assert means.samples == [Sample("test", "b", 0, "ann", "A"), Sample("test", "a", 0, "bea", "B")]
    assert means.targets.tolist() == [0, 1]


def test_averages_agree_with_a_loop():
    generator = np.random.default_rng(1)
    clips = [f"c{n}" for n in generator.integers(20, size=100)]
    probabilities = generator.dirichlet(np.ones(5), size=100)
    targets = [int(clip[1:]) % 5 for clip in clips]
    means = predictions_of(probabilities, targets, clips).of_clips()
    assert sorted(means.clips) == sorted(set(clips))
    for clip, target, mean in zip(means.clips, means.targets, means.probabilities, strict=True):
        mine = [p for p, c in zip(probabilities, clips, strict=True) if c == clip]
        np.testing.assert_allclose(mean, sum(mine) / len(mine), rtol=1e-5)
        assert target == int(clip[1:]) % 5


def test_folds_are_joined_and_splits_taken_apart():
    val = predictions_of([[1, 0]], [0], ["a"], split="val")
    test = predictions_of([[0, 1], [1, 0]], [1, 1], ["b", "c"])
    joined = Predictions.joined([val, test])
    assert len(joined) == 3 and joined.clips == ["a", "b", "c"]
    assert_equal(joined.of_split("val"), val)
    assert_equal(joined.of_split("test"), test)


def test_folds_that_overlap_are_refused():
    fold = predictions_of([[1, 0]], [0], ["a"])
    with pytest.raises(UserError, match="segment 1 of clip a"):
        Predictions.joined([fold, fold])


HEADER = "split,clip,segment,subject,label,predicted,p_A,p_B\n"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        HEADER,
        "split,clip\ntest,a\n",
        "split,p_A\ntest,half\n",
        HEADER + "test,a,1,,A,B,0.25\n",
        HEADER + "test,a,1,,A,B,0.25,nan\n",
        HEADER + "test,a,1,,A,B,0.25,0.25\n",
        HEADER + "test,a,1,,A,B,1.25,-0.25\n",
        HEADER + "test,a,one,,A,B,0.25,0.75\n",
        HEADER + "test,a,1,,C,B,0.25,0.75\n",
        HEADER + "train,a,1,,A,B,0.25,0.75\n",
        HEADER + 2 * "test,a,1,,A,B,0.25,0.75\n",
    ],
)
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, text: str | None):
    path = tmp_path / "predictions.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DamagedFile, match=str(path)) as refused:
        Predictions.read(path)
    assert str(refused.value).count(str(path)) == 1 and "\n" not in str(refused.value)
