"""predictions ──know the person──> predictions with a person's resting face taken into account.

What `EmotionRecognizer.calibrate` does to one person's clips, done to the predictions of a run, so
that it can be judged: each neutral clip of a person in turn is their baseline, set aside, and all
their other clips are answered with it.

"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emotion.errors import UserError
from emotion.evaluation.calibration import logs
from emotion.evaluation.predictions import Predictions

PERSON_SHARE = 0.25  # of what a person's neutral face differs by, see `calibrate`
NEUTRAL = "Neutral"  # the class of a resting face
SCORES = ("accuracy", "uar", "macro_f1")


def mean_neutral(predictions: Predictions) -> list[float]:
    """Give the mean log-probabilities of neutral stacks; nothing where there are none."""
    if NEUTRAL not in predictions.labels:
        return []
    is_neutral = predictions.targets == predictions.labels.index(NEUTRAL)
    return logs(predictions)[is_neutral].mean(axis=0).tolist() if is_neutral.any() else []


def with_baselines(
    predictions: Predictions, neutral: Sequence[float], share: float = PERSON_SHARE
) -> Predictions:
    """Answer everybody's stacks with a baseline, each of their neutral clips in turn.

    The log-probabilities of a baseline's stacks are compared with those of everybody's neutral
    stacks, and a share of the difference is taken off. All of it would take one clip's chance for
    the person.

    Args:
        predictions: of stacks of one split, whose subjects are known.
        neutral: (C,), see `mean_neutral`; of the model that made the predictions.
        share: 0 to 1.

    Returns:
        For each person and each of their neutral clips, all their other stacks. A clip's id ends in
        the baseline's, so that it is counted once for each.
    """
    logits, index = logs(predictions), predictions.labels.index(NEUTRAL)
    clips, subjects = np.array(predictions.clips), np.array(predictions.subjects)
    places, shifts, ids = [], [], []
    for baseline in np.unique(clips[predictions.targets == index]):
        of_baseline = clips == baseline
        shift = share * (np.array(neutral) - logits[of_baseline].mean(axis=0))
        for place in np.flatnonzero(np.isin(subjects, subjects[of_baseline]) & ~of_baseline):
            places.append(int(place))
            shifts.append(shift)
            ids.append(f"{clips[place]} given {baseline}")
    shifted = logits[places] + np.array(shifts).reshape(len(places), len(predictions.labels))
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    probabilities = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return replace(predictions.take(places), clips=ids, probabilities=probabilities)


def mean_of(runs: Sequence[Predictions]) -> Predictions:
    """Average the probabilities of runs that answered the same clips.

    Raises:
        UserError: they have answered others.
    """
    if any(sorted(run.clips) != sorted(runs[0].clips) for run in runs[1:]):
        raise UserError("the seeds have not answered the same clips: name the same folds of each")
    order = [np.argsort(run.clips) for run in runs]
    first = runs[0].take(order[0].tolist())
    mean = np.mean(
        [run.probabilities[o] for run, o in zip(runs, order, strict=True)], axis=0
    ).astype(np.float32)
    return replace(first, probabilities=mean)
