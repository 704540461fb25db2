"""Measure what training spends: python -m benchmarks.train [KEY=VALUE ...].

Prints ratios from one run, on random stacks: augmentation against torchvision's, the two memory
formats of each model, and whole epochs against bare steps and against the loop of the original
notebooks. What is compared takes turns, and medians are compared. Absolute times depend on the
machine and on what else runs there. Overrides, such as trainer.precision=bf16-mixed or
model.compile=true, go to the epochs and the bare steps; the notebooks' loop stays as it was.
"""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2

from benchmarks.timing import medians_s
from emotion.cli import CONF_DIR
from emotion.data.augmentation import Augmentation
from emotion.data.datamodule import StackDataModule
from emotion.files import file_digest
from emotion.models.lightning_module import EmotionModule
from emotion.models.optimizers import build_optimizer
from emotion.models.stack_classifier import StackClassifier
from emotion.models.titles import model_title
from emotion.stacks.cache import Cache
from emotion.stacks.manifest import StackRow
from emotion.stacks.stack import write_stack

NUM_IMAGES, SIZE_PX = 18, 224
BATCHES = {"mobilenetv3": 24, "effv2s": 8, "effv2m": 8}  # stacks
STEPS = {"mobilenetv3": 6, "effv2s": 4, "effv2m": 3}  # of an epoch
ROUNDS = 3


def compare_augmentations(console: Console) -> None:
    """Time the notebooks' augmentation of one stack: ours, and the same of torchvision."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        ours = instantiate(compose("train").augmentation)
    stack = np.random.default_rng(0).integers(256, size=(NUM_IMAGES, SIZE_PX, SIZE_PX))
    stack = stack.astype(np.uint8)
    generator = np.random.default_rng(0)
    theirs = torchvision_transforms(ours)
    tensor = torch.from_numpy(stack)
    functions = {
        "OpenCV, uint8, images as channels": lambda: ours(cv2.merge(list(stack)), generator),
        "torchvision, float": lambda: theirs(tensor.float() / 255),
    }
    times_s = medians_s(functions, 60)
    table = Table("augmentation", "ms a stack", "ratio", title=f"{NUM_IMAGES} x {SIZE_PX} px")
    for name, time_s in times_s.items():
        table.add_row(name, f"{1000 * time_s:.1f}", f"{time_s / min(times_s.values()):.1f}")
    console.print(table)


def torchvision_transforms(ours: Augmentation) -> Callable[[torch.Tensor], torch.Tensor]:
    """Build the same augmentation of torchvision, for (T, H, W) float."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(ours.flip),
            v2.RandomAffine(
                ours.rotation_deg, (ours.shift, ours.shift), (ours.scale_min, ours.scale_max)
            ),
            v2.GaussianBlur(3, (ours.blur_sigma_min, ours.blur_sigma_max)),
            v2.RandomErasing(ours.erase, (ours.erase_area_min, ours.erase_area_max)),
        ]
    )


def compare_memory_formats(console: Console) -> None:
    """Time a training step of each model with images or channels last in memory."""
    table = Table("model", "NCHW, ms a stack", "channels last", "ratio", "config says")
    for name in BATCHES:
        cfg = composed([f"model={name}"])
        images = torch.rand(8, NUM_IMAGES, SIZE_PX, SIZE_PX)
        formats = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
        steps = {key: partial(training_step(cfg, of), images) for key, of in formats.items()}
        per_stack = [1000 * time_s / len(images) for time_s in medians_s(steps, ROUNDS).values()]
        table.add_row(
            model_title(cfg.model.backbone),
            *(f"{ms:.0f}" for ms in per_stack),
            f"{per_stack[1] / per_stack[0]:.2f}",
            "channels last" if cfg.model.channels_last else "NCHW",
        )
    console.print(table)


def composed(overrides: list[str]) -> DictConfig:
    """Compose the config of training on 18 images."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", ["interval='5'", "model.pretrained=false", *overrides])


def training_step(
    cfg: DictConfig, memory_format: torch.memory_format, device: torch.device | None = None
) -> Callable[[torch.Tensor], None]:
    """Give a bare training step on (N, T, H, W) float images: network, loss and optimizer."""
    network = StackClassifier(cfg.model.backbone, NUM_IMAGES, 5).to(device)
    network.to(memory_format=memory_format)
    optimizer = build_optimizer(network, cfg.optimizer)

    def step(images: torch.Tensor) -> None:
        optimizer.zero_grad()
        images = images.to(device, memory_format=memory_format)
        targets = torch.arange(len(images), device=device) % 5
        cross_entropy(network(images), targets).backward()
        optimizer.step()

    if cfg.model.compile:
        network.compile()
    return step


def compare_epochs(console: Console, overrides: list[str]) -> None:
    """Time epochs of each model, as `train.py` runs them, bare steps, and the notebooks' loop."""
    table = Table(
        "model",
        "batch",
        "ms a stack",
        "epoch against bare steps",
        "waiting for data",
        "stacks/s against the notebooks' loop",
        title=f"{NUM_IMAGES} x {SIZE_PX} px {' '.join(overrides)}",
    )
    for name, batch_size in BATCHES.items():
        with TemporaryDirectory() as folder:
            cfg = composed(
                [
                    f"model={name}",
                    f"loader.batch_size={batch_size}",
                    f"paths.cache={folder}",
                    *overrides,
                ]
            )
            stopwatch = epochs_in_turns(cfg, STEPS[name])
        epoch_s, bare_s, notebooks_s = np.median(stopwatch.times_s[1:], axis=0)
        table.add_row(
            model_title(cfg.model.backbone),
            str(batch_size),
            f"{1000 * epoch_s / STEPS[name] / batch_size:.0f}",
            f"{epoch_s / bare_s:.2f}",
            f"{np.median(stopwatch.waited_s[1:]) / epoch_s:.1%}",
            f"{notebooks_s / epoch_s:.2f}",
        )
        console.print(f"{model_title(cfg.model.backbone)} is measured")
    console.print(table)


def epochs_in_turns(cfg: DictConfig, num_steps: int) -> "Stopwatch":
    """Train a model as `train.py` does, on random stacks, and its rivals after every epoch."""
    cache = Cache.from_config(cfg)
    rows = list(random_stacks(cache, cfg.data.labels, cfg.loader.batch_size * num_steps))
    augmentation = instantiate(cfg.augmentation)
    datamodule = StackDataModule(
        cache, cfg.interval.frames, augmentation, labels=cfg.data.labels, **cfg.loader
    )
    datamodule.rows = {"train": rows, "val": rows[:1], "test": []}
    module = module_of(cfg)
    if cfg.model.compile:
        module.network.compile()
    stopwatch = Stopwatch(cfg, num_steps, augmentation)
    settings = {"logger": False, "callbacks": [stopwatch], "max_epochs": 1 + ROUNDS}
    trainer = instantiate(cfg.trainer, limit_val_batches=0, enable_checkpointing=False, **settings)
    trainer.fit(module, datamodule=datamodule)
    return stopwatch


def module_of(cfg: DictConfig) -> EmotionModule:
    """Build the module of a config as `train.py` does, with random weights."""
    return EmotionModule(
        cfg.model.backbone,
        NUM_IMAGES,
        cfg.data.labels,
        channels_last=cfg.model.channels_last,
        optimizer=OmegaConf.to_container(cfg.optimizer),
        schedule=OmegaConf.to_container(cfg.schedule),
    )


def random_stacks(cache: Cache, labels: Sequence[str], num: int) -> Iterator[StackRow]:
    """Write smooth random stacks into a cache."""
    generator = np.random.default_rng(0)
    for number in range(num):
        coarse = generator.integers(256, size=(NUM_IMAGES, 14, 14)).astype(np.uint8)
        stack = np.stack([cv2.resize(image, (SIZE_PX, SIZE_PX)) for image in coarse])
        path = cache.directory / f"{number}.tiff"
        write_stack(path, stack)
        yield StackRow(
            stack=path.name,
            clip=str(number),
            segment=1,
            label=labels[number % 5],
            subject="",
            split="train",
            num_frames=90,
            num_faces=1,
            has_face="1" * NUM_IMAGES,
            face_frames=NUM_IMAGES,
            sampled_frames=NUM_IMAGES,
            fps=30,
            stack_digest=file_digest(path),
            landmarks_digest="",
            blendshapes_digest="",
        )


class Stopwatch(pl.Callback):
    """Times epochs, and after each of them as many bare steps and as many of the notebooks' loop.

    Attributes:
        times_s: of each epoch, of its bare steps and of the notebooks' loop.
        waited_s: of each epoch, from the end of one step to the beginning of the next.
    """

    def __init__(self, cfg: DictConfig, num_steps: int, augmentation: Augmentation) -> None:
        """Build the rivals once training has begun."""
        self.cfg, self.num_steps, self.augmentation = cfg, num_steps, augmentation
        self.times_s, self.waited_s = [], []

    def on_train_start(self, trainer: pl.Trainer, module: EmotionModule) -> None:
        """Build the rivals."""
        device = module.device
        bare = training_step(self.cfg, module.memory_format, device)
        images = torch.rand(self.cfg.loader.batch_size, NUM_IMAGES, SIZE_PX, SIZE_PX)
        images = images.to(device, memory_format=module.memory_format)

        def bare_steps() -> None:
            with trainer.precision_plugin.train_step_context():
                for _ in range(self.num_steps):
                    bare(images)

        plain = OmegaConf.merge(self.cfg, {"model": {"compile": False}})
        step = training_step(plain, torch.contiguous_format, device)
        varied = torchvision_transforms(self.augmentation)
        data = torch.rand(self.cfg.loader.batch_size, NUM_IMAGES, SIZE_PX, SIZE_PX)  # in memory

        def notebooks_loop() -> None:
            for _ in range(self.num_steps):
                step(torch.stack([varied(stack) for stack in data]))

        self.rivals = (bare_steps, notebooks_loop)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: EmotionModule) -> None:
        """Start the watch."""
        self.start_s = self.ready_s = time.perf_counter()
        self.waited_s.append(0.0)

    def on_train_batch_start(self, *_: object) -> None:
        """Take down how long the batch was waited for."""
        self.waited_s[-1] += time.perf_counter() - self.ready_s

    def on_train_batch_end(self, *_: object) -> None:
        """Begin to wait for the next batch."""
        wait_for_device()
        self.ready_s = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: EmotionModule) -> None:
        """Stop the watch, and time the rivals."""
        times_s = [time.perf_counter() - self.start_s]
        for rival in self.rivals:
            start_s = time.perf_counter()
            rival()
            wait_for_device()
            times_s.append(time.perf_counter() - start_s)
        self.times_s.append(times_s)


def wait_for_device() -> None:
    """Let a GPU finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    compare_augmentations(Console())
    compare_memory_formats(Console())
    compare_epochs(Console(), sys.argv[1:])
