"""predictions ──calibrate──> probabilities that mean what they say, and when to say `unsure`.

Networks are surer than they are right. Temperature scaling (Guo et al., "On Calibration of Modern
Neural Networks", ICML 2017) divides all logits by one number, which changes no stack's prediction.
That number, and the top probability below which a clip is `unsure`, are set on validation
predictions and never on test.

Validation splits are small, so both count in one case more than there is: a stack that says nothing
of its class, and a clip that is wrong. Where everything is right, a temperature is finite that way
and no single lucky clip makes a threshold; with many clips it makes no difference.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np

from emotion.errors import UserError
from emotion.evaluation.predictions import Predictions
from emotion.models.temperature import best_temperature

BINS = 15  # as in Guo et al.
TINY = float(np.finfo(np.float32).smallest_subnormal)  # the least that a probability is taken for


@dataclass(frozen=True)
class Calibration:
    """What validation has taught of a model's probabilities.

    Attributes:
        temperature: what logits are divided by before softmax.
        unsure_below: a clip whose top probability, calibrated, is lower is unsure; 0 where all are
            answered, 1 where none is.
    """

    temperature: float
    unsure_below: float

    def apply(self, predictions: Predictions) -> Predictions:
        """Calibrate the probabilities of stacks."""
        return at_temperature(predictions, self.temperature)

    def report(self, predictions: Predictions) -> dict[str, dict]:
        """Tell how well it does on the stacks of one split.

        Args:
            predictions: of stacks, as the model gave them.

        Returns:
            For `stacks` and for `clips`: their number, the expected calibration error and the mean
            negative log-likelihood, each before and after; for `clips` also how many were
            `answered` and the accuracy of these, None where none was.
        """
        after = self.apply(predictions)
        levels = {
            "stacks": (predictions, after),
            "clips": (predictions.of_clips(), after.of_clips()),
        }
        report = {
            level: {
                "num": len(pair[0]),
                "ece": dict(zip(("before", "after"), map(calibration_error, pair), strict=True)),
                "nll": dict(zip(("before", "after"), map(mean_nll, pair), strict=True)),
            }
            for level, pair in levels.items()
        }
        top, right = answers(levels["clips"][1])
        answered = top >= self.unsure_below
        report["clips"] |= {
            "answered": int(answered.sum()),
            "accuracy": float(right[answered].mean()) if answered.any() else None,
        }
        return report


@dataclass(frozen=True)
class Calibrator:
    """The rule by which a run is calibrated.

    Attributes:
        accuracy: share of right answers that is asked of validation clips, one wrong clip counted
            in; clips are unsure below the lowest top probability that gives it. 0 answers all.
    """

    accuracy: float

    def __post_init__(self) -> None:
        """Check that it can be had.

        Raises:
            UserError: it is no share, or 1, which nobody can promise.
        """
        if not 0 <= self.accuracy < 1:
            raise UserError(
                f"calibration.accuracy={self.accuracy}: it is from 0 (answer always) to below 1"
            )

    def fit(self, predictions: Predictions) -> Calibration:
        """Learn from validation predictions.

        Args:
            predictions: of stacks, at least one, as the model gave them.
        """
        temperature = fit_temperature(predictions)
        of_clips = at_temperature(predictions, temperature).of_clips()
        return Calibration(temperature, self.unsure_below(of_clips))

    def calibrate(self, predictions: Predictions) -> tuple[Calibration, dict]:
        """Learn from validation predictions, and tell how well that does on every split.

        Args:
            predictions: of the stacks of several splits, `val` among them, as the model gave them.

        Returns:
            The calibration, and what `metrics.json` tells of it: calibration, rule, and the report
            for each split under its name.
        """
        calibration = self.fit(predictions.of_split("val"))
        return calibration, {
            **asdict(calibration),
            **asdict(self),
            "bins": BINS,
            "fitted_on": "val",
            **{
                split: calibration.report(predictions.of_split(split))
                for split in dict.fromkeys(predictions.splits)
            },
        }

    def unsure_below(self, predictions: Predictions) -> float:
        """Find the lowest threshold that keeps the rule.

        Args:
            predictions: of clips, at least one, calibrated.

        Returns:
            A probability: half-way between the last clip that is answered and the next one, so
            that no rounding moves either across it; 0 if all are answered, 1 if no threshold does.
        """
        top, right = answers(predictions)
        order = np.argsort(-top)
        top, right = top[order], right[order]
        answered = np.arange(1, len(top) + 1)
        kept = right.cumsum() >= self.accuracy * (answered + 1)
        kept[:-1] &= top[:-1] > top[1:]  # clips that are equally sure are answered together
        if not kept.any():
            return 1.0
        last = int(kept.nonzero()[0][-1])
        return 0.0 if last + 1 == len(top) else float(top[last] + top[last + 1]) / 2


def answers(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Give the (N,) top probabilities, float64, and (N,) whether they are of the true class."""
    predicted = predictions.probabilities.argmax(axis=1)
    top = predictions.probabilities.max(axis=1).astype(np.float64)
    return top, predicted == predictions.targets


def logs(predictions: Predictions) -> np.ndarray:
    """Give (N, C) log-probabilities, float64: the logits, but for a constant in each row."""
    return np.log(np.maximum(predictions.probabilities.astype(np.float64), TINY))


def at_temperature(predictions: Predictions, temperature: float) -> Predictions:
    """Give predictions the probabilities that their logits, divided by a temperature, have."""
    powers = np.exp(logs(predictions) / temperature)  # (N, C)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    return replace(predictions, probabilities=probabilities.astype(np.float32))


def fit_temperature(predictions: Predictions) -> float:
    """Find the temperature under which the true classes of stacks are most probable.

    Args:
        predictions: of N stacks, at least one.

    Returns:
        See `best_temperature`.
    """
    return best_temperature(logs(predictions), predictions.targets)


def calibration_error(predictions: Predictions, bins: int = BINS) -> float:
    """Give the expected calibration error (Naeini et al., AAAI 2015; Guo et al. 2017).

    The mean difference between top probability and accuracy, over bins of equal width that count
    as many times as they have predictions. Few predictions make it too large: those of a bin are
    right by chance more or less often than they should be.

    Args:
        predictions: of stacks or clips, at least one.
        bins: how many.

    Returns:
        0 to 1.
    """
    top, right = answers(predictions)
    place = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)  # (m / bins, (m + 1) / bins]
    gaps = np.bincount(place, weights=right - top, minlength=bins)
    return float(np.abs(gaps).sum() / len(top))


def mean_nll(predictions: Predictions) -> float:
    """Give the mean negative log-likelihood of the true classes, in nats."""
    logits = logs(predictions)
    return float(-logits[np.arange(len(logits)), predictions.targets].mean())
