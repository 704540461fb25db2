"""Mean log-probabilities of neutral stacks, computed by hand."""

import numpy as np
import pytest

from emotion.evaluation.personal import mean_neutral
from emotion.evaluation.predictions import Predictions, Sample

LABELS = ("Anger", "Happy", "Neutral")
ANGER, HAPPY, NEUTRAL = range(3)
# clip, segment, subject, target, probabilities
STACKS = [
    ("a-n1", 1, "a", NEUTRAL, (0.6, 0.1, 0.3)),
    ("a-n1", 2, "a", NEUTRAL, (0.2, 0.4, 0.4)),
    ("a-h", 1, "a", HAPPY, (0.5, 0.4, 0.1)),
    ("b-n", 1, "b", NEUTRAL, (0.1, 0.1, 0.8)),
    ("b-a", 1, "b", ANGER, (0.7, 0.2, 0.1)),
    ("a-n2", 1, "a", NEUTRAL, (0.3, 0.3, 0.4)),
    ("c-h", 1, "c", HAPPY, (0.2, 0.7, 0.1)),  # c has no neutral clip
]


def predictions_of(stacks) -> Predictions:
    samples = [Sample("test", *stack[:3], LABELS[stack[3]]) for stack in stacks]
    return Predictions(LABELS, samples, np.array([stack[4] for stack in stacks], np.float32))


def test_neutral_is_the_mean_of_the_logarithms():
    expected = [
        (np.log(0.6) + np.log(0.2) + np.log(0.1) + np.log(0.3)) / 4,
        (np.log(0.1) + np.log(0.4) + np.log(0.1) + np.log(0.3)) / 4,
        (np.log(0.3) + np.log(0.4) + np.log(0.8) + np.log(0.4)) / 4,
    ]
    assert mean_neutral(predictions_of(STACKS), "Neutral") == pytest.approx(expected, rel=1e-6)


def test_without_neutral_stacks_there_is_none():
    predictions = predictions_of(STACKS)
    assert mean_neutral(predictions.take([2, 4]), "Neutral") == []
    assert mean_neutral(predictions, None) == mean_neutral(predictions, "Calm") == []
    assert mean_neutral(predictions, "Happy") != []
