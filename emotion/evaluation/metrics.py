"""predictions ──judge──> accuracy, UAR and macro-F1, with confidence intervals, and each class's.

All scores follow from the confusion matrix, C rows for the true class and C columns for the
predicted one. Where a class does not occur:

- recall is undefined where a class is not in the truth, precision where it is never predicted, F1
  where it is neither; undefined is None, not 0;
- UAR, the unweighted average recall, also called balanced accuracy, is the mean of the defined
  recalls, as `sklearn.metrics.balanced_accuracy_score` has it;
- macro-F1 is the mean of the defined F1 scores, as `sklearn.metrics.f1_score` and torchmetrics
  have it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from emotion.evaluation.predictions import Predictions

COVERAGE = 0.95
RESAMPLES = 2000
MIN_SUBJECTS = 10  # fewer, drawn again and again, say too little of how people differ


@dataclass(frozen=True)
class Confidence:
    """Between which bounds scores would probably lie, had other clips or people been judged.

    Attributes:
        unit: what was drawn anew: `clips` or `subjects`.
        num_units: how many there are.
        bounds: `accuracy`, `uar`, `macro_f1` -> low and high, 0 to 1.
    """

    unit: str
    num_units: int
    bounds: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Scores:
    """How well predictions agree with labels; the module says what happens to absent classes.

    Attributes:
        num: how many stacks or clips were judged.
        accuracy: share that is right, 0 to 1.
        uar: mean of the classes' recalls.
        macro_f1: mean of the classes' F1 scores.
        precision: of each class, None where undefined.
        recall: likewise.
        f1: likewise.
        confusion: C rows, the true class, of C counts, the predicted class.
        confidence: intervals of accuracy, UAR and macro-F1.
    """

    num: int
    accuracy: float
    uar: float
    macro_f1: float
    precision: list[float | None]
    recall: list[float | None]
    f1: list[float | None]
    confusion: list[list[int]]
    confidence: Confidence


def judge(predictions: Predictions) -> Scores:
    """Score predictions.

    Args:
        predictions: of stacks or of clips, at least one.

    Returns:
        The scores, with the confidence intervals that `bootstrap` gives.
    """
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


def judge_splits(predictions: Predictions) -> dict[str, dict[str, dict]]:
    """Score every split on its own.

    Args:
        predictions: of the stacks of one split or several.

    Returns:
        Split -> `stacks` and `clips` -> their `Scores`, as plain values.
    """
    scores = {}
    for split in dict.fromkeys(predictions.splits):
        of_stacks = predictions.of_split(split)
        levels = {"stacks": of_stacks, "clips": of_stacks.of_clips()}
        scores[split] = {level: asdict(judge(of_level)) for level, of_level in levels.items()}
    return scores


def class_scores(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Score every class.

    Args:
        confusion: (..., C, C) counts.

    Returns:
        Precision, recall and F1, (..., C) each, NaN where undefined.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    occurring, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as documented
        return right / predicted, right / occurring, 2 * right / (occurring + predicted)


def mean_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Score all classes together.

    Args:
        confusion: (..., C, C) counts, each with at least one.

    Returns:
        `accuracy`, `uar` and `macro_f1`, (...) each, 0 to 1.
    """
    _, recall, f1 = class_scores(confusion)
    right = np.trace(confusion, axis1=-2, axis2=-1)
    return {
        "accuracy": right / confusion.sum(axis=(-2, -1)),
        "uar": np.nanmean(recall, axis=-1),
        "macro_f1": np.nanmean(f1, axis=-1),
    }


def defined(scores: np.ndarray) -> list[float | None]:
    """Turn (C,) scores into plain numbers, and NaN, which JSON does not know, into None."""
    return [None if np.isnan(score) else float(score) for score in scores]


def count_confusions(
    predictions: Predictions, unit_index: np.ndarray, num_units: int
) -> np.ndarray:
    """Count a confusion matrix for every unit.

    Args:
        predictions: N.
        unit_index: (N,) int64, which of the units each belongs to.
        num_units: U.

    Returns:
        (U, C, C) int64.
    """
    size = len(predictions.labels)
    predicted = predictions.probabilities.argmax(axis=1)
    place = (unit_index * size + predictions.targets) * size + predicted
    return np.bincount(place, minlength=num_units * size**2).reshape(num_units, size, size)


def independent_units(
    predictions: Predictions, min_subjects: int = MIN_SUBJECTS
) -> tuple[str, list[str]]:
    """Say what may be drawn anew: never stacks, for those of a clip are much the same.

    Returns:
        `subjects`, if all are known and at least `min_subjects`, else `clips`; and whose each of
        the N predictions is.
    """
    subjects = set(predictions.subjects)
    if "" not in subjects and len(subjects) >= min_subjects:
        return "subjects", predictions.subjects
    return "clips", predictions.clips


def bootstrap(
    runs: Sequence[Predictions],
    resamples: int = RESAMPLES,
    seed: int = 0,
    min_subjects: int = MIN_SUBJECTS,
) -> Confidence:
    """Give 95 % confidence intervals of the runs' mean scores: percentile bootstrap over units.

    Clips, or people, are drawn with replacement, as many as there are, each with all that belongs
    to it and the same ones for every run (Efron and Tibshirani 1993, chapter 13; units as clusters:
    Field and Welsh 2007). An interval tells what other clips or people would change, not what
    training anew would. Too narrow where units are few, and of no width where all are right.

    Args:
        runs: predictions for the same stacks or clips, one or more (of several seeds).
        resamples: R, how many draws.
        seed: of the draws.
        min_subjects: people are drawn if there are as many, else clips.

    Returns:
        The bounds, and what they are over.
    """
    unit, names = independent_units(runs[0], min_subjects)
    index = {name: i for i, name in enumerate(sorted(set(names)))}
    counts = []
    for run in runs:
        of_run = run.subjects if unit == "subjects" else run.clips
        assert set(of_run) == set(index)
        unit_index = np.array([index[name] for name in of_run], dtype=np.int64)
        counts.append(count_confusions(run, unit_index, len(index)))
    per_unit = np.stack(counts, axis=1)  # (U, S, C, C)

    # Units with equal counts are as good as one another, so it is enough to draw how many there
    # are of each kind: the same distribution, and a product of matrices for all draws at once.
    kinds, numbers = np.unique(
        per_unit.reshape(len(index), -1), axis=0, return_counts=True
    )  # (K, S * C * C), (K,)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(index), numbers / len(index), size=resamples)  # (R, K)
    confusions = (drawn.astype(np.float64) @ kinds).reshape(resamples, *per_unit.shape[1:])
    tail = (1 - COVERAGE) / 2
    bounds = {}
    for name, scores in mean_scores(confusions).items():  # (R, S)
        low, high = np.quantile(scores.mean(axis=1), [tail, 1 - tail])
        bounds[name] = (float(low), float(high))
    return Confidence(unit, len(index), bounds)
