"""Stacks per second in training, and milliseconds per stack of inference."""

import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import timm
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

WARM_UP = 2
MIN_REPEATS = 5  # a median of fewer would depend on a single disturbance
MAX_REPEATS = 20
ENOUGH_S = 2.0  # after this time, no more than MIN_REPEATS


class TrainClock(Callback):
    """Measures stacks per second of training, including waiting for data, without validation."""

    stacks = 0
    seconds = 0.0

    @property
    def stacks_per_s(self) -> float | None:
        """Stacks per second of all processes together; None before the end of an epoch."""
        return self.stacks / self.seconds if self.seconds else None

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start_s = time.perf_counter()
        self._seen = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Count a batch; stop the clock at the last one, before validation."""
        self._seen += len(batch[1]) * trainer.world_size
        if index + 1 == trainer.num_training_batches:
            synchronize(module.device)
            self.seconds += time.perf_counter() - self._start_s
            self.stacks += self._seen


@torch.inference_mode()
def ms_per_stack(module: pl.LightningModule, inputs: torch.Tensor) -> float:
    """Return the median time of 5 to 20 forward passes of a batch of one stack.

    On the module's device, in float32 and not compiled, from the (1, ...) stack or landmarks in
    memory to its logits. Other load on the machine slows it down.
    """
    was_training = module.training
    module.eval()
    times_s: list[float] = []
    with torch.compiler.set_stance("force_eager"):
        for _ in range(WARM_UP):
            module(inputs)
        synchronize(module.device)
        while len(times_s) < (MAX_REPEATS if sum(times_s) < ENOUGH_S else MIN_REPEATS):
            start_s = time.perf_counter()
            module(inputs)
            synchronize(module.device)
            times_s.append(time.perf_counter() - start_s)
    module.train(was_training)
    return 1000 * float(np.median(times_s))


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def relative_cost(backbone: str) -> float:
    """Return the relative time of a training step, per pixel of an image.

    From the network's operations and activations: operations alone would make depthwise
    convolutions, which wait for memory, far too cheap. The weight of activations is fitted to
    training steps on a CPU at 112 px: it predicts the ratios of
    MobileNetV3-Large, ResNet-10-T, EfficientNetV2-S and -M to within 30 %.
    """
    activations = []
    with torch.device("meta"):  # shapes without numbers take no time and no memory
        network = timm.create_model(backbone, pretrained=False)
        images = torch.empty(1, *network.default_cfg["input_size"])
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output: activations.append(output.numel()))
    with FlopCounterMode(display=False) as operations:
        network(images)
    return (operations.get_total_flops() + 135 * sum(activations)) / images[0, 0].numel()
