"""Hydra callback of train.py: the folder of a single run belongs to one run at a time."""

import os
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from emotion.cli import exit_on_error
from emotion.files import claimed, holder
from emotion.training.cell import LOCK, remove_irregular


class RunFolder(Callback):
    """Makes the folder of a run, or locks the one that the user has named."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Choose and lock the folder, before Hydra writes to it; exit on a mistake."""
        if any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
            return  # not the first process of `trainer=ddp`
        with exit_on_error():
            folder = Path(config.hydra.run.dir)
            if "${now:" in OmegaConf.to_container(config.hydra.run, resolve=False)["dir"]:
                folder = make_new(folder)
                with read_write(config.hydra.run):
                    config.hydra.run.dir = str(folder)
            remove_irregular(folder)
            if f"process {os.getppid()} on" in (holder(folder / LOCK) or ""):
                return  # the job of a sweep, which runs this command for its cell
            self.lock = ExitStack()
            self.lock.enter_context(claimed(folder / LOCK, f"the folder of the run {folder}"))

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        """Unlock the folder."""
        if hasattr(self, "lock"):
            self.lock.close()


def make_new(folder: Path) -> Path:
    """Make a folder that did not exist; if it does, one with `_2`, `_3`, ... after its name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        new = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
        try:
            new.mkdir()
        except FileExistsError:
            continue
        return new
