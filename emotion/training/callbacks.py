"""Callbacks of training: progress lines, seeds, averaged weights and early stopping."""

import logging
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from emotion.progress import terminal_bar, when

log = logging.getLogger(__name__)


class EpochLines(Callback):
    """Logs a line after each epoch; in a terminal, a progress bar stands in its place before."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.start_s = time.monotonic()
        self.first_epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Show the bar."""
        if trainer.is_global_zero:
            batches = trainer.num_training_batches + sum(trainer.num_val_batches)
            self.bar = terminal_bar(transient=True)
            self.bar.add_task(f"epoch {trainer.current_epoch + 1}", total=batches, speed="")
            self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Advance the bar."""
        if trainer.is_global_zero:
            self.bar.advance(self.bar.task_ids[0])

    on_validation_batch_end = on_train_batch_end

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        """Remove the bar, so that the error is printed below it."""
        if hasattr(self, "bar"):
            self.bar.stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the line; Lightning has validated this epoch before."""
        if not trainer.is_global_zero:
            return
        self.bar.stop()
        done = trainer.current_epoch + 1
        epoch_s = (time.monotonic() - self.start_s) / (done - self.first_epoch)
        left_s = epoch_s * (trainer.max_epochs - done)
        scores = {k: v.item() for k, v in trainer.callback_metrics.items()}
        log.info(
            f"epoch {done:3d} of {trainer.max_epochs}: "
            f"train loss {scores['train/loss']:.3f}, accuracy {scores['train/accuracy']:.1%}; "
            f"val loss {scores['val/loss']:.3f}, accuracy {scores['val/accuracy']:.1%}; "
            f"{epoch_s:.1f} s per epoch" + (f", done {when(left_s)}" if left_s else "")
        )


class SeededEpochs(Callback):
    """Seeds torch's generators at the start of each epoch, from run's seed, epoch and process.

    Dropout and mixup then do not depend on where training was interrupted.
    """

    def __init__(self, seed: int) -> None:  # no dataclass: Hydra would make a config of it
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Seed the generators."""
        entropy = (self.seed, trainer.current_epoch, trainer.global_rank)
        (state,) = np.random.SeedSequence(entropy).generate_state(1)
        torch.manual_seed(int(state))


class EarlyStop(EarlyStopping):
    """Early stopping that also applies when a run resumes after it had stopped."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop at once if the resumed run had stopped already."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class Ema(WeightAveraging):
    """Validates and keeps an exponential moving average of weights and batch norm statistics.

    After n steps the decay is min(decay, (1 + n) / (10 + n)), which forgets the initial weights.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: list, current: list, num: torch.Tensor) -> None:
            kept = min(decay, (1 + int(num)) / (10 + int(num)))
            get_ema_multi_avg_fn(kept)(averaged, current, num)

        super().__init__(multi_avg_fn=average)
