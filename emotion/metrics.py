"""logits ──judge──> accuracy, macro-F1 and confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)


@dataclass(frozen=True)
class Scores:
    """How well predictions agree with labels.

    Attributes:
        num: how many were judged.
        accuracy: share that is right, 0 to 1.
        macro_f1: mean of the classes' F1 scores; a class that neither occurs nor is predicted
            does not count.
        confusion: C rows, the true class, of C counts, the predicted class.
    """

    num: int
    accuracy: float
    macro_f1: float
    confusion: list[list[int]]


def running_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Make the metrics of one phase of training.

    Args:
        num_classes: C.
        prefix: goes before the names of the metrics.

    Returns:
        Metrics over (N, C) logits or probabilities and (N,) class indices.
    """
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "macro_f1": MulticlassF1Score(num_classes, average="macro"),
        },
        prefix=prefix,
    )


def judge(probabilities: torch.Tensor, targets: torch.Tensor) -> Scores:
    """Score predictions.

    Args:
        probabilities: (N, C) float; the largest of a row is the prediction.
        targets: (N,) int64, the true classes.

    Returns:
        The scores.
    """
    num_classes = probabilities.shape[1]
    return Scores(
        num=len(targets),
        accuracy=plain(multiclass_accuracy(probabilities, targets, num_classes, average="micro")),
        macro_f1=plain(multiclass_f1_score(probabilities, targets, num_classes, average="macro")),
        confusion=multiclass_confusion_matrix(probabilities, targets, num_classes).tolist(),
    )


def plain(score: torch.Tensor) -> float:
    """Read a float32 score to the digits that it has: 0.95, not 0.949999988079071."""
    return round(score.item(), 7)


def mean_per_clip(
    probabilities: torch.Tensor, targets: torch.Tensor, clips: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Average the probabilities of each clip's stacks.

    Args:
        probabilities: (N, C) float, of stacks.
        targets: (N,) int64; the same for all stacks of a clip.
        clips: N ids of the clips that the stacks were cut from.

    Returns:
        (M, C) float and (M,) int64 for the M clips, in the order in which they first occur.
    """
    ids = {clip: number for number, clip in enumerate(dict.fromkeys(clips))}
    of_clip = torch.tensor([ids[clip] for clip in clips])
    counts = torch.bincount(of_clip).unsqueeze(1)
    sums = torch.zeros(len(ids), probabilities.shape[1]).index_add_(0, of_clip, probabilities)
    clip_targets = torch.empty(len(ids), dtype=targets.dtype)
    clip_targets[of_clip] = targets
    return sums / counts, clip_targets
