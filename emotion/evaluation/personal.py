"""Predictions that take a person's resting face into account.

This applies to the predictions of a run what inference does with a person's neutral clip, so that
its effect can be measured.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emotion.errors import UserError
from emotion.evaluation.predictions import Predictions, calibrate

PERSON_SHARE = 0.25  # of the difference between a person's neutral face and everybody's


def mean_neutral(predictions: Predictions, neutral_label: str | None) -> list[float]:
    """Return the (C,) mean log-probabilities of uncalibrated neutral stacks; [] without any."""
    if neutral_label not in predictions.labels:
        return []
    is_neutral = predictions.targets == predictions.labels.index(neutral_label)
    return predictions.logits[is_neutral].mean(axis=0).tolist() if is_neutral.any() else []


def with_baselines(
    predictions: Predictions,
    neutral: Sequence[float],
    neutral_label: str,
    temperature: float,
    share: float = PERSON_SHARE,
) -> Predictions:
    """Predict everybody's stacks with a baseline, each of their neutral clips in turn.

    The log-probabilities of a baseline's stacks are compared with the mean of everybody's neutral
    stacks, and a share (0 to 1) of the difference is subtracted before calibration. The whole
    difference would attribute the chance of one clip to the person.

    Args:
        predictions: uncalibrated, of the stacks of one split with known subjects.
        neutral: (C,) of `mean_neutral`, for the same model.
        neutral_label: the class of a resting face.
        temperature: of the model's calibration.
        share: of the difference.

    Returns:
        Calibrated predictions. A clip's id ends in the baseline's, so it counts once for each.
    """
    logits, index = predictions.logits, predictions.labels.index(neutral_label)
    clips, subjects = np.array(predictions.clips), np.array(predictions.subjects)
    samples, shifted = [], [np.empty((0, len(predictions.labels)))]
    for baseline in np.unique(clips[predictions.targets == index]):
        of_baseline = clips == baseline
        shift = share * (np.array(neutral) - logits[of_baseline].mean(axis=0))
        others = np.flatnonzero(np.isin(subjects, subjects[of_baseline]) & ~of_baseline)
        for sample in predictions.take(others).samples:
            samples.append(replace(sample, clip=f"{sample.clip} given {baseline}"))
        shifted.append(logits[others] + shift)
    probabilities = calibrate(np.concatenate(shifted), temperature).astype(np.float32)
    return Predictions(predictions.labels, samples, probabilities)


def mean_of(runs: Sequence[Predictions]) -> Predictions:
    """Average the probabilities of runs, which must have predicted the same clips."""
    runs = [run.take(np.argsort(run.clips)) for run in runs]
    if any(run.clips != runs[0].clips for run in runs):
        raise UserError("the seeds must have predicted the same clips: give the same folds of each")
    mean = np.mean([run.probabilities for run in runs], axis=0).astype(np.float32)
    return replace(runs[0], probabilities=mean)
