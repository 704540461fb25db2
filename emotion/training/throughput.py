"""Stacks per second in training, and milliseconds per stack of inference."""

import time
from typing import Any

import pytorch_lightning as pl
import timm
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode


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

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Count a batch; stop the clock at the last one, before validation."""
        self.stacks += len(batch[1]) * trainer.world_size
        if index + 1 == trainer.num_training_batches:
            if module.device.type == "cuda":
                torch.cuda.synchronize(module.device)
            self.seconds += time.perf_counter() - self._start_s


@torch.inference_mode()
def ms_per_stack(module: pl.LightningModule, inputs: torch.Tensor) -> float:
    """Return the time of a forward pass of a batch of one stack, the shortest of 4 or more.

    On the module's device, in float32 and not compiled, from the (1, ...) stack or landmarks in
    memory to its logits. The shortest, because other load on the machine only adds to it.
    """
    names = {"module": module.eval(), "inputs": inputs}
    timer = Timer("module(inputs)", globals=names, num_threads=torch.get_num_threads())
    with torch.compiler.set_stance("force_eager"):
        return 1000 * min(timer.adaptive_autorange(min_run_time=0.2, max_run_time=5.0).times)


def relative_cost(backbone: str) -> float:
    """Return the relative time of a training step, per pixel of an image.

    From the network's operations and activations: operations alone would make depthwise
    convolutions, which wait for memory, far too cheap. The weight of activations is fitted to
    training steps on a CPU at 112 px: it predicts the ratios of MobileNetV3-Large, ResNet-10-T,
    EfficientNetV2-S and -M to within 30 %.
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
