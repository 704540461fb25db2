"""Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

All logits are divided by one temperature, which changes no stack's predicted class. The
temperature, and the confidence threshold below which a clip is `unsure`, are fitted on validation
predictions and never on the test split. Validation splits are small, so both fits add one
pseudo-observation: a stack whose class is uniform, and a clip whose answer is wrong.
"""

import math
from dataclasses import dataclass

import numpy as np

from emotion.evaluation.predictions import Predictions
from emotion.models.temperature import calibrate

BINS = 15  # of the expected calibration error, as in Guo et al.
TEMPERATURES = (0.01, 100.0)  # at the upper one all classes are almost equally probable


@dataclass(frozen=True)
class CalibrationQuality:
    """Expected calibration error and mean negative log-likelihood, before and after calibration."""

    num: int  # of stacks or clips
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float


@dataclass(frozen=True)
class SplitCalibration:
    """Calibration of one split."""

    stacks: CalibrationQuality
    clips: CalibrationQuality
    answered: int  # clips that are not `unsure`
    accuracy: float | None  # of these; None if there are none


@dataclass(frozen=True)
class Calibration:
    """The calibration of a run, as `metrics.json` has it."""

    temperature: float
    unsure_below: float  # top probability of a clip; 0 answers every clip, 1 none
    accuracy: float  # required of answered validation clips
    threshold_set: bool  # false with fewer than `min_clips` validation clips
    splits: dict[str, SplitCalibration]


def fit_calibration(predictions: Predictions, accuracy: float) -> Calibration:
    """Fit on the uncalibrated predictions of validation stacks, and evaluate every split."""
    splits = predictions.by_split()
    temperature = fit_temperature(splits["val"])
    clips = splits["val"].calibrated(temperature).of_clips()
    threshold_set = len(clips) >= min_clips(accuracy)
    unsure_below = find_threshold(clips, accuracy) if threshold_set else 0.0
    qualities = {
        split: evaluate_calibration(own, temperature, unsure_below) for split, own in splits.items()
    }
    return Calibration(temperature, unsure_below, accuracy, threshold_set, qualities)


def min_clips(accuracy: float) -> int:
    """Return the fewest validation clips N for which a threshold is set.

    The rule of `find_threshold` asks of n answered clips, r of them correct, that
    r >= accuracy (n + 1). All clips can meet it although one of them is wrong if
    N - 1 >= accuracy (N + 1), which is N >= (1 + accuracy) / (1 - accuracy): 19 clips for 0.9.
    Among fewer, one wrong clip alone may make every answer `unsure`.
    """
    return math.ceil((1 + accuracy) / (1 - accuracy) - 1e-9)


def find_threshold(clips: Predictions, accuracy: float) -> float:
    """Find the lowest threshold at which enough answers are correct.

    Args:
        clips: at least one, calibrated.
        accuracy: the required share of correct answers, with one wrong clip added; 0 to below 1.

    Returns:
        A probability, half-way between the last clip that is answered and the next one, so that
        rounding moves neither across it; 0 if all are answered, 1 if no threshold does.
    """
    top, right = confidence(clips)
    order = np.argsort(-top)
    top, right = top[order], right[order]
    answered = np.arange(1, len(top) + 1)
    kept = right.cumsum() >= accuracy * (answered + 1)
    kept[:-1] &= top[:-1] > top[1:]  # clips of equal confidence are answered together
    if not kept.any():
        return 1.0
    last = int(kept.nonzero()[0][-1])
    return 0.0 if last + 1 == len(top) else float(top[last] + top[last + 1]) / 2


def fit_temperature(predictions: Predictions) -> float:
    """Find the temperature that minimizes the mean negative log-likelihood of the true classes.

    The targets are smoothed by 1 / (N + 1), as if there were one more stack whose class is uniform
    (after Platt, "Probabilistic Outputs for Support Vector Machines", 1999). The derivative with
    respect to 1 / temperature is monotonic, so its zero is found by bisection.

    Returns:
        A value within `TEMPERATURES`: the upper bound if the model is no better than chance; 1 if
        it gives all classes of every stack the same probability.
    """
    logits = predictions.logits
    if not np.ptp(logits, axis=1).any():
        return 1.0
    num, size = logits.shape
    smoothing = 1 / (num + 1)
    shares = np.full((num, size), smoothing / size)
    shares[np.arange(num), predictions.targets] += 1 - smoothing
    wanted = (shares * logits).sum(axis=1).mean()
    low, high = TEMPERATURES
    for _ in range(60):  # exhausts the precision of a float64
        middle = float(np.sqrt(low * high))
        slope = (calibrate(logits, middle) * logits).sum(axis=1).mean() - wanted
        low, high = (low, middle) if slope < 0 else (middle, high)
    return high


def evaluate_calibration(
    predictions: Predictions, temperature: float, unsure_below: float
) -> SplitCalibration:
    """Compare calibrated with uncalibrated predictions, given those of the stacks of one split."""
    calibrated = predictions.calibrated(temperature)
    clips = calibrated.of_clips()
    top, right = confidence(clips)
    answered = top >= unsure_below
    return SplitCalibration(
        stacks=quality(predictions, calibrated),
        clips=quality(predictions.of_clips(), clips),
        answered=int(answered.sum()),
        accuracy=float(right[answered].mean()) if answered.any() else None,
    )


def quality(before: Predictions, after: Predictions) -> CalibrationQuality:
    """Return the quality of predictions before and after calibration."""
    errors = calibration_error(before), calibration_error(after)
    return CalibrationQuality(len(after), *errors, mean_nll(before), mean_nll(after))


def confidence(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) float64 top probabilities, and (N,) bool whether they are of the true class."""
    top = predictions.probabilities.max(axis=1).astype(np.float64)
    return top, predictions.predicted == predictions.targets


def calibration_error(predictions: Predictions, bins: int = BINS) -> float:
    """Return the expected calibration error (Naeini et al., AAAI 2015; Guo et al. 2017).

    The mean difference between confidence and accuracy over bins of equal width, weighted by the
    number of predictions in them. It is biased upwards for few predictions.
    """
    top, right = confidence(predictions)
    place = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)  # (m / bins, (m + 1) / bins]
    gaps = np.bincount(place, weights=right - top, minlength=bins)
    return float(np.abs(gaps).sum() / len(top))


def mean_nll(predictions: Predictions) -> float:
    """Return the mean negative log-likelihood of the true classes, in nats."""
    logits = predictions.logits
    return float(-logits[np.arange(len(logits)), predictions.targets].mean())
