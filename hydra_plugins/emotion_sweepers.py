"""Hydra's sweepers of this project; Hydra takes plugins from this package alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from emotion.cli import quote_integer_options
from emotion.config import check_config
from emotion.errors import UserError
from emotion.training.cell import cell_id

if TYPE_CHECKING:  # Hydra imports this module with every script, and it takes PyTorch along
    from emotion.sweeps.sweep import Sweep


class CellSweeper(BasicSweeper):
    """Hydra's grid sweeper, but one that skips finished cells and outlives failing ones."""

    def sweep(self, arguments: list[str]) -> list[dict | None]:
        """Run all combinations of the arguments' values.

        Args:
            arguments: of the command line, without those for Hydra.

        Returns:
            The record of each cell.
        """
        overrides = self.parse(arguments)
        for override in overrides:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise UserError(
                    f"{override.input_line}: a range is something to search: add hparams=optuna, "
                    "or list its values"
                )
        jobs = self.split_arguments(overrides, max_batch_size=None)[0]
        sweep = self.open_folder()
        with sweep.open():
            cells = sweep.cells(jobs)
            sweep.prepare_data(cells)
            sweep.plan(cells)
            return sweep.run(cells)

    def parse(self, arguments: Sequence[str]) -> list[Override]:
        """Parse `hydra.sweeper.params` and the arguments, integers as options of a group too."""
        typed = quote_integer_options([*self._parse_config(), *arguments])
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return parser.parse_overrides(typed)

    def open_folder(self) -> Sweep:
        """Make the sweep's folder and put Hydra's record of the command there."""
        from emotion.sweeps.sweep import Sweep

        if self.config.hydra.launcher.get("n_jobs") == 0:
            raise UserError("hydra.launcher.n_jobs=0: it is at least 1, or -1 for one a core")
        sweep_dir = Path(self.config.hydra.sweep.dir).absolute()
        sweep_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep_dir / "multirun.yaml")
        return Sweep(self.launcher, self.compose, sweep_dir)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Compose a job's config and check what was typed."""
        loader = self.hydra_context.config_loader
        cfg = loader.load_sweep_config(self.config, list(overrides))
        check_config(self.config.hydra.job.config_name, cfg)
        return cfg


class StudySweeper(CellSweeper):
    """Searches the ranges that it is given with Optuna; goes on with the study in its folder.

    In place of hydra-optuna-sweeper, whose last version wants Optuna below 3.
    """

    def __init__(
        self, n_trials: int, n_jobs: int, seed: int, params: dict[str, str] | None = None
    ) -> None:
        """Keep the settings.

        Args:
            n_trials: how many trials in all, those of earlier starts included.
            n_jobs: trials side by side, where the launcher runs jobs so.
            seed: of the proposals.
            params: what is searched; arguments of the command line come on top.
        """
        super().__init__(max_batch_size=None, params=params)
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.seed = seed

    def sweep(self, arguments: list[str]) -> list[dict | None]:
        """Run trials; tell the best.

        Args:
            arguments: of the command line, without those for Hydra.

        Returns:
            The records of the trials that this start has run.
        """
        from emotion.sweeps.search import Space, Study

        for key in ("n_trials", "n_jobs"):
            value = getattr(self, key)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"hydra.sweeper.{key}={value}: it is a whole number, at least 1")
        space = Space.from_overrides(self.parse(arguments))
        setting = cell_id(self.compose(space.fixed))
        sweep = self.open_folder()
        records = []

        def run(jobs: list[list[str]]) -> list[dict | None]:
            trials = [sweep.cells([quote_integer_options(job)])[0] for job in jobs]
            ended = sweep.finish(trials)
            records.extend(ended)
            return ended

        with sweep.open():
            study = Study(sweep.sweep_dir, space, setting, self.seed)
            left = self.n_trials - len(study.over)
            print(
                f"search {sweep.sweep_dir}: {len(study.over)} of {self.n_trials} trials are over; "
                f"the same command with sweep={sweep.sweep_dir.name} goes on where it stops"
            )
            if left > 0:
                sample = sweep.cells([space.fixed])
                sweep.prepare_data(sample)
                sweep.estimate(sample * left)
                study.search(self.n_trials, self.n_jobs, run)
            study.report()
        return records
