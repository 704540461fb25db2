"""The Hydra callback that reports on a sweep at its end."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from emotion.cli import exit_on_error


class SweepReport(Callback):
    """Write a sweep's report at its end; a report that fails makes the exit status 1."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write and print the report, and log it to W&B if the runs used W&B."""
        from emotion.reports.report import log_to_wandb, write_report  # slow to import

        sweep_dir = Path(config.hydra.sweep.dir)
        with exit_on_error():
            log_to_wandb(write_report(sweep_dir), sweep_dir)
