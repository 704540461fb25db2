"""cache ──load──> batches of stacks, at any interval that the cache serves.

Only reads what `emotion/stacks/cache.py` wrote; builds the cache first where there is none.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from emotion.clips.naming import SPLITS
from emotion.data.augmentation import Augmentation
from emotion.data.batch import Sample, collate
from emotion.data.split import DataSplit, Split, split_rows
from emotion.errors import UserError
from emotion.stacks.cache import Cache
from emotion.stacks.landmarks import mirror_landmarks
from emotion.stacks.manifest import StackRow
from emotion.stacks.sampling import interval_step, num_images
from emotion.stacks.stack import model_images, model_landmarks, read_landmarks, read_stack


class StackDataset(Dataset):
    """The stacks of one split, as a model takes them."""

    def __init__(
        self,
        cache: Cache,
        rows: Sequence[StackRow],
        step: int,
        image_px: int,
        augmentation: Augmentation | None = None,
        landmarks: bool = False,
        drawn_images: int | None = None,
    ) -> None:
        """Keep what is needed to load a stack; load nothing.

        Args:
            cache: where the stacks lie.
            rows: which of them, in order.
            step: every how many cached images one is taken.
            image_px: height and width of the images given out.
            augmentation: varies every stack that is loaded; None leaves them as they are.
            landmarks: give the landmarks of its images with every stack.
            drawn_images: draw so many of a stack's images at random, and leave out the others; None
                gives all.
        """
        self.cache = cache
        self.rows = rows
        self.step = step
        self.image_px = image_px
        self.augmentation = augmentation
        self.landmarks = landmarks
        self.drawn_images = drawn_images

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of their indices."""
        return list(self.cache.scheme.labels)

    def __len__(self) -> int:
        """The number of stacks."""
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Load a stack, and its landmarks if they are wanted.

        Args:
            key: which stack, and the seed of its augmentation and of the images drawn from it.

        Returns:
            (T, image_px, image_px) uint8 with channels last in memory, and the class index. With
            landmarks, in place of the stack a pair of it and (T, 468, 3) float32, mirrored where
            the stack is.
        """
        index, seed = key
        row = self.rows[index]
        stack = read_stack(self.cache.directory / row.stack)
        generator = np.random.default_rng(seed)
        images = model_images(stack, row.crop_found, self.step, self.image_px)
        drawn = np.arange(len(images))
        if self.drawn_images is not None:
            drawn = np.sort(generator.choice(drawn, self.drawn_images, replace=False))
            images = images[drawn]
        images = np.ascontiguousarray(images.transpose(1, 2, 0))  # (H, W, T)
        flipped = False
        if self.augmentation is not None:
            images, flipped = self.augmentation.vary(images, generator)
        label = self.labels.index(row.label)
        images = torch.from_numpy(images).permute(2, 0, 1)  # (T, H, W)
        if not self.landmarks:
            return images, label
        landmarks = read_landmarks(self.cache.directory / row.landmarks)
        landmarks = model_landmarks(landmarks, row.crop_found, self.step)[drawn]
        if flipped:
            landmarks = mirror_landmarks(landmarks)
        return (images, torch.from_numpy(landmarks)), label


class SeededSampler(Sampler[tuple[int, int]]):
    """Draws the order of an epoch and a seed for every stack in it, from one seed.

    So the augmentation of a stack depends on the run's seed, the epoch and the stack alone, not on
    how many workers or processes load the data or on where training was interrupted. Lightning
    calls `set_epoch` before each epoch.
    """

    def __init__(
        self, num_stacks: int, seed: int, shuffle: bool, *, share: range | None = None
    ) -> None:
        """Start at epoch 0.

        Args:
            num_stacks: how many stacks there are.
            seed: the run's.
            shuffle: draw a random order; else count up.
            share: places in the order that this process takes, from `share_of`; None, all.
        """
        self.num_stacks = num_stacks
        self.seed = seed
        self.shuffle = shuffle
        self.share = range(num_stacks) if share is None else share
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of stacks in this process's share."""
        return len(self.share)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the index of a stack and the seed of its augmentation."""
        generator = np.random.default_rng((self.seed, self.epoch))
        seeds = generator.integers(2**63, size=self.num_stacks)
        order = np.arange(self.num_stacks)
        if self.shuffle:
            generator.shuffle(order)
        for place in self.share:
            index = order[place % self.num_stacks]
            yield int(index), int(seeds[index])


def share_of(rank: int, world: int, num_stacks: int, batch_size: int, whole: bool) -> range:
    """Say which places in the order of an epoch a process takes; together they make its batches.

    Args:
        rank: number of the process.
        world: how many processes there are; divides `batch_size`.
        num_stacks: how many stacks there are.
        batch_size: stacks in a batch of all processes together.
        whole: give every process as many batches, which gradients need: where the last batch has
            fewer stacks than there are processes, the others take one from the front once more.

    Returns:
        Places; those from `num_stacks` on stand for the first ones.

    >>> [list(share_of(rank, 2, 7, 4, whole=False)) for rank in (0, 1)]
    [[0, 2, 4, 6], [1, 3, 5]]
    """
    end = num_stacks
    if whole and 0 < num_stacks % batch_size < world:
        end += world - num_stacks % batch_size
    return range(rank, end, world)


class StackDataModule(pl.LightningDataModule):
    """Train, validation and test stacks of one cache at one interval."""

    def __init__(
        self,
        cache: Cache,
        interval: int,
        augmentation: Augmentation,
        *,
        split: Split = DataSplit(),  # noqa: B008 it is frozen
        batch_size: int,
        image_px: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        overfit: bool = False,
        train_images: int | None = None,
        landmarks: bool = False,
    ) -> None:
        """Check that the cache serves the interval; load nothing.

        Args:
            cache: built on `prepare_data` if it does not stand.
            interval: frames from one image of a stack to the next.
            augmentation: varies the train stacks.
            split: which stacks are train, val and test.
            batch_size: stacks in a batch.
            image_px: height and width of the images; None leaves them as cached.
            num_workers: processes that load train stacks; 0 loads between steps.
            seed: of order and augmentation.
            overfit: one batch of train stacks, of all classes and unvaried, is all there is to
                train, validate and report on.
            train_images: images of a train stack that are drawn whenever it is loaded, for a model
                that sees them one after the other; None gives it all.
            landmarks: give the landmarks of its images with every stack, see `StackDataset`.

        Raises:
            UserError: the cache does not serve the interval, a stack has not so many images, or a
                number is out of range.
        """
        super().__init__()
        least = {"batch_size": (batch_size, 1), "num_workers": (num_workers, 0)}
        for key, (value, limit) in (least | {"image_px": (image_px, 1)}).items():
            if value is not None and value < limit:
                raise UserError(f"loader.{key}={value}: it is {limit} or above")
        settings = cache.settings
        self.cache = cache
        self.augmentation = augmentation
        self.split = split
        self.batch_size = batch_size
        self.image_px = image_px or settings.size_px
        self.num_workers = num_workers
        self.seed = seed
        self.overfit = overfit
        self.landmarks = landmarks
        self.step = interval_step(interval, settings.interval, settings.segment_frames)
        self.num_images = num_images(settings.segment_frames, interval)
        self.train_images = train_images
        if train_images is not None and not 1 <= train_images <= self.num_images:
            raise UserError(
                f"loader.train_images={train_images}: it is 1 to {self.num_images}, or null for all"
            )
        self.rows: dict[str, list[StackRow]] = {}
        self.first_epoch = 0  # another where training goes on from a checkpoint

    @property
    def labels(self) -> list[str]:
        """The classes, in the order of their indices."""
        return list(self.cache.scheme.labels)

    def prepare_data(self) -> None:
        """Build the cache where there is none; Lightning calls this once more before training."""
        if not self.rows:
            self.cache.ensure()

    def setup(self, stage: str | None = None) -> None:
        """Read the manifest and split it; once, though Lightning asks for it again.

        Raises:
            UserError: somebody is in two splits, or there is nothing to train or validate on.
        """
        if self.rows:
            return
        rows = split_rows(self.cache.manifest(), self.split, self.cache.scheme.pattern)
        self.rows = {name: [row for row in rows if row.split == name] for name in SPLITS}
        if self.overfit:
            rows = sorted(self.rows["train"], key=lambda row: row.label)
            places = np.linspace(0, len(rows) - 1, min(self.batch_size, len(rows))).astype(int)
            batch = [rows[place] for place in places]
            judged = [replace(row, split="val") for row in batch]
            self.rows = {"train": batch, "val": judged, "test": []}

    def class_weights(self, power: float = 1.0) -> list[float]:
        """Weigh classes by the inverse of their share of the train stacks, to some power.

        Args:
            power: 1, all classes count the same; 0, all stacks; 0.5, half-way between.

        Returns:
            C weights, whose mean over the train stacks is 1; 1 for a class that has none, which is
            never asked for.
        """
        counts = Counter(row.label for row in self.rows["train"])
        raw = {label: count**-power for label, count in counts.items()}
        scale = counts.total() / sum(raw[label] * counts[label] for label in counts)
        return [scale * raw[label] if label in raw else 1.0 for label in self.labels]

    def landmarks_of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Read the landmarks of all stacks of a split, as a model takes them.

        Returns:
            (N, T, 468, 3) float32, and (N,) class indices.
        """
        rows = self.rows[split]
        landmarks = [
            model_landmarks(
                read_landmarks(self.cache.directory / row.landmarks), row.crop_found, self.step
            )
            for row in rows
        ]
        return np.stack(landmarks), np.array([self.labels.index(row.label) for row in rows])

    def train_dataloader(self) -> DataLoader:
        """Batches of (N, T, H, W) uint8 stacks, varied, in a new order every epoch."""
        augmentation = None if self.overfit else self.augmentation
        loader = self._loader(
            "train", augmentation, shuffle=True, shared=True, workers=self.num_workers
        )
        loader.sampler.set_epoch(self.first_epoch)  # Lightning does so when workers load already
        return loader

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation stacks in the manifest's order; each in one process alone."""
        return self._loader("val", shared=True)

    def evaluation_dataloader(self, split: str) -> DataLoader:
        """Batches of all stacks of a split, as they are and in the manifest's order."""
        return self._loader(split)

    def _loader(
        self,
        split: str,
        augmentation: Augmentation | None = None,
        *,
        shuffle: bool = False,
        shared: bool = False,
        workers: int = 0,
    ) -> DataLoader:
        dataset = StackDataset(
            self.cache,
            self.rows[split],
            self.step,
            self.image_px,
            augmentation,
            landmarks=self.landmarks,
            drawn_images=self.train_images if shuffle and not self.overfit else None,
        )
        cv2_single_thread()  # a worker forked while OpenCV has threads would wait for them for ever
        batch_size, share = self.batch_size, None
        if shared and self.trainer is not None and self.trainer.world_size > 1:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            if batch_size % world or len(dataset) < world:
                raise UserError(
                    f"trainer=ddp: {world} processes can't share loader.batch_size={batch_size} or "
                    f"{len(dataset)} {split} stacks; give a multiple of trainer.devices"
                )
            share = share_of(rank, world, len(dataset), batch_size, whole=split == "train")
            batch_size //= world
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=SeededSampler(len(dataset), self.seed, shuffle, share=share),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=cv2_single_thread,
            collate_fn=collate,
            generator=torch.Generator(),  # else every new iterator draws from the one of dropout
        )


def cv2_single_thread(worker: int = 0) -> None:
    """Keep OpenCV in this process to one core: the others belong to the model."""
    cv2.setNumThreads(1)
