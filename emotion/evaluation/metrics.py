"""Accuracy, UAR and macro-F1 with confidence intervals, and the scores of each class.

All are computed from the (C, C) confusion matrix, whose rows are the true classes. Precision is
undefined (None) for a class that is never predicted, recall for one that is never true, F1 for one
that is neither. UAR is the mean of the defined recalls, like scikit-learn's balanced accuracy;
macro-F1 is the mean of the defined F1 scores, like scikit-learn's and torchmetrics'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emotion.evaluation.predictions import Predictions

SCORES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro-F1"}  # name -> heading
COVERAGE = 0.95
RESAMPLES = 2000
MIN_SUBJECTS = 10  # resampling fewer subjects underestimates how much subjects differ


@dataclass(frozen=True)
class Confidence:
    """Confidence intervals of the mean scores."""

    unit: str  # what was resampled: `clips` or `subjects`
    num_units: int
    bounds: dict[str, tuple[float, float]]  # one of `SCORES` -> low and high, 0 to 1


@dataclass(frozen=True)
class Scores:
    """Scores of stacks or clips, 0 to 1; lists have a score for each class, None if undefined."""

    num: int
    accuracy: float
    uar: float
    macro_f1: float
    precision: list[float | None]
    recall: list[float | None]
    f1: list[float | None]
    confusion: list[list[int]]  # C rows (true class) of C counts (predicted class)
    confidence: Confidence


@dataclass(frozen=True)
class LevelScores:
    """Scores of one split, by stack and by clip."""

    stacks: Scores
    clips: Scores


def judge(predictions: Predictions) -> Scores:
    """Score the predictions of at least one stack or clip, with bootstrap confidence intervals."""
    confusion = count_confusions(predictions, np.zeros(len(predictions), dtype=np.int64), 1)[0]
    precision, recall, f1 = class_scores(confusion)
    return Scores(
        num=len(predictions),
        **{name: float(value) for name, value in mean_scores(confusion).items()},
        precision=defined(precision),
        recall=defined(recall),
        f1=defined(f1),
        confusion=confusion.tolist(),
        confidence=bootstrap([predictions]),
    )


def judge_splits(predictions: Predictions) -> dict[str, LevelScores]:
    """Score the calibrated predictions of stacks, each split on its own."""
    parts = predictions.by_split().items()
    return {split: LevelScores(judge(of), judge(of.of_clips())) for split, of in parts}


def class_scores(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (..., C) precision, recall and F1, NaN if undefined, from (..., C, C) counts."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    occurring, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return right / predicted, right / occurring, 2 * right / (occurring + predicted)


def mean_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return each of `SCORES`, (...) float64, from (..., C, C) counts."""
    _, recall, f1 = class_scores(confusion)
    right = np.trace(confusion, axis1=-2, axis2=-1)
    return {
        "accuracy": right / confusion.sum(axis=(-2, -1)),
        "uar": np.nanmean(recall, axis=-1),
        "macro_f1": np.nanmean(f1, axis=-1),
    }


def defined(scores: np.ndarray) -> list[float | None]:
    """Convert (C,) scores to plain numbers, and NaN, which JSON lacks, to None."""
    return [None if np.isnan(score) else float(score) for score in scores]


def count_confusions(
    predictions: Predictions, unit_index: np.ndarray, num_units: int
) -> np.ndarray:
    """Count (U, C, C) int64 confusions of U units, given the (N,) unit of each prediction."""
    size = len(predictions.labels)
    place = (unit_index * size + predictions.targets) * size + predictions.predicted
    return np.bincount(place, minlength=num_units * size**2).reshape(num_units, size, size)


def bootstrap(
    runs: Sequence[Predictions], resamples: int = RESAMPLES, min_subjects: int = MIN_SUBJECTS
) -> Confidence:
    """Return 95 % confidence intervals of the runs' mean scores: percentile bootstrap over units.

    Subjects are drawn with replacement if all are known and at least `min_subjects`, else clips;
    never stacks, because those of one clip are nearly identical. Each comes with all its
    predictions (Efron and Tibshirani 1993, chapter 13; units as clusters: Field and Welsh 2007).
    An interval covers the choice of clips or subjects, not the randomness of training. It is too
    narrow for few units. All runs, one for each seed, predict the same stacks or clips.
    """
    subjects = set(runs[0].subjects)
    unit = "subjects" if "" not in subjects and len(subjects) >= min_subjects else "clips"
    counts = []
    for run in runs:
        names, unit_index = np.unique(getattr(run, unit), return_inverse=True)
        assert set(names) == set(getattr(runs[0], unit))
        counts.append(count_confusions(run, unit_index, len(names)))
    per_unit = np.stack(counts, axis=1)  # (U, S, C, C)
    num_units = len(per_unit)

    # Units with equal counts are interchangeable, so drawing the number of each kind gives the
    # same distribution, with one matrix product for all draws.
    flat = per_unit.reshape(num_units, -1)
    kinds, numbers = np.unique(flat, axis=0, return_counts=True)  # (K, S * C * C), (K,)
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(num_units, numbers / num_units, size=resamples)  # (R, K)
    confusions = (drawn.astype(np.float64) @ kinds).reshape(resamples, *per_unit.shape[1:])
    tail = (1 - COVERAGE) / 2
    bounds = {
        name: tuple(np.quantile(scores.mean(axis=1), [tail, 1 - tail]).tolist())
        for name, scores in mean_scores(confusions).items()  # (R, S)
    }
    return Confidence(unit, num_units, bounds)
