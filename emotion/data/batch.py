"""Samples and batches: inputs of a model (stacks or landmarks) with class indices."""

from collections.abc import Sequence

import torch

Sample = tuple[torch.Tensor, int]
Batch = tuple[torch.Tensor, torch.Tensor]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack N samples and keep their order in memory.

    PyTorch's own function would bring stacks, whose channels are last in memory, into another
    order, and the model would bring them back.

    Returns:
        (N, T, H, W) uint8 stacks or (N, T, 468, 3) float32 landmarks; and (N,) int64 classes.
    """
    inputs, labels = zip(*samples, strict=True)
    batch = torch.stack([each.movedim(0, -1) for each in inputs])  # (N, ..., T)
    return batch.movedim(-1, 1), torch.tensor(labels)
