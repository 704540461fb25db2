"""Stacks per second in training, and milliseconds per stack of inference."""

import time

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

WARM_UP = 2
MIN_REPEATS = 5  # a median of fewer would depend on a single disturbance
MAX_REPEATS = 20
ENOUGH_S = 2.0  # after this time, no more than MIN_REPEATS


class TrainClock(Callback):
    """Measures stacks per second of training, including waiting for data, without validation."""

    def __init__(self) -> None:
        """Start at zero."""
        self.stacks = 0
        self.seconds = 0.0

    @property
    def stacks_per_s(self) -> float | None:
        """Stacks per second of all processes together; None before the end of an epoch."""
        return self.stacks / self.seconds if self.seconds else None

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
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
        """Count a batch; stop the clock at the last one, before validation."""
        self._seen += len(batch[1]) * trainer.world_size
        if index + 1 == trainer.num_training_batches:
            synchronize(module.device)
            self.seconds += time.perf_counter() - self._start_s
            self.stacks += self._seen


@torch.inference_mode()
def ms_per_stack(module: pl.LightningModule, inputs: torch.Tensor) -> float:
    """Return the median time of 5 to 20 forward passes of a batch of one stack.

    On the module's device, in float32 and not compiled, from the stack in memory to its logits.
    Other load on the machine slows it down.

    Args:
        module: the model.
        inputs: one stack or its landmarks, (1, ...), on its device.
    """
    was_training = module.training
    module.eval()
    times_s: list[float] = []
    with torch.compiler.set_stance("force_eager"):
        for _ in range(WARM_UP):
            module(inputs)
        synchronize(module.device)
        while len(times_s) < MIN_REPEATS or (
            len(times_s) < MAX_REPEATS and sum(times_s) < ENOUGH_S
        ):
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
