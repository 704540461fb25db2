"""Batches of stacks or landmarks from a cache, at any interval that the cache serves."""

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import cv2
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from emotion.clips.naming import SPLITS
from emotion.data.augmentation import Augmentation
from emotion.data.batch import collate
from emotion.data.dataset import StackDataset
from emotion.data.sampler import SeededSampler, share_of
from emotion.data.split import DataSplit, Split, split_rows, spread
from emotion.errors import UserError
from emotion.stacks.cache import Cache
from emotion.stacks.manifest import StackRow
from emotion.stacks.sampling import interval_step, num_images
from emotion.stopping import end_with


class StackDataModule(pl.LightningDataModule):
    """Train, validation and test stacks of one cache at one interval.

    It only reads: `emotion.stacks.build` makes the cache.
    """

    def __init__(
        self,
        cache: Cache,
        interval: int,  # frames from one image of a stack to the next
        augmentation: Augmentation | None,  # of train stacks
        *,
        labels: Sequence[str],
        split: Split = DataSplit(),  # noqa: B008 it is frozen
        pattern: str | None = None,  # the data set's, for splits by a part of a clip's name
        inputs: str = "stacks",  # or "landmarks"
        batch_size: int,  # of all processes together
        image_px: int | None = None,  # None for their cached size
        num_workers: int = 0,  # processes that load train stacks; 0 loads between steps
        seed: int = 0,  # of order and augmentation
        overfit: bool = False,  # train and val are one batch of train stacks, not augmented
    ) -> None:
        super().__init__()
        self.cache = cache
        self.augmentation = None if overfit else augmentation
        self.labels = list(labels)
        self.split = split
        self.pattern = pattern
        self.inputs = inputs
        self.batch_size = batch_size
        self.image_px = image_px or cache.settings.size_px
        self.num_workers = num_workers
        self.seed = seed
        self.overfit = overfit
        segment_frames = cache.settings.segment_frames
        self.step = interval_step(interval, cache.settings.interval, segment_frames)
        self.num_images = num_images(segment_frames, interval)
        self.rows: dict[str, list[StackRow]] = {}  # of each split, after `setup`
        self.first_epoch = 0  # above 0 when training resumes

    def setup(self, stage: str | None = None) -> None:
        """Read and split the manifest; once, although Lightning calls this again."""
        if self.rows:
            return
        rows = split_rows(self.cache.manifest(), self.split, self.pattern)
        self.rows = {name: [row for row in rows if row.split == name] for name in SPLITS}
        if len(labels := {row.label for row in self.rows["train"]}) < 2:
            raise UserError(
                f"all train stacks are of the class {min(labels)}: an accuracy needs two classes; "
                "add clips of others, or choose another split"
            )
        if self.overfit:
            by_class = sorted(self.rows["train"], key=lambda row: row.label)
            train = spread(by_class, self.batch_size)
            val = [replace(row, split="val") for row in train]
            self.rows = {"train": train, "val": val, "test": []}

    def class_weights(self, power: float = 1.0) -> list[float]:
        """Weight classes by the inverse of their share of the train stacks, to a power.

        The mean over the train stacks is 1, and so is the weight of a class without train stacks.
        """
        counts = Counter(row.label for row in self.rows["train"])
        raw = {label: count**-power for label, count in counts.items()}
        scale = counts.total() / sum(raw[label] * counts[label] for label in counts)
        return [scale * raw[label] if label in raw else 1.0 for label in self.labels]

    def dataset(self, split: str, augmentation: Augmentation | None = None) -> StackDataset:
        """Return the dataset of a split."""
        settings = self.labels, self.step, self.image_px, self.inputs, augmentation
        return StackDataset(self.cache, self.rows[split], *settings)

    def train_dataloader(self) -> DataLoader:
        """Return augmented train batches, in a new order every epoch."""
        loader = self._loader("train", *self._share("train"), train=True)
        loader.sampler.set_epoch(self.first_epoch)  # Lightning does so when workers load already
        return loader

    def val_dataloader(self) -> DataLoader:
        """Return validation batches in the manifest's order; each stack in one process alone."""
        return self._loader("val", *self._share("val"))

    def evaluation_dataloader(self, split: str) -> DataLoader:
        """Return batches of all stacks of a split, in the manifest's order."""
        return self._loader(split, self.batch_size, range(len(self.rows[split])))

    def _share(self, split: str) -> tuple[int, range]:
        """Return this process's batch size and share of a split."""
        num = len(self.rows[split])
        trainer = self.trainer  # None outside of training
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        if self.batch_size % world:
            raise UserError(
                f"loader.batch_size must be a multiple of the {world} processes of trainer=ddp, "
                f"got {self.batch_size}"
            )
        if num < world:
            raise UserError(f"trainer.devices={world}: there are only {num} {split} stacks")
        share = share_of(rank, world, num, self.batch_size, pad=split == "train")
        return self.batch_size // world, share

    def _loader(self, split: str, batch_size: int, share: range, train: bool = False) -> DataLoader:
        """Return a loader; only that of training shuffles, augments and has workers."""
        dataset = self.dataset(split, self.augmentation if train else None)
        workers = self.num_workers if train else 0
        cv2.setNumThreads(1)  # a worker that is forked while OpenCV has threads would hang
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=SeededSampler(len(dataset), self.seed, shuffle=train, share=share),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=end_with_parent,
            collate_fn=collate,
            generator=torch.Generator(),  # else every new iterator draws from dropout's generator
        )


def end_with_parent(worker: int) -> None:
    """End a worker as soon as the process that trains has ended, however that one ended."""
    end_with(multiprocessing.parent_process().pid)
