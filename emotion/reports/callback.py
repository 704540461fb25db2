"""The Hydra callback that reports on a sweep at its end."""

import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from emotion.errors import UserError


class SweepReport(Callback):
    """Write a sweep's report at its end; a report that fails makes the exit status 1."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Write and print the report, and log it to W&B if the runs used W&B."""
        from emotion.reports.report import log_to_wandb, write_report  # slow to import

        sweep_dir = Path(config.hydra.sweep.dir)
        try:
            results = write_report(sweep_dir)
            log_to_wandb(results, sweep_dir)
        except Exception as error:  # Hydra would turn it into a warning, with status 0
            if not isinstance(error, UserError):
                traceback.print_exc()
            sys.exit(
                f"error: no report on {sweep_dir}: {error}; its runs are kept: "
                f"python -m emotion.reports {sweep_dir} writes the report"
            )
