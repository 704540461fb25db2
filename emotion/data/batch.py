"""samples ──load──> batches: stacks, with their landmarks or without, and class indices."""

from collections.abc import Sequence

import torch

Inputs = torch.Tensor | tuple[torch.Tensor, torch.Tensor]  # stacks, or stacks and landmarks
Sample = tuple[Inputs, int]
Batch = tuple[Inputs, torch.Tensor]


def collate(samples: Sequence[Sample]) -> Batch:
    """Make a batch of samples, with channels last in memory as they are.

    PyTorch's own way would bring them into another order, and the model bring them back.

    Args:
        samples: N stacks of (T, H, W) uint8, or pairs of such a stack and its landmarks,
            (T, 468, 3) float32; and their class indices.

    Returns:
        (N, T, H, W) uint8, or a pair of that and (N, T, 468, 3) float32; and (N,) int64.
    """
    inputs, labels = zip(*samples, strict=True)
    has_landmarks = isinstance(inputs[0], tuple)
    stacks = [each[0] for each in inputs] if has_landmarks else inputs
    batch = torch.stack([stack.permute(1, 2, 0) for stack in stacks])  # (N, H, W, T)
    batch = batch.permute(0, 3, 1, 2)  # (N, T, H, W)
    if has_landmarks:
        batch = batch, torch.stack([landmarks for _, landmarks in inputs])
    return batch, torch.tensor(labels)


def apart(batch: Batch) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Take a batch apart: what a model takes, (stacks,) or (stacks, landmarks); and targets."""
    inputs, targets = batch
    return (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs), targets
