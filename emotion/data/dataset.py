"""The stacks of one split, as a model takes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from emotion.data.augmentation import Augmentation
from emotion.stacks.cache import Cache
from emotion.stacks.face_values import PARTS, join_parts
from emotion.stacks.manifest import StackRow
from emotion.stacks.stack import model_images, take_images

Key = tuple[int, int]  # index of a stack, and the seed of its augmentation


@dataclass(frozen=True)
class StackDataset(Dataset):
    """Loads the stacks of one split, or the values of their faces, which are never augmented."""

    cache: Cache
    rows: Sequence[StackRow]
    labels: Sequence[str]
    step: int  # take every `step`-th cached image
    image_px: int
    inputs: str = "stacks"  # or one of `PARTS`
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int]:
        """Load what `images` or `values` returns, and the class index."""
        inputs = self.images(key) if self.inputs == "stacks" else self.values(key[0])
        return inputs, self.labels.index(self.rows[key[0]].label)

    def images(self, key: Key) -> torch.Tensor:
        """Load the images of a stack, also for a model that takes values.

        Returns:
            (T, image_px, image_px) uint8 with channels last in memory.
        """
        index, seed = key
        row = self.rows[index]
        images = model_images(self.cache.stack(row), row.crop_found, self.step, self.image_px)
        images = np.ascontiguousarray(images.transpose(1, 2, 0))  # (H, W, T)
        if self.augmentation is not None:
            images = self.augmentation(images, np.random.default_rng(seed))
        return torch.from_numpy(images).permute(2, 0, 1)  # (T, H, W)

    def values(self, index: int) -> torch.Tensor:
        """Load the values of a stack's faces, (T, ...) float32 of `values_shape`."""
        row = self.rows[index]
        parts = {"landmarks": self.cache.landmarks, "blendshapes": self.cache.blendshapes}
        values = join_parts([parts[part](row) for part in PARTS[self.inputs]])
        return torch.from_numpy(values[take_images(row.crop_found, self.step)])
