"""Callbacks that end or delay a run, for tests of sweeps and of interrupted training."""

import os
import signal
import time
from pathlib import Path

from pytorch_lightning.callbacks import Callback


class Dies(Callback):
    """Raises, or kills its process, when training starts with a certain seed."""

    def __init__(self, seed: int, of_seed: int, how: str) -> None:
        self.dies = seed == of_seed
        self.how = how

    def on_train_start(self, trainer, module):
        if not self.dies:
            return
        if self.how == "raise":
            raise RuntimeError("a broken cell")
        os.kill(os.getpid(), getattr(signal, self.how))


class Waits(Callback):
    """Waits at the start of training while a file exists; writes FILE.reached beside it."""

    def __init__(self, seed: int, of_seed: int, file: str) -> None:
        self.file = Path(file) if seed == of_seed else None

    def on_train_start(self, trainer, module):
        if self.file is not None and self.file.exists():
            self.file.with_name(f"{self.file.name}.reached").touch()
        while self.file is not None and self.file.exists():
            time.sleep(0.05)


class WaitsInBatch(Callback):
    """Waits after the first batch of an epoch, counted from 0; otherwise as `Waits`."""

    def __init__(self, epoch: int, file: str) -> None:
        self.epoch = epoch
        self.waits = Waits(0, 0, file)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, 0):
            self.waits.on_train_start(trainer, module)
