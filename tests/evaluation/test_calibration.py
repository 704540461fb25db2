"""Calibration against scipy's minimizer, torch's loss, torchmetrics' error, and hand counts."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_calibration_error

from emotion.evaluation.calibration import (
    calibration_error,
    evaluate_calibration,
    find_threshold,
    fit_calibration,
    fit_temperature,
    mean_nll,
    min_clips,
)
from emotion.evaluation.metrics import judge_splits
from emotion.evaluation.predictions import Predictions, mean_of_stacks
from emotion.models.temperature import calibrate
from tests.evaluation.test_predictions import predictions_of


def overconfident(num: int, factor: float = 3.0, seed: int = 0) -> tuple[Predictions, np.ndarray]:
    """Draw targets from the softmax of logits, and predictions from `factor` times the logits."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.standard_normal((num, 5))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = np.array([generator.choice(5, p=share) for share in shares])
    logits = torch.tensor(factor * logits)
    return predictions_of(logits.softmax(dim=1), targets), logits.numpy()


def sure(tops: list[float], right: list[bool], split: str = "test") -> Predictions:
    """Make predictions of two classes, the first with these probabilities."""
    both = [[top, 1 - top] for top in tops]
    return predictions_of(both, [0 if r else 1 for r in right], split=split)


# Temperature


@pytest.mark.parametrize("num", [3, 40, 500])
def test_temperature_is_what_scipy_finds(num: int):
    predictions, logits = overconfident(num)

    def loss(temperature: float) -> float:
        return cross_entropy(
            torch.tensor(logits / temperature),
            torch.tensor(predictions.targets),
            label_smoothing=1 / (num + 1),
        ).item()

    best = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(predictions) == pytest.approx(best, rel=1e-4)


def test_temperature_undoes_an_exaggeration_and_changes_no_prediction():
    predictions, _ = overconfident(20_000)
    temperature = fit_temperature(predictions)
    assert temperature == pytest.approx(3, rel=0.05)
    after = predictions.calibrated(temperature)
    assert calibration_error(after) < 0.02 < 0.2 < calibration_error(predictions)
    assert mean_nll(after) < mean_nll(predictions)
    np.testing.assert_array_equal(
        after.probabilities.argmax(axis=1), predictions.probabilities.argmax(axis=1)
    )


def test_applying_a_temperature_is_softmax_of_divided_logits():
    predictions, logits = overconfident(50)
    expected = torch.tensor(logits / 1.7).softmax(dim=1).numpy()
    actual = predictions.calibrated(1.7).probabilities
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_probabilities_that_have_become_zero_are_survived():
    predictions = predictions_of([[1, 0, 0], [0, 1, 0], [1, 0, 0]], [0, 1, 2])
    temperature = fit_temperature(predictions)
    assert 1 < temperature <= 100
    assert np.isfinite(mean_nll(predictions.calibrated(temperature)))


@pytest.mark.parametrize("num", [1, 10, 100])
def test_where_all_is_right_certainty_grows_with_the_number_of_stacks(num: int):
    predictions = sure([0.7] * num, [True] * num)
    temperature = fit_temperature(predictions)
    top = predictions.calibrated(temperature).probabilities[0, 0]
    assert top == pytest.approx(1 - 1 / (num + 1) / 2, abs=1e-4)  # half a stack of N + 1 is wrong


def test_where_all_is_wrong_nothing_is_certain():
    predictions = sure([0.99] * 10, [False] * 10)
    assert fit_temperature(predictions) == 100
    assert predictions.calibrated(100).probabilities == pytest.approx(0.5, abs=0.02)


def test_where_nothing_is_said_nothing_is_changed():
    assert fit_temperature(predictions_of([[0.25] * 4] * 3, [0, 1, 2])) == 1


# Calibration error


@pytest.mark.parametrize("num", [1, 30, 1000])
def test_calibration_error_is_what_torchmetrics_finds(num: int):
    predictions, _ = overconfident(num)
    expected = multiclass_calibration_error(
        torch.tensor(predictions.probabilities),
        torch.tensor(predictions.targets),
        num_classes=5,
        n_bins=15,
        norm="l1",
    )
    assert calibration_error(predictions) == pytest.approx(expected.item(), abs=1e-5)


def test_calibration_error_by_hand():
    # bins of a tenth: two at 0.95 (one right), one at 0.65 (right); 2/3 * 0.45 + 1/3 * 0.35
    predictions = sure([0.95, 0.95, 0.65], [True, False, True])
    assert calibration_error(predictions, bins=10) == pytest.approx(2 / 3 * 0.45 + 1 / 3 * 0.35)
    assert calibration_error(sure([1.0, 1.0], [True, True])) == 0


# Unsure


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (0.0, 0.0),  # answer always
        (0.6, 0.0),  # 7 right of 10 + 1
        (0.7, 0.625),  # 7 of 9 + 1, without the least sure
        (0.75, 0.675),  # 6 of 7 + 1
        (0.84, 0.725),  # 6 of 6 + 1
        (0.9, 1.0),  # nothing gives that: 6 of 6 + 1 is 0.857
    ],
)
def test_threshold_answers_as_many_as_the_rule_allows(accuracy: float, expected: float):
    tops = [0.95, 0.9, 0.85, 0.8, 0.78, 0.75, 0.7, 0.65, 0.65, 0.6]
    right = [True] * 6 + [False, True, False, False]
    predictions = sure(tops, right)
    assert find_threshold(predictions, accuracy) == pytest.approx(expected, abs=1e-6)


def test_clips_that_are_equally_sure_are_answered_together():
    # 3 right of 3 + 1 would do, but the fourth clip is as sure as the third, and wrong
    predictions = sure([0.9, 0.9, 0.8, 0.8], [True, True, True, False])
    assert find_threshold(predictions, 0.7) == 1.0
    assert find_threshold(predictions, 0.66) == pytest.approx(0.85)


def test_threshold_by_brute_force():
    predictions, _ = overconfident(60, seed=4)
    top = predictions.probabilities.max(axis=1)
    right = predictions.probabilities.argmax(axis=1) == predictions.targets
    threshold = find_threshold(predictions, 0.85)
    assert 0 < threshold < 1
    reached = {t: right[top >= t].sum() / ((top >= t).sum() + 1) >= 0.85 for t in [0, *sorted(top)]}
    lowest = min(t for t, enough in reached.items() if enough)
    np.testing.assert_array_equal(top >= threshold, top >= lowest)


# Minimum number of clips


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99])
def test_min_clips_is_the_fewest_that_allow_one_wrong_clip(accuracy: float):
    def met(num: int) -> bool:
        """Whether the rule is met by `num` clips of equal confidence, one of them wrong."""
        clips = sure([0.8] * num, [False] + [True] * (num - 1))
        return find_threshold(clips, accuracy) == 0

    fewest = min_clips(accuracy)
    assert met(fewest) and (fewest == 1 or not met(fewest - 1))


@pytest.mark.parametrize("num", [18, 19])
def test_no_threshold_is_set_below_the_minimum_of_clips(num: int):
    calibration = fit_calibration(sure([0.8] * num, [False] * num, "val"), 0.9)
    assert calibration.threshold_set == (num == 19)
    assert calibration.unsure_below == (1.0 if num == 19 else 0.0)
    assert calibration.splits["val"].answered == (0 if num == 19 else num)


# Quality of a split


def test_clips_average_calibrated_stacks():
    predictions = predictions_of(
        [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 0, 1], clips=["a", "a", "b"]
    )
    quality = evaluate_calibration(predictions, temperature=2.0, unsure_below=0.54)
    # square roots, normalized: 0.75, 0.333 -> mean 0.5417; 0.5505
    first = (0.75 + 1 / 3) / 2
    second = 0.6**0.5 / (0.6**0.5 + 0.4**0.5)
    assert quality.clips.num == 2 and quality.stacks.num == 3
    assert quality.answered == 2 and quality.accuracy == 0.5
    nll = -(np.log(first) + np.log(1 - second)) / 2
    assert quality.clips.nll_after == pytest.approx(nll, rel=1e-5)
    assert quality.clips.ece_before == pytest.approx((0.45 + 0.6) / 2, abs=1e-6)


def test_no_accuracy_without_an_answered_clip():
    quality = evaluate_calibration(sure([0.7, 0.8], [True, True]), 1.0, unsure_below=1.0)
    assert quality.answered == 0 and quality.accuracy is None


def test_scores_threshold_and_label_of_a_clip_use_calibrated_stacks():
    """One certain stack outvotes two others until the logits are divided by the temperature."""
    stacks = [[0.999, 0.001], [0.3, 0.7], [0.3, 0.7]]
    powers = np.array(stacks) ** (1 / 10)
    expected = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)
    assert np.mean(stacks, axis=0).argmax() == 0
    raw = predictions_of(stacks, [0, 0, 0], clips=["a"] * 3, split="val")
    clips = raw.calibrated(10.0).of_clips()
    np.testing.assert_allclose(clips.probabilities[0], expected, rtol=1e-5)
    shared = mean_of_stacks(calibrate(np.log(stacks), 10.0))  # as inference does
    np.testing.assert_allclose(shared, expected, rtol=1e-5)
    right = float(expected.argmax() == 0)
    assert judge_splits(raw.calibrated(10.0))["val"].clips.accuracy == right
    quality = evaluate_calibration(raw, 10.0, unsure_below=expected.max() - 1e-3)
    assert (quality.answered, quality.accuracy) == (1, right)
    assert evaluate_calibration(raw, 10.0, expected.max() + 1e-3).answered == 0
