"""How long cells will take on this machine: a few real training steps, before anything is started.

Costs seconds, and knows nothing of waiting for data or of what else the machine does; a sweep
corrects it by what its first cells really took.
"""

import time
from collections import Counter
from collections.abc import Sequence

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from emotion.data.split import split_rows
from emotion.errors import UserError
from emotion.models.stack_classifier import StackClassifier
from emotion.stacks.cache import Cache
from emotion.stacks.sampling import num_images

ENOUGH_S = 4.0  # of timing one network
BATCH = 4  # stacks in a timed step: enough to keep the cores busy, few enough to be quick
SLOWEST_S = 2.0  # a stack; no network here takes longer, so that what is short is not timed at all
EVALUATION = 1 / 3  # of the work of a training step: the forward pass alone


def cell_seconds(cells: Sequence[DictConfig], negligible_s: float) -> list[float] | None:
    """Estimate how long each of some cells will take, from steps timed on this machine.

    Args:
        cells: their composed configs; the caches stand.
        negligible_s: if all together can't take longer than that, time nothing.

    Returns:
        Seconds for each cell; None if they can't take long, or one of them can't be built at all.
    """
    stack_s: dict[tuple, float] = {}
    seconds = []
    try:
        passes = [stack_passes(cfg) for cfg in cells]
        if sum(passes) * SLOWEST_S < negligible_s:
            return None
        images = max(num_images(c.sampling.segment_frames, c.interval.frames) for c in cells)
        for cfg, count in zip(cells, passes, strict=True):
            if cfg.model.backbone is None:
                seconds.append(0.0)  # landmarks alone take no time to speak of
                continue
            network = (
                cfg.model.backbone,
                cfg.model.fusion,
                # More of them cost the first convolution alone: not timed one by one.
                images,
                cfg.loader.image_px or cfg.face.size_px,
                cfg.model.channels_last,
                cfg.trainer.accelerator,
            )
            if network not in stack_s:
                stack_s[network] = time_stack(*network)
            seconds.append(count * stack_s[network])
    except UserError:
        return None  # the cell will say so itself
    return seconds


def stack_passes(cfg: DictConfig) -> float:
    """Count the stacks that a run trains on over all epochs; evaluation counts by its share."""
    cache = Cache.from_config(cfg)
    split = instantiate(cfg.split, _convert_="all")
    rows = split_rows(cache.manifest(), split, cfg.data.get("pattern"))
    counts = Counter(row.split for row in rows)
    each_epoch = counts["train"] + EVALUATION * counts["val"]
    return each_epoch * cfg.trainer.max_epochs


def time_stack(
    backbone: str, fusion: str, images: int, image_px: int, channels_last: bool, accelerator: str
) -> float:
    """Time training steps of a network on random stacks.

    Args:
        backbone: its name in timm.
        fusion: how it sees a stack's images.
        images: T.
        image_px: height and width.
        channels_last: order of images in memory.
        accelerator: the trainer's; all but `cpu` mean a GPU where there is one.

    Returns:
        Seconds a stack, of the fastest of three steps, or of fewer where they take long.
    """
    use_gpu = accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if use_gpu else "cpu")
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    with torch.random.fork_rng():  # a sweep's cells must not notice
        network = StackClassifier(backbone, images, 5, fusion=fusion)
        network.to(device, memory_format=memory_format)
        stacks = torch.rand(BATCH, images, image_px, image_px, device=device)
        stacks = stacks.to(memory_format=memory_format)
        targets = torch.arange(BATCH, device=device) % 5
        times_s: list[float] = []
        while len(times_s) < 3 and sum(times_s) < ENOUGH_S:
            start_s = time.perf_counter()
            nn.functional.cross_entropy(network(stacks), targets).backward()
            if use_gpu:
                torch.cuda.synchronize()
            times_s.append(time.perf_counter() - start_s)
    return min(times_s) / BATCH
