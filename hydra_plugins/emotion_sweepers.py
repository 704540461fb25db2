"""Hydra sweeper for `hparams=optuna`; Hydra discovers plugins only in this package."""

from __future__ import annotations

from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from emotion.cli import quote_integer_options
from emotion.errors import UserError


class OptunaSweeper(BasicSweeper):
    """Searches ranges with Optuna; continues the study in the sweep's folder.

    hydra-optuna-sweeper 1.3.0, its last version, requires Optuna below 3.
    """

    def __init__(
        self, n_trials: int, n_jobs: int, seed: int, params: dict[str, str] | None = None
    ) -> None:
        """Store the settings, which conf/hydra/sweeper/optuna.yaml describes."""
        super().__init__(max_batch_size=None, params=params)
        self.n_trials, self.n_jobs, self.seed = n_trials, n_jobs, seed

    def sweep(self, arguments: list[str]) -> None:
        """Run trials and report the best one; `arguments` are those for the task."""
        # Imports are here because Hydra imports its plugins with every script
        from emotion.files import claimed
        from emotion.sweeps.callback import check_launcher, prepare_data
        from emotion.sweeps.search import Search, search_space
        from emotion.training.cell import cell_id, remove_irregular

        for key, value in (("n_trials", self.n_trials), ("n_jobs", self.n_jobs)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"hydra.sweeper.{key} must be a positive integer, got {value}")
        check_launcher(self.config.hydra.launcher)
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        typed = quote_integer_options([*self._parse_config(), *arguments])
        shared, searched = search_space(parser.parse_overrides(typed))
        cfg = loader.load_sweep_config(self.config, shared)
        sweep_dir = Path(self.config.hydra.sweep.dir).absolute()

        def run(jobs: list[list[str]]) -> list[float | None]:
            quoted = [quote_integer_options([*shared, *job]) for job in jobs]
            first = len(search.study.trials) - len(jobs)
            results = self.launcher.launch(quoted, initial_job_idx=first)
            return [result.return_value for result in results]

        with claimed(sweep_dir / ".search.lock", f"search {sweep_dir}"):
            remove_irregular(sweep_dir, "multirun.yaml")
            OmegaConf.save(self.config, sweep_dir / "multirun.yaml")
            identity = f"{cell_id(cfg)} {sorted(searched.items())}"
            search = Search.open(sweep_dir, identity, searched, self.seed)
            print(
                f"search {sweep_dir}: {len(search.ended)} of {self.n_trials} trials have ended; "
                f"the same command with sweep={sweep_dir.name} continues it",
                flush=True,
            )
            prepare_data([cfg])
            while (num_left := self.n_trials - len(search.ended)) > 0:
                search.run_trials(min(num_left, self.n_jobs), run)
            search.report(shared)
