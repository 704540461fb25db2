"""Where a run's curves go: Weights & Biases, without ever asking for a login, and CSV."""

import csv
import logging
import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb
from pytorch_lightning.loggers import CSVLogger, WandbLogger

log = logging.getLogger(__name__)


def wandb_mode() -> str:
    """Decide how W&B runs: as `WANDB_MODE` says, else online where a key is, else offline."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    return "online" if os.environ.get("WANDB_API_KEY") or has_login() else "offline"


def has_login() -> bool:
    """Tell whether `wandb login` has left a key for the server in use."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):  # no such file, or not one that wandb could read
        return False


class Wandb(WandbLogger):
    """Lightning's W&B logger, offline where there is no key, and one W&B run for each of ours."""

    def __init__(self, save_dir: str, **settings: Any) -> None:
        """Start a run.

        Args:
            save_dir: W&B's files go to its subfolder `wandb`.
            **settings: as `WandbLogger` and `wandb.init` take them: project, group, name, tags.
        """
        self.mode = wandb_mode()
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        super().__init__(
            save_dir=save_dir,
            mode=self.mode,
            resume=None if self.mode == "offline" else "allow",
            settings=wandb.Settings(silent=True),
            **settings,
        )
        self._wandb_init.pop("anonymous")  # Lightning passes it on; W&B warns that it is gone

    def finish(self) -> None:
        """End the run, so that the next one in this process is one of its own."""
        directory = Path(self.experiment.dir).parent
        if self.mode == "online":
            log.info("W&B run: %s", self.experiment.url)
        self.experiment.finish()
        if self.mode == "offline":
            log.info("W&B run is offline; upload it with: wandb sync %s", directory)


class Curves(CSVLogger):
    """Lightning's CSV logger, which goes on with the curves that a run had before a kill."""

    def go_on(self, run_dir: Path, last_epoch: int) -> None:
        """Take over the rows of the epochs that need not be trained again. Call it first of all.

        Args:
            run_dir: folder of the run that training goes on from; may be this one's.
            last_epoch: the last of these epochs, counted from 0.
        """
        path = run_dir / self.name / str(self.version) / "metrics.csv"
        rows = []
        if path.is_file():
            with open(path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["epoch"]]
        kept = [row for row in rows if int(row["epoch"]) <= last_epoch]
        # `experiment` removes what stands in this run's own folder
        self.experiment.metrics += [{k: v for k, v in row.items() if v} for row in kept]
        self.save()


def finish_wandb() -> None:
    """End the W&B run of this process, if one was started and something went wrong since."""
    if wandb.run is not None:
        wandb.finish(exit_code=1)
