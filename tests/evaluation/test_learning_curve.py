"""Learning curves of synthetic people, compared with scikit-learn and counts by hand."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from emotion.errors import UserError
from emotion.evaluation.learning_curve import (
    KINDS,
    NUMS,
    ClipFeatures,
    draw_history,
    fit_calibrated,
    fit_clips,
    learning_curve,
    replay_curve,
    replay_people,
    score,
)
from tests.evaluation.people import LABELS, synthetic_people

TARGETS = np.repeat([0, 1, 2], 4)


def draws_of(kind: str, num: int, repeat: int = 300) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [draw_history(TARGETS, LABELS, kind, num, generator) for _ in range(repeat)]


def folds_of(seed: int = 0, num_people: int = 4) -> list[ClipFeatures]:
    return [
        synthetic_people(seed, num_people, test=f"p{person}", spread=0.8)
        for person in range(num_people)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_histories_are_of_different_clips(kind: str):
    for seen in draws_of(kind, 3, 20):
        assert len(set(seen.tolist())) == 3


def test_a_balanced_history_has_the_classes_in_turn():
    for seen in draws_of("balanced", 7, 50):
        assert sorted(Counter(TARGETS[seen].tolist()).values()) == [2, 2, 3]


def test_a_skewed_history_is_mostly_neutral():
    first = Counter(int(TARGETS[seen[0]]) for seen in draws_of("skewed", 1, 2000))
    assert [first[target] / 2000 for target in range(3)] == pytest.approx(
        [0.5, 0.25, 0.25], abs=0.04
    )


def test_neutral_histories_leave_a_neutral_clip_to_predict():
    assert all((TARGETS[seen] == 0).all() for seen in draws_of("neutral", 3, 20))
    assert draws_of("neutral", 4, 1) == [None]


def test_a_history_leaves_a_clip_to_predict():
    assert draws_of("corrected", 11, 1)[0] is not None
    assert draws_of("corrected", 12, 1) == draws_of("balanced", 20, 1) == [None]


def test_only_clips_outside_of_the_history_are_predicted():
    clips = synthetic_people(0)
    replay = replay_people(fit_clips(clips), clips, "corrected", 5, draws=3)
    assert len(replay.targets) == 6 * 3 * (12 - 5)
    assert Counter(replay.subjects.tolist()) == {f"p{person}": 21 for person in range(6)}


def test_scores_are_those_of_scikit_learn():
    clips = synthetic_people(0)
    model = fit_clips(clips)
    replay = replay_people(model, clips, "balanced", 3, draws=2)
    point = score("balanced", 3, replay, model.calibrated(replay.logits), LABELS)
    predicted = replay.logits.argmax(axis=1)
    accuracy = (predicted == replay.targets).mean()
    assert point.scores == pytest.approx(
        {
            "accuracy": accuracy,
            "uar": balanced_accuracy_score(replay.targets, predicted),
            "macro_f1": f1_score(replay.targets, predicted, average="macro"),
        }
    )
    before = (replay.without.argmax(axis=1) == replay.targets).mean()
    assert point.gain == pytest.approx(accuracy - before)
    low, high = point.bounds["accuracy"]
    assert low <= accuracy <= high


def test_the_curve_rises_with_corrected_clips():
    everybody = synthetic_people(0, num_people=12, noise=(0.2,) * 6, spread=0.5)
    half = np.isin(everybody.subjects, [f"p{person}" for person in range(6)])
    model = fit_clips(everybody.take(half))
    points = replay_curve([model], [everybody.take(~half)], ["corrected"], draws=5)
    assert [point.num for point in points] == [num for num in NUMS if num < 12]
    assert points[0].gain == 0 and points[-1].gain > 0.2
    assert points[-1].scores["accuracy"] > points[0].scores["accuracy"] + 0.2


def test_the_curve_pools_the_tested_people_of_all_folds():
    points = learning_curve(folds_of(num_people=3), draws=2)
    assert {point.kind for point in points} == set(KINDS)
    assert [point.num for point in points if point.kind == "neutral"] == [0, 1, 2, 3]
    low, high = points[0].bounds["accuracy"]
    assert low < points[0].scores["accuracy"] < high


def test_the_temperature_does_not_depend_on_the_tested_person():
    fold = folds_of()[0]
    tested = fold.splits == "test"
    other = replace(fold, features=np.where(tested[:, None], 99.0, fold.features))
    first, second = (fit_calibrated(each.take(each.splits != "test")) for each in (fold, other))
    assert first.temperature == second.temperature
    assert first.means.tobytes() == second.means.tobytes()


def test_the_temperature_flattens_exaggerated_logits():
    clips = synthetic_people(0, spread=0.5)
    repeated = replace(clips, features=np.tile(clips.features, 5), blocks=(4,) * 5)  # as if 5 times
    assert fit_calibrated(repeated).temperature > 2 * fit_calibrated(clips).temperature


def test_features_are_read_as_written(tmp_path: Path):
    clips = folds_of()[1]
    clips.write(tmp_path / "features.npz")
    found = ClipFeatures.read(tmp_path / "features.npz")
    assert (found.labels, found.blocks) == (clips.labels, clips.blocks)
    for name in ("features", "targets", "subjects", "clips", "splits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(clips, name))
    with pytest.raises(UserError, match="missing"):
        ClipFeatures.read(tmp_path / "other.npz")
