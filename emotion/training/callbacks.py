"""Callbacks of training: progress lines, seeds, averaged weights and early stopping."""

import logging
import time
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, WeightAveraging

from emotion.progress import terminal_bar

log = logging.getLogger(__name__)


class EpochLines(Callback):
    """Logs a line after each epoch: scores, and the estimated end of training.

    In a terminal, a progress bar of the epoch stands in its place before.
    """

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


def when(left_s: float, now: datetime | None = None) -> str:
    """Return the time of day in `left_s` seconds, with the date if it is not today.

    >>> when(5400, datetime(2025, 3, 1, 23, 0))
    'on Sun 2 Mar at 00:30'
    """
    now = now or datetime.now()
    end = now + timedelta(seconds=left_s)
    day = "" if end.date() == now.date() else f"on {end:%a} {end.day} {end:%b} "
    return f"{day}at {end:%H:%M}"


class SeededEpochs(Callback):
    """Seeds torch's generators at the start of each epoch, from the run's seed and the epoch.

    Dropout and mixup then do not depend on where training was interrupted. Each process of
    `trainer=ddp` has random numbers of its own.
    """

    def __init__(self, seed: int) -> None:  # no dataclass: Hydra would make a config of it
        """Take the run's seed."""
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

    The decay starts lower, as min(decay, (1 + n) / (10 + n)) after n steps, so that the average
    forgets the initial weights.
    """

    def __init__(self, decay: float) -> None:
        """Set the share of the average that each step keeps, from 0 to below 1."""

        def average(
            averaged: list[torch.Tensor], current: list[torch.Tensor], num: torch.Tensor
        ) -> None:
            kept = min(decay, (1 + int(num)) / (10 + int(num)))
            if averaged[0].is_floating_point():
                torch._foreach_lerp_(averaged, current, 1 - kept)
            else:  # counters
                torch._foreach_copy_(averaged, current)

        super().__init__(multi_avg_fn=average)
