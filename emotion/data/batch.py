"""Batches: N inputs of a model (stacks or landmarks) and N class indices."""

from collections.abc import Sequence

import torch
from torch.utils.data import default_collate

Batch = tuple[torch.Tensor, torch.Tensor]


def collate(samples: Sequence[tuple[torch.Tensor, int]]) -> Batch:
    """Stack N inputs; unlike PyTorch's own function, keep the channels last in memory.

    Returns:
        (N, T, H, W) uint8 stacks or (N, T, 468, 3) float32 landmarks; and (N,) int64 classes.
    """
    inputs, labels = zip(*samples, strict=True)
    # PyTorch's function writes a worker's batch into shared memory at once
    batch = default_collate([each.movedim(0, -1) for each in inputs])  # (N, ..., T)
    return batch.movedim(-1, 1), torch.tensor(labels)
