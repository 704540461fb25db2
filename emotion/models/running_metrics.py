"""Torchmetrics that are updated batch by batch during training."""

import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)


class UnweightedAverageRecall(MulticlassConfusionMatrix):
    """UAR; macro `MulticlassAccuracy` would count a class that is only predicted as 0."""

    higher_is_better = True

    def compute(self) -> torch.Tensor:
        """Return the mean recall of the classes that occur, a scalar."""
        confusion = super().compute()
        occurring = confusion.sum(dim=1)
        recall = confusion.diagonal() / occurring
        return recall[occurring > 0].mean()


def running_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Return metrics over (N, C) logits or probabilities and (N,) class indices."""
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "uar": UnweightedAverageRecall(num_classes),
            "macro_f1": MulticlassF1Score(num_classes, average="macro"),
        },
        prefix=prefix,
    )
