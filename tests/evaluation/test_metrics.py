"""Scores against scikit-learn, confidence intervals against scipy and loops over units."""

import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn import metrics as independent

from emotion.evaluation.metrics import bootstrap, judge, mean_scores
from emotion.evaluation.predictions import Predictions
from emotion.models.lightning_module import running_metrics
from tests.evaluation.test_predictions import predictions_of

pytestmark = [  # scikit-learn's, of classes that are absent on purpose
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true"),
    pytest.mark.filterwarnings("ignore:A single label was found"),
]


@pytest.fixture
def predictions() -> Predictions:
    """200 stacks of 80 clips of 20 people, of five classes, right more often than not."""
    generator = np.random.default_rng(0)
    clips = np.concatenate([np.arange(80), generator.integers(80, size=120)])
    targets = clips % 5
    probabilities = generator.dirichlet(np.ones(5), size=200)
    probabilities[np.arange(200), targets] += generator.uniform(0, 0.8, size=200)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return predictions_of(
        probabilities, targets, [f"c{n}" for n in clips], [f"s{n % 20}" for n in clips]
    )


def chosen(predicted: list[int], targets: list[int], **others) -> Predictions:
    return predictions_of(np.eye(5)[predicted], targets, **others)


def assert_close(bounds: dict, expected: dict):
    assert bounds.keys() == expected.keys()
    for name in expected:
        assert bounds[name] == pytest.approx(expected[name])


# Scores


def test_scores_agree_with_scikit_learn(predictions: Predictions):
    scores = judge(predictions)
    targets, predicted = predictions.targets, predictions.probabilities.argmax(axis=1)
    assert scores.num == 200
    assert 0.3 < scores.accuracy < 0.95
    assert scores.accuracy == pytest.approx(independent.accuracy_score(targets, predicted))
    assert scores.uar == pytest.approx(independent.balanced_accuracy_score(targets, predicted))
    assert scores.macro_f1 == pytest.approx(
        independent.f1_score(targets, predicted, average="macro")
    )
    of_classes = independent.precision_recall_fscore_support(targets, predicted)[:3]
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1), of_classes, strict=True):
        assert ours == pytest.approx(theirs.tolist())
    assert scores.confusion == independent.confusion_matrix(targets, predicted).tolist()
    json.dumps(asdict(scores), allow_nan=False)


@pytest.mark.parametrize(
    ("targets", "predicted"),
    [
        ([0, 1, 1, 2], [0, 0, 1, 2]),  # classes 3 and 4 are nowhere
        ([0, 1, 1, 2], [3, 3, 3, 3]),  # class 3 is only predicted
        ([0, 0, 4], [0, 4, 4]),
        ([2], [2]),
        ([2], [0]),
    ],
)
def test_absent_classes_count_as_documented(targets: list[int], predicted: list[int]):
    scores = judge(chosen(predicted, targets))
    expected_uar = independent.balanced_accuracy_score(targets, predicted)
    expected_f1 = independent.f1_score(targets, predicted, average="macro", zero_division=0)
    assert scores.uar == pytest.approx(expected_uar)
    assert scores.macro_f1 == pytest.approx(expected_f1)
    theirs = independent.precision_recall_fscore_support(
        targets, predicted, labels=range(5), zero_division=np.nan
    )
    for ours, expected in zip((scores.precision, scores.recall, scores.f1), theirs, strict=False):
        found = [np.nan if score is None else score for score in ours]
        np.testing.assert_allclose(found, expected)

    running = running_metrics(5, "val/")
    running.update(torch.eye(5)[predicted], torch.tensor(targets))
    assert running.compute()["val/uar"].item() == pytest.approx(expected_uar)
    assert running.compute()["val/macro_f1"].item() == pytest.approx(expected_f1)


def test_running_metrics_agree_with_judging_all_at_once(predictions: Predictions):
    metrics = running_metrics(5, "val/")
    for part in (slice(0, 64), slice(64, 200)):
        metrics.update(
            torch.from_numpy(predictions.probabilities[part]),
            torch.from_numpy(predictions.targets[part]),
        )
    computed = metrics.compute()
    scores = judge(predictions)
    assert set(computed) == {"val/accuracy", "val/uar", "val/macro_f1"}
    for name in ("accuracy", "uar", "macro_f1"):
        assert computed[f"val/{name}"].item() == pytest.approx(getattr(scores, name))


# Confidence intervals


def test_subjects_are_drawn_where_enough_are_known(predictions: Predictions):
    assert judge(predictions).confidence.unit == "subjects"
    assert judge(predictions).confidence.num_units == 20
    nine = chosen([0] * 18, [0] * 18, subjects=[f"s{n % 9}" for n in range(18)])
    ten = chosen([0] * 18, [0] * 18, subjects=[f"s{n % 10}" for n in range(18)])
    some = chosen([0] * 18, [0] * 18, subjects=["", *(f"s{n}" for n in range(17))])
    found = [judge(p).confidence for p in (nine, ten, some)]
    assert [confidence.unit for confidence in found] == ["clips", "subjects", "clips"]
    assert [confidence.num_units for confidence in found] == [18, 10, 18]


@pytest.mark.parametrize("unit", ["subjects", "clips"])
def test_bounds_agree_with_a_loop_over_units(predictions: Predictions, unit: str):
    """Draw units one by one, collect their stacks, and let scikit-learn judge each draw."""
    if unit == "clips":
        predictions = predictions_of(
            predictions.probabilities, predictions.targets, predictions.clips
        )
    names = getattr(predictions, unit)
    predicted = predictions.probabilities.argmax(axis=1)
    units = sorted(set(names))
    generator = np.random.default_rng(5)
    found: dict[str, list[float]] = {"accuracy": [], "uar": [], "macro_f1": []}
    of_unit = {u: [i for i, name in enumerate(names) if name == u] for u in units}
    for _ in range(600):
        places = [i for u in generator.choice(units, size=len(units)) for i in of_unit[u]]
        true, said = predictions.targets[places], predicted[places]
        found["accuracy"].append(independent.accuracy_score(true, said))
        found["uar"].append(independent.balanced_accuracy_score(true, said))
        found["macro_f1"].append(independent.f1_score(true, said, average="macro"))
    confidence = bootstrap([predictions], resamples=4000)
    assert (confidence.unit, confidence.num_units) == (unit, len(units))
    for name, scores in found.items():
        expected = np.quantile(scores, [0.025, 0.975])
        np.testing.assert_allclose(confidence.bounds[name], expected, atol=0.015)


def test_interval_of_accuracy_agrees_with_scipys(predictions: Predictions):
    clips = predictions_of(predictions.probabilities, predictions.targets)  # a clip a stack
    right = (clips.probabilities.argmax(axis=1) == clips.targets).astype(float)
    theirs = scipy.stats.bootstrap(
        (right,), np.mean, method="percentile", n_resamples=4000, random_state=1
    ).confidence_interval
    ours = bootstrap([clips], resamples=4000).bounds["accuracy"]
    np.testing.assert_allclose(ours, theirs, atol=0.011)


def test_more_stacks_of_the_same_clips_do_not_narrow_an_interval(predictions: Predictions):
    one = predictions_of(predictions.probabilities, predictions.targets)
    ten = predictions_of(
        np.repeat(one.probabilities, 10, axis=0),
        np.repeat(one.targets, 10),
        np.repeat(one.clips, 10).tolist(),
    )
    assert_close(bootstrap([ten]).bounds, bootstrap([one]).bounds)


def test_a_run_twice_over_has_the_interval_of_one(predictions: Predictions):
    assert_close(bootstrap([predictions] * 3).bounds, bootstrap([predictions]).bounds)


def test_interval_of_a_mean_over_seeds_draws_the_same_clips_for_all():
    """Seeds that are right on opposite clips: their mean does not depend on the clips drawn."""
    half = [0] * 20 + [1] * 20
    one, other = chosen(half, [0] * 40), chosen(half[::-1], [0] * 40)
    assert bootstrap([one, other]).bounds["accuracy"] == pytest.approx((0.5, 0.5))
    low, high = bootstrap([one]).bounds["accuracy"]
    assert low < 0.4 and high > 0.6


def test_bounds_hold_the_score_and_repeat(predictions: Predictions):
    scores = judge(predictions)
    assert scores.confidence == judge(predictions).confidence
    for name, (low, high) in scores.confidence.bounds.items():
        assert 0 <= low < getattr(scores, name) < high <= 1


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    """Clips of three stacks that are right or wrong together, with probability 0.7."""
    generator = np.random.default_rng(2)
    covered = Counter()
    for _ in range(200):
        right = np.repeat(generator.random(100) < 0.7, 3)
        clips = [f"c{n // 3}" for n in range(300)]
        predictions = chosen(np.where(right, 0, 1).tolist(), [0] * 300, clips=clips)
        low, high = bootstrap([predictions], resamples=500).bounds["accuracy"]
        covered[low <= 0.7 <= high] += 1
    assert 0.90 <= covered[True] / 200 <= 0.99  # over stacks it would be about 0.74


def test_scores_of_many_confusions_at_once_are_those_of_each():
    confusions = np.random.default_rng(3).integers(9, size=(4, 3, 5, 5))
    together = mean_scores(confusions)
    for place in np.ndindex(4, 3):
        for name, value in mean_scores(confusions[place]).items():
            assert together[name][place] == value
