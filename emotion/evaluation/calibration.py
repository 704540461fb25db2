"""Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

All logits are divided by one temperature, which changes no stack's predicted class. The
temperature, and the confidence threshold below which a clip is `unsure`, are fitted on validation
predictions and never on the test split. Validation splits are small, so both fits add one
pseudo-observation: a stack whose class is uniform, and a clip whose answer is wrong.
"""

import math
from dataclasses import dataclass

import numpy as np

from emotion.evaluation.predictions import Predictions, calibrate

BINS = 15  # as in Guo et al.
TEMPERATURES = (0.01, 100.0)  # at the upper one all classes are almost equally probable


@dataclass(frozen=True)
class BeforeAfter:
    """A measure before and after calibration."""

    before: float
    after: float


@dataclass(frozen=True)
class CalibrationQuality:
    """Number of predictions, expected calibration error, and mean negative log-likelihood."""

    num: int
    ece: BeforeAfter
    nll: BeforeAfter


@dataclass(frozen=True)
class ClipCalibrationQuality(CalibrationQuality):
    """The same for clips, with how many are not `unsure`, and their accuracy (None of none)."""

    answered: int
    accuracy: float | None


@dataclass(frozen=True)
class SplitCalibration:
    """Calibration of one split, at the level of stacks and of clips."""

    stacks: CalibrationQuality
    clips: ClipCalibrationQuality


@dataclass(frozen=True)
class Calibration:
    """The calibration of a run, as `metrics.json` has it.

    A clip with a top probability lower than `unsure_below` is `unsure`. The threshold is 0 if every
    clip is answered, 1 if no threshold reaches the accuracy.
    """

    temperature: float
    unsure_below: float
    accuracy: float  # required of answered validation clips
    min_clips: int  # number of validation clips below which no threshold is set
    threshold_set: bool
    bins: int  # of the expected calibration error
    fitted_on: str
    splits: dict[str, SplitCalibration]


@dataclass(frozen=True)
class Calibrator:
    """The rule that a run is calibrated by.

    `accuracy` is the required share of correct answers among the answered validation clips, with
    one wrong clip added, from 0 (answers every clip) to below 1.
    """

    accuracy: float

    @property
    def min_clips(self) -> int:
        """The fewest validation clips N for which a threshold is set.

        The rule asks of n answered clips, r of them correct, that r >= accuracy (n + 1). All clips
        can meet it although one of them is wrong if N - 1 >= accuracy (N + 1), which is
        N >= (1 + accuracy) / (1 - accuracy): 19 clips for 0.9. Among fewer, one wrong clip alone
        may make every answer `unsure`.
        """
        return math.ceil((1 + self.accuracy) / (1 - self.accuracy) - 1e-9)

    def calibrate(self, predictions: Predictions) -> Calibration:
        """Fit on the uncalibrated predictions of validation stacks, and evaluate every split."""
        of_val = predictions.of_split("val")
        temperature = fit_temperature(of_val)
        clips = of_val.calibrated(temperature).of_clips()
        threshold_set = len(clips) >= self.min_clips
        unsure_below = self.unsure_below(clips) if threshold_set else 0.0
        return Calibration(
            temperature=temperature,
            unsure_below=unsure_below,
            accuracy=self.accuracy,
            min_clips=self.min_clips,
            threshold_set=threshold_set,
            bins=BINS,
            fitted_on="val",
            splits={
                split: evaluate_calibration(predictions.of_split(split), temperature, unsure_below)
                for split in dict.fromkeys(predictions.splits)
            },
        )

    def unsure_below(self, clips: Predictions) -> float:
        """Find the lowest threshold that meets the rule for at least one (calibrated) clip.

        Returns:
            A probability, half-way between the last clip that is answered and the next one, so
            that rounding moves neither across it; 0 if all are answered, 1 if no threshold does.
        """
        top, right = confidence(clips)
        order = np.argsort(-top)
        top, right = top[order], right[order]
        answered = np.arange(1, len(top) + 1)
        kept = right.cumsum() >= self.accuracy * (answered + 1)
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
    after = predictions.calibrated(temperature)
    before_clips, after_clips = predictions.of_clips(), after.of_clips()
    top, right = confidence(after_clips)
    answered = top >= unsure_below
    return SplitCalibration(
        stacks=CalibrationQuality(len(after), *before_and_after(predictions, after)),
        clips=ClipCalibrationQuality(
            len(after_clips),
            *before_and_after(before_clips, after_clips),
            answered=int(answered.sum()),
            accuracy=float(right[answered].mean()) if answered.any() else None,
        ),
    )


def before_and_after(before: Predictions, after: Predictions) -> tuple[BeforeAfter, BeforeAfter]:
    """Return the expected calibration errors and the mean negative log-likelihoods."""
    return (
        BeforeAfter(calibration_error(before), calibration_error(after)),
        BeforeAfter(mean_nll(before), mean_nll(after)),
    )


def confidence(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) float64 top probabilities, and (N,) bool whether they are of the true class."""
    predicted = predictions.probabilities.argmax(axis=1)
    top = predictions.probabilities.max(axis=1).astype(np.float64)
    return top, predicted == predictions.targets


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
