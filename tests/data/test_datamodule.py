"""Batches: every interval from one cache, augmentation per epoch, reproducible by seed."""

import csv
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import tifffile
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import DataLoader

from emotion.data.augmentation import Augmentation
from emotion.data.datamodule import StackDataModule
from emotion.data.split import GroupedSplit, IdSplit, KFold
from emotion.errors import UserError
from emotion.stacks.cache import Cache

LABELS = ["Anger", "Happy", "Neutral", "Sad", "Shock"]
NO_CHANGE = Augmentation()
PATIENCE_S = 10  # a worker that hangs fails its test after this time
VARIED = Augmentation(flip=0.5, rotation_deg=30, shift=0.2, blur=0.5, erase=0.5)

Make = Callable[..., StackDataModule]


@pytest.fixture
def make(demo_cache: Cache) -> Make:
    def make_datamodule(interval: int = 10, augmentation=NO_CHANGE, **settings) -> StackDataModule:
        settings = {"batch_size": 4, "image_px": 64, "cache": demo_cache} | settings
        settings = {"labels": LABELS} | settings
        cache = settings.pop("cache")
        datamodule = StackDataModule(cache, interval, augmentation, **settings)
        datamodule.setup()
        return datamodule

    return make_datamodule


def rows_of(cache: Cache, split: str) -> list[dict[str, str]]:
    with open(cache.directory / "manifest.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def epoch(loader: DataLoader, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    loader.sampler.set_epoch(number)
    stacks, labels = zip(*loader, strict=True)
    return torch.cat(stacks), torch.cat(labels)


@pytest.mark.parametrize(("interval", "images"), [(5, 18), (10, 9), (15, 6), (30, 3), (90, 1)])
def test_batches_have_an_image_for_every_interval(make: Make, interval: int, images: int):
    datamodule = make(interval)
    assert datamodule.num_images == images
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader()):
        sizes = []
        for stacks, labels in loader:
            assert stacks.shape[1:] == (images, 64, 64)
            assert stacks.dtype == torch.uint8
            assert labels.dtype == torch.int64
            assert len(stacks) == len(labels)
            sizes.append(len(stacks))
        assert sizes == [4, 4, 2]  # two clips of five classes


@pytest.mark.parametrize("image_px", [None, 224])
def test_images_keep_their_cached_size_by_default(make: Make, image_px: int | None):
    datamodule = make(30, image_px=image_px)
    assert datamodule.image_px == 224
    stacks, _ = next(iter(datamodule.val_dataloader()))
    assert stacks.shape == (4, 3, 224, 224)


@pytest.mark.parametrize(("interval", "step"), [(5, 1), (10, 2), (15, 3)])
def test_channels_are_cached_images_at_the_interval(
    make: Make, demo_cache: Cache, interval: int, step: int
):
    rows = rows_of(demo_cache, "val")
    assert all(row["has_face"] == "1" * 18 for row in rows)  # so no image is filled from another
    batches = make(interval, image_px=None).val_dataloader()
    stacks = torch.cat([stacks for stacks, _ in batches]).numpy()
    assert len(stacks) == len(rows) == 10
    for stack, row in zip(stacks, rows, strict=True):
        cached = tifffile.imread(demo_cache.directory / row["stack"])
        np.testing.assert_array_equal(stack, cached[::step])


def test_smaller_images_are_area_means_of_cached_images(make: Make, demo_cache: Cache):
    stacks, _ = next(iter(make(10, image_px=56).val_dataloader()))
    cached = tifffile.imread(demo_cache.directory / rows_of(demo_cache, "val")[0]["stack"])[::2]
    means = cached.reshape(9, 56, 4, 56, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(stacks[0], means, atol=1)


def test_labels_are_class_indices(make: Make, demo_cache: Cache):
    datamodule = make()
    assert datamodule.labels == LABELS
    for split in ("val", "test"):
        _, labels = epoch(datamodule.evaluation_dataloader(split), 0)
        expected = [LABELS.index(row["label"]) for row in rows_of(demo_cache, split)]
        assert labels.tolist() == expected
        assert sorted(expected) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_shuffling_keeps_labels_with_their_stacks(make: Make, demo_cache: Cache):
    stacks, labels = epoch(make(image_px=None).train_dataloader(), 0)
    by_content = {
        tifffile.imread(demo_cache.directory / row["stack"])[::2].tobytes(): row["label"]
        for row in rows_of(demo_cache, "train")
    }
    assert len(by_content) == 10
    found = [by_content.pop(stack.numpy().tobytes()) for stack in stacks]
    assert found == [LABELS[label] for label in labels]
    assert not by_content  # every stack once


def test_missing_faces_are_filled_from_images_of_the_interval(
    make: Make, demo_cache: Cache, tmp_path: Path
):
    # A copy of one row, in whose has_face the cached images 0, 1, 2, 4 have no face.
    row = rows_of(demo_cache, "val")[0]
    rows = [
        row | {"has_face": "000101111111111111"},
        *rows_of(demo_cache, "train"),
    ]
    directory = tmp_path / "copy"
    directory.mkdir()
    (directory / "stacks").symlink_to(demo_cache.directory / "stacks")
    with open(directory / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(rows)
    cached = tifffile.imread(directory / row["stack"])
    for interval, taken in [
        # places 0, 2, 4 have no face; the first crop among 0, 2, 4, 6, ... replaces them
        (10, [6, 6, 6, 6, 8, 10, 12, 14, 16]),
        (15, [3, 3, 6, 9, 12, 15]),
        (5, [3, 3, 3, 3, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]),
    ]:
        datamodule = StackDataModule(
            replace(demo_cache, directory=directory),
            interval,
            NO_CHANGE,
            labels=LABELS,
            batch_size=1,
        )
        datamodule.setup()
        (stack,), _ = next(iter(datamodule.val_dataloader()))
        np.testing.assert_array_equal(stack, cached[taken])


def test_every_epoch_has_its_own_order_and_augmentation(make: Make):
    plain = make().train_dataloader()
    (first, _), (second, _) = epoch(plain, 0), epoch(plain, 1)
    assert not torch.equal(first, second)
    assert sorted(s.numpy().tobytes() for s in first) == sorted(s.numpy().tobytes() for s in second)
    varied = make(augmentation=VARIED).train_dataloader()
    (first, _), (second, _) = epoch(varied, 0), epoch(varied, 1)
    assert not {s.numpy().tobytes() for s in first} & {s.numpy().tobytes() for s in second}


def test_lightning_sets_the_epoch_of_the_sampler(make: Make, tmp_path: Path):
    epochs: dict[int, list[bytes]] = {}

    class Recorder(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch, _) -> torch.Tensor:
            epochs.setdefault(self.current_epoch, []).extend(s.numpy().tobytes() for s in batch[0])
            return (self.weight * batch[0].float().mean()).sum()

        def validation_step(self, batch, _) -> None:
            raise AssertionError("limit_val_batches is 0")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = pl.Trainer(
        max_epochs=3,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    datamodule = make(30, augmentation=VARIED, seed=3)
    trainer.fit(Recorder(), datamodule=datamodule)
    assert list(epochs) == [0, 1, 2]
    assert len(set(epochs[0] + epochs[1] + epochs[2])) == 30
    loader = make(30, augmentation=VARIED, seed=3).train_dataloader()
    for number, seen in epochs.items():
        assert [s.numpy().tobytes() for s in epoch(loader, number)[0]] == seen


@pytest.mark.parametrize("workers", [0, 1])
def test_a_seed_gives_the_same_epoch_with_any_number_of_workers(make: Make, workers: int):
    expected = make(augmentation=VARIED, seed=5).train_dataloader()
    again = make(augmentation=VARIED, seed=5, num_workers=workers).train_dataloader()
    again.timeout = PATIENCE_S * workers
    for number in (1, 0):
        for one, other in zip(epoch(expected, number), epoch(again, number), strict=True):
            assert torch.equal(one, other)


def test_a_worker_starts_after_this_process_used_opencv_threads(make: Make):
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((224, 224, 18), np.uint8), (3, 3), 1.0)
    time.sleep(0.3)  # until its threads are idle
    loader = make(num_workers=1).train_dataloader()
    loader.timeout = PATIENCE_S
    stacks, _ = epoch(loader, 0)
    assert len(stacks) == 10


def test_seeds_give_different_epochs(make: Make):
    plain = [epoch(make(seed=seed).train_dataloader(), 0)[1].tolist() for seed in range(4)]
    assert len({tuple(order) for order in plain}) > 1
    stacks = [
        {
            s.numpy().tobytes()
            for s in epoch(make(augmentation=VARIED, seed=n).train_dataloader(), 0)[0]
        }
        for n in (0, 1)
    ]
    assert not stacks[0] & stacks[1]


def test_evaluation_has_no_augmentation_and_the_manifests_order(make: Make, demo_cache: Cache):
    datamodule = make(augmentation=VARIED, image_px=None, num_workers=1)
    for split, loader in [
        ("val", datamodule.val_dataloader()),
        ("test", datamodule.evaluation_dataloader("test")),
        ("train", datamodule.evaluation_dataloader("train")),
    ]:
        expected = [
            tifffile.imread(demo_cache.directory / row["stack"])[::2]
            for row in rows_of(demo_cache, split)
        ]
        for number in (0, 1):
            np.testing.assert_array_equal(epoch(loader, number)[0], expected)


@pytest.mark.parametrize(
    ("interval", "message"),
    [
        (7, r"sampling\.segment_frames=90"),
        (3, r"sampling\.interval=5.* sampling\.interval=3"),
        (18, r"sampling\.interval=5"),
    ],
)
def test_interval_that_the_cache_cannot_serve_is_refused(
    demo_cache: Cache, interval: int, message: str
):
    with pytest.raises(UserError, match=message):
        StackDataModule(demo_cache, interval, NO_CHANGE, labels=LABELS, batch_size=4)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_stacks_is_refused(demo_cache: Cache, tmp_path: Path, split: str):
    lines = (demo_cache.directory / "manifest.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if f",{split}," not in line]
    assert len(lines) - len(kept) == 10
    (tmp_path / "manifest.csv").write_text("".join(kept))
    datamodule = StackDataModule(
        replace(demo_cache, directory=tmp_path), 10, NO_CHANGE, labels=LABELS, batch_size=4
    )
    with pytest.raises(UserError, match=rf"data\.split leaves no stacks for {split}.*{split}: 0"):
        datamodule.setup()


def test_a_test_split_may_be_empty(demo_cache: Cache, tmp_path: Path):
    lines = (demo_cache.directory / "manifest.csv").read_text().splitlines(keepends=True)
    (tmp_path / "manifest.csv").write_text("".join(x for x in lines if ",test," not in x))
    datamodule = StackDataModule(
        replace(demo_cache, directory=tmp_path), 10, NO_CHANGE, labels=LABELS, batch_size=4
    )
    datamodule.setup()
    assert {split: len(rows) for split, rows in datamodule.rows.items()} == {
        "train": 10,
        "val": 10,
        "test": 0,
    }


def test_a_cache_serves_any_split(make: Make, demo_cache: Cache):
    manifest = (demo_cache.directory / "manifest.csv").read_bytes()
    seen = []
    for fold in range(3):
        datamodule = make(image_px=None, split=KFold("kfold", folds=3, fold=fold))
        rows = {split: [row.clip for row in rows] for split, rows in datamodule.rows.items()}
        clips = [clip for of_split in rows.values() for clip in of_split]
        assert sorted(clips) == sorted(row.clip for row in demo_cache.manifest())
        stacks, labels = epoch(datamodule.evaluation_dataloader("test"), 0)
        for stack, label, clip in zip(stacks, labels, rows["test"], strict=True):
            cached = tifffile.imread(demo_cache.directory / "stacks" / f"{clip}_0001.tiff")
            np.testing.assert_array_equal(stack, cached[::2])
            assert LABELS[label] == clip.split("_")[0]
        seen += rows["test"]
    assert len(seen) == len(set(seen)) == 30
    assert (demo_cache.directory / "manifest.csv").read_bytes() == manifest


def test_a_warning_is_logged_once_when_setup_runs_twice(
    demo_cache: Cache, make: Make, caplog: pytest.LogCaptureFixture
):
    ids = IdSplit("ids", val=["0001"], test=["0002"])
    one_class = [row for row in demo_cache.manifest() if row.clip != "Shock_0001"]
    with mock.patch.object(Cache, "manifest", return_value=one_class):
        datamodule = make(split=ids, pattern=demo_cache.scheme.pattern)
        datamodule.setup("fit")
    assert caplog.text.count("split=ids: no clip of Shock is in val") == 1


def test_loading_changes_no_cached_file(make: Make, demo_cache: Cache):
    before = {p: p.read_bytes() for p in demo_cache.directory.rglob("*.tiff")}
    epoch(make(augmentation=VARIED).train_dataloader(), 0)
    assert {p: p.read_bytes() for p in demo_cache.directory.rglob("*.tiff")} == before
    assert len(before) == 30
    assert cv2.imreadmulti(str(next(iter(before))), flags=cv2.IMREAD_UNCHANGED)[0]


def cached_values(cache: Cache, split: str, step: int, part: str = "landmarks") -> np.ndarray:
    """Read the values of a split's stacks; every image of them has a face."""
    paths = [f"{part}/{row['clip']}_0001.npy" for row in rows_of(cache, split)]
    return np.array([np.load(cache.directory / path)[::step] for path in paths])


@pytest.mark.parametrize(("interval", "step"), [(5, 1), (15, 3)])
def test_batches_of_landmarks(make: Make, demo_cache: Cache, interval: int, step: int):
    datamodule = make(interval, augmentation=VARIED, inputs="landmarks")
    landmarks, labels = epoch(datamodule.val_dataloader(), 0)
    assert landmarks.dtype == torch.float32
    np.testing.assert_array_equal(landmarks, cached_values(demo_cache, "val", step))
    assert torch.equal(labels, epoch(make(interval).val_dataloader(), 0)[1])
    varied, _ = epoch(datamodule.train_dataloader(), 0)  # landmarks are never augmented
    expected = cached_values(demo_cache, "train", step)
    assert {each.numpy().tobytes() for each in varied} == {each.tobytes() for each in expected}


def test_values_of_a_face_are_landmarks_then_blendshapes(make: Make, demo_cache: Cache):
    values, _ = epoch(make(15, inputs="face").val_dataloader(), 0)
    landmarks = cached_values(demo_cache, "val", 3).reshape(*values.shape[:2], -1)
    blendshapes = cached_values(demo_cache, "val", 3, "blendshapes")
    np.testing.assert_array_equal(values, np.concatenate([landmarks, blendshapes], axis=2))


def test_a_dataset_of_landmarks_loads_images_too(make: Make):
    dataset = make(inputs="landmarks").dataset("val")
    assert torch.equal(dataset.images((3, 0)), make().dataset("val")[3, 0][0])


@pytest.mark.parametrize(("interval", "num_images"), [(5, 18), (15, 6)])
def test_a_still_fills_its_whole_stack(
    make: Make, cache_of: Callable, stills: Path, interval: int, num_images: int
):
    cache = cache_of(stills, data="stills")
    cache.build()
    settings = {
        "cache": cache,
        "split": GroupedSplit("grouped", train=0.5, val=0.5, test=0),
        "labels": ["Happy", "Sad"],
    }
    datamodule = make(interval, image_px=None, **settings)
    assert {name: len(rows) for name, rows in datamodule.rows.items()} == {
        "train": 4, "val": 4, "test": 0,
    }  # fmt: skip
    faces = make(interval, inputs="landmarks", **settings).dataset("val")
    for index, row in enumerate(faces.rows):
        image = tifffile.imread(cache.directory / row.stack)
        stack = datamodule.dataset("val").images((index, 0))
        np.testing.assert_array_equal(stack, np.broadcast_to(image, (num_images, 224, 224)))
        (points,) = np.load(cache.directory / row.landmarks)
        np.testing.assert_array_equal(
            faces.values(index), np.broadcast_to(points, (num_images, 468, 3))
        )
    varied = make(interval, VARIED, **settings).train_dataloader()
    for stack in epoch(varied, 0)[0]:
        assert torch.equal(stack, stack[:1].expand_as(stack)) and stack.any()


def test_class_weights_equal_scikit_learns(make: Make):
    datamodule = make()
    rows = datamodule.rows["train"]
    datamodule.rows["train"] = [
        row for n, row in enumerate(rows) if row.label not in ("Sad", "Shock") or n % 2
    ]
    labels = [row.label for row in datamodule.rows["train"]]
    assert len(set(Counter(labels).values())) > 1
    expected = compute_class_weight("balanced", classes=np.array(LABELS), y=labels)
    assert datamodule.class_weights() == pytest.approx(expected)
    roots = np.array(datamodule.class_weights(0.5))
    squares = roots**2 / expected
    assert squares == pytest.approx(np.full(5, squares[0]))
    assert np.mean([roots[LABELS.index(label)] for label in labels]) == pytest.approx(1)
    assert datamodule.class_weights(0.0) == pytest.approx([1.0] * 5)
    datamodule.rows["train"] = [row for row in rows if row.label != "Sad"]
    weights = dict(zip(LABELS, datamodule.class_weights(), strict=True))
    assert weights == dict.fromkeys(LABELS, 1.0)


def test_overfit_uses_one_batch_of_all_classes_without_augmentation(make: Make, demo_cache: Cache):
    datamodule = make(augmentation=VARIED, batch_size=5, overfit=True, image_px=None)
    stacks, labels = epoch(datamodule.train_dataloader(), 3)
    cached = {
        tifffile.imread(demo_cache.directory / row["stack"])[::2].tobytes()
        for row in rows_of(demo_cache, "train")
    }
    assert sorted(labels.tolist()) == [0, 1, 2, 3, 4]
    assert {stack.numpy().tobytes() for stack in stacks} <= cached
    val = [replace(row, split="train") for row in datamodule.rows["val"]]
    assert val == datamodule.rows["train"] and not datamodule.rows["test"]


def test_one_class_alone_is_refused(demo_cache: Cache):
    split = IdSplit("ids", by="label", val=LABELS[1:])
    with pytest.raises(UserError, match="Anger"):
        datamodule = StackDataModule(
            demo_cache, 10, NO_CHANGE, labels=LABELS, batch_size=4, split=split,
            pattern=demo_cache.scheme.pattern,
        )  # fmt: skip
        datamodule.setup()


def test_a_resumed_run_starts_with_the_order_of_its_epoch(make: Make):
    datamodule = make(seed=3, num_workers=1)
    datamodule.first_epoch = 2
    _, labels = zip(*datamodule.train_dataloader(), strict=True)
    expected = epoch(make(seed=3).train_dataloader(), 2)[1]
    assert torch.equal(torch.cat(labels), expected)
