"""What inference compares a person's neutral clips with."""

from emotion.evaluation.predictions import Predictions

PERSON_SHARE = 0.25  # of the difference between a person's neutral face and everybody's


def mean_neutral(predictions: Predictions, neutral_label: str | None) -> list[float]:
    """Return the (C,) mean log-probabilities of uncalibrated neutral stacks; [] without any."""
    if neutral_label not in predictions.labels:
        return []
    is_neutral = predictions.targets == predictions.labels.index(neutral_label)
    return predictions.logits[is_neutral].mean(axis=0).tolist() if is_neutral.any() else []
