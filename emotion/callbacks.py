"""What a person reads while a model trains."""

import logging
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

log = logging.getLogger(__name__)


class EpochLines(Callback):
    """Prints a line after each epoch: scores, and when training will be done."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self.start_s = time.monotonic()
        self.first_epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Print the line; the validation of this epoch is over by now."""
        if not trainer.is_global_zero:
            return
        done = trainer.current_epoch + 1
        epoch_s = (time.monotonic() - self.start_s) / (done - self.first_epoch)
        left_s = epoch_s * (trainer.max_epochs - done)
        scores = {k: v.item() for k, v in trainer.callback_metrics.items()}
        log.info(
            f"epoch {done:3d} of {trainer.max_epochs}: "
            f"train loss {scores['train/loss']:.3f}, accuracy {scores['train/accuracy']:.1%}; "
            f"val loss {scores['val/loss']:.3f}, accuracy {scores['val/accuracy']:.1%}; "
            f"{epoch_s:.1f} s an epoch, {left_s / 60:.1f} min left"
        )
