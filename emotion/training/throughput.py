"""module ──time──> stacks a second in training, and milliseconds a stack afterwards."""

import time

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

WARM_UP = 2
REPEATS = 10
LIMIT_S = 2.0  # for all repeats of a slow network together


class TrainClock(Callback):
    """Measures how many stacks a second training takes, waiting for data included.

    Validation between the epochs does not count.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        self.stacks = 0
        self.seconds = 0.0

    @property
    def stacks_per_s(self) -> float | None:
        """Stacks a second, of all processes together; None before the first epoch's end."""
        return self.stacks / self.seconds if self.seconds else None

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take the time."""
        self._start_s = time.perf_counter()
        self._seen = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: object,
        batch: tuple[torch.Tensor, torch.Tensor],
        index: int,
    ) -> None:
        """Count a batch; the last ends the epoch, for Lightning says so after validation."""
        self._seen += len(batch[1]) * trainer.world_size
        if index + 1 == trainer.num_training_batches:
            synchronize(module.device)
            self.seconds += time.perf_counter() - self._start_s
            self.stacks += self._seen


@torch.inference_mode()
def ms_per_stack(module: pl.LightningModule, inputs: torch.Tensor) -> float:
    """Measure how long a module takes to classify one stack: the median of up to ten passes.

    As in an application: a batch of one, on the module's device, float32, not compiled, from the
    stack in memory to its logits. What else runs on the machine shows in it.

    Args:
        module: what classifies.
        inputs: one stack or its landmarks, (1, ...), on its device.
    """
    was_training = module.training
    module.eval()
    times_s: list[float] = []
    with torch.compiler.set_stance("force_eager"):
        for _ in range(WARM_UP):
            module(inputs)
        synchronize(module.device)
        while len(times_s) < REPEATS and sum(times_s) < LIMIT_S:
            start_s = time.perf_counter()
            module(inputs)
            synchronize(module.device)
            times_s.append(time.perf_counter() - start_s)
    module.train(was_training)
    return 1000 * float(np.median(times_s))


def synchronize(device: torch.device) -> None:
    """Wait for a GPU, which works on after a call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
