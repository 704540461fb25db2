"""Measure what a training step spends: python -m benchmarks.train.

Prints ratios from one run, on random stacks: augmentation against torchvision's, and the two
memory formats of each model. Absolute times depend on the machine and on what else runs there.
"""

import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table
from torchvision.transforms import v2

from emotion.config import CONF_DIR
from emotion.module import EmotionModule

NUM_IMAGES, SIZE_PX, BATCH = 18, 224, 8


def median_ms(function: Callable[[], object], repeats: int) -> float:
    """Call a function once to warm up and then `repeats` times; give the median in ms."""
    function()
    times_s = []
    for _ in range(repeats):
        start_s = time.perf_counter()
        function()
        times_s.append(time.perf_counter() - start_s)
    return 1000 * float(np.median(times_s))


def compare_augmentations(console: Console) -> None:
    """Time the seed's augmentation of one stack: ours, and the same of torchvision."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        ours = instantiate(compose("train").augmentation)
    stack = np.random.default_rng(0).integers(256, size=(NUM_IMAGES, SIZE_PX, SIZE_PX))
    stack = stack.astype(np.uint8)
    generator = np.random.default_rng(0)

    def with_opencv() -> np.ndarray:
        return ours(cv2.merge(list(stack)), generator)

    theirs = v2.Compose(
        [
            v2.RandomHorizontalFlip(ours.flip),
            v2.RandomAffine(
                ours.rotation_deg, (ours.shift, ours.shift), (ours.scale_min, ours.scale_max)
            ),
            v2.GaussianBlur(3, (ours.blur_sigma_min, ours.blur_sigma_max)),
            v2.RandomErasing(ours.erase, (ours.erase_area_min, ours.erase_area_max)),
        ]
    )
    tensor = torch.from_numpy(stack)
    opencv_ms = median_ms(with_opencv, 60)
    torchvision_ms = median_ms(lambda: theirs(tensor.float() / 255), 60)
    table = Table("augmentation", "ms a stack", "ratio", title=f"{NUM_IMAGES} x {SIZE_PX} px")
    table.add_row("OpenCV, uint8, images as channels", f"{opencv_ms:.1f}", "1.0")
    ratio = f"{torchvision_ms / opencv_ms:.1f}"
    table.add_row("torchvision, float", f"{torchvision_ms:.1f}", ratio)
    console.print(table)


def compare_memory_formats(console: Console) -> None:
    """Time a training step of each model with images or channels last in memory."""
    table = Table("model", "NCHW, ms a stack", "channels last", "ratio", "config says")
    for name in ("mobilenetv3", "effv2s", "effv2m"):
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = compose("train", [f"model={name}"])
        per_stack = [step_ms(cfg.model.backbone, last) / BATCH for last in (False, True)]
        table.add_row(
            cfg.model.title,
            *(f"{ms:.0f}" for ms in per_stack),
            f"{per_stack[1] / per_stack[0]:.2f}",
            "channels last" if cfg.model.channels_last else "NCHW",
        )
    console.print(table)


def step_ms(backbone: str, channels_last: bool) -> float:
    """Time one training step on a batch of random stacks."""
    module = EmotionModule(backbone, NUM_IMAGES, list("abcde"), channels_last=channels_last)
    optimizer = module.configure_optimizers()["optimizer"]
    stacks = torch.randint(256, (BATCH, NUM_IMAGES, SIZE_PX, SIZE_PX), dtype=torch.uint8)
    targets = torch.arange(BATCH) % 5

    def step() -> None:
        optimizer.zero_grad()
        module.loss(module(stacks), targets).backward()
        optimizer.step()

    return median_ms(step, 5)


if __name__ == "__main__":
    compare_augmentations(Console())
    compare_memory_formats(Console())
