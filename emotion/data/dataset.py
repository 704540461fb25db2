"""The stacks of one split, as a model takes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from emotion.data.augmentation import Augmentation
from emotion.stacks.cache import Cache
from emotion.stacks.manifest import StackRow
from emotion.stacks.stack import model_images, take_images

Key = tuple[int, int]  # index of a stack, and the seed of its augmentation


@dataclass(frozen=True)
class StackDataset(Dataset):
    """Loads the stacks of one split, or their landmarks, which are never augmented."""

    cache: Cache
    rows: Sequence[StackRow]
    labels: Sequence[str]
    step: int  # take every `step`-th cached image
    image_px: int
    inputs: str = "stacks"  # or "landmarks"
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int]:
        """Load what `images` or `landmarks` returns, and the class index."""
        inputs = self.landmarks(key[0]) if self.inputs == "landmarks" else self.images(key)
        return inputs, self.labels.index(self.rows[key[0]].label)

    def images(self, key: Key) -> torch.Tensor:
        """Load the images of a stack, also for a model that takes landmarks.

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

    def landmarks(self, index: int) -> torch.Tensor:
        """Load the landmarks of a stack, (T, 468, 3) float32."""
        row = self.rows[index]
        landmarks = self.cache.landmarks(row)
        return torch.from_numpy(landmarks[take_images(row.crop_found, self.step)])
