"""Hydra callback of a sweep: plans its cells, prints the progress, sets the exit status."""

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from emotion import REPOSITORY
from emotion.cli import exit_on_error
from emotion.config import check_config
from emotion.errors import UserError
from emotion.progress import duration, when
from emotion.sweeps.plan import Plan, PlannedCell, work, write_plan
from emotion.training.cell import (
    cell_id,
    config_flags,
    describe_cell,
    foreign_files,
    remove_irregular,
    why_run,
)
from emotion.training.record import RECORD_FILE, FailedRun, FinishedRun, command, read_record


class SweepProgress(Callback):
    """Checks and plans a sweep at its start, counts its cells, and fails if one of them failed."""

    cells: Sequence[PlannedCell] = ()  # none in a single run

    def on_multirun_start(self, config: DictConfig, config_name: str, **_: Any) -> None:
        """Check every cell, make missing stacks, and write the plan; exit on a mistake."""
        with exit_on_error():
            self.sweep_dir = Path(config.hydra.sweep.dir).absolute()
            check_launcher(config.hydra.launcher)
            remove_irregular(self.sweep_dir, "multirun.yaml")
            cells = compose_cells(config, config_name)
            prepare_data(list(cells.values()))
            self.cells = plan_cells(cells, self.sweep_dir, typed_command(config))
            self.start_s = time.time()

    def on_job_end(self, config: DictConfig, **_: Any) -> None:
        """Print how many cells are over and when the others will be; runs where the job runs."""
        with exit_on_error():
            folder = config.hydra.sweep.subdir
            paths = [self.sweep_dir / c.folder / RECORD_FILE for c in self.cells if c.to_run]
            if folder not in {path.parent.name for path in paths}:
                return
            over = [p for p in paths if p.is_file() and p.stat().st_mtime >= self.start_s]
            failed = sum(isinstance(read_record(path.parent), FailedRun) for path in over)
            num_left = len(paths) - len(over)
            line = f"over: {folder}; {len(self.cells) - num_left} of {len(self.cells)} cells"
            line += f", {failed} failed" if failed else ""
            if num_left and over:
                left_s = (time.time() - self.start_s) / len(over) * num_left
                line += f", about {duration(left_s)} left, done {when(left_s)}"
            print(line, flush=True)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Exit with status 1 if a cell has not finished; runs after the report."""
        with exit_on_error():
            records = [read_record(self.sweep_dir / cell.folder) for cell in self.cells]
            if failed := sum(not isinstance(record, FinishedRun) for record in records):
                raise UserError(
                    f"{failed} of {len(records)} cells failed; the same command with "
                    f"sweep={self.sweep_dir.name} runs them again"
                )


def check_launcher(launcher: DictConfig) -> None:
    """Check what a launcher needs, and let jobs on other machines import this package."""
    if launcher.get("n_jobs") == 0:
        raise UserError("hydra.launcher.n_jobs must be at least 1, or -1 for all cores, got 0")
    if launcher._target_.endswith("SlurmLauncher") and not shutil.which("sbatch"):
        raise UserError("hydra/launcher=submitit_slurm needs sbatch: start it on a login node")
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))


def compose_cells(config: DictConfig, config_name: str) -> dict[str, DictConfig]:
    """Compose and check all cells of a sweep, repeated ones once: folder name -> config."""
    loader = GlobalHydra.instance().config_loader()
    params = [f"{key}={values}" for key, values in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=loader)
    arguments = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    overrides = parser.parse_overrides([*params, *arguments])
    if any(o.is_sweep_override() and not o.is_discrete_sweep() for o in overrides):
        raise UserError("interval() is a range to search: add hparams=optuna, or list its values")
    typed = {override.key_or_group: override for override in overrides}
    models = typed.get("model")
    if "model.backbone" in typed and models and models.is_sweep_override():
        raise UserError(
            f"{models.input_line} would differ in name only, because model.backbone holds for all: "
            "compare networks by model=timm model.backbone=A,B"
        )
    cells: dict[str, DictConfig] = {}
    for number, job in enumerate(BasicSweeper.split_arguments(overrides, None)[0]):
        cfg = loader.load_sweep_config(config, job)
        check_config(config_name, cfg)
        with open_dict(cfg):
            cfg.hydra.job.num = number  # hydra.sweep.subdir may refer to it
        name = str(cfg.hydra.sweep.subdir)
        folder = Path(config.hydra.sweep.dir) / name
        remove_irregular(folder)
        if cell_id(cells.setdefault(name, cfg)) != cell_id(cfg):
            raise UserError(f"hydra.sweep.subdir={name} gives two cells one folder: leave it out")
        why = why_run(cfg, folder)
        if why == "another config":
            raise UserError(f"{folder} holds another config: move it away, or name another sweep")
        if why is not None and (foreign := foreign_files(folder)):
            raise UserError(f"{folder} holds {foreign[0]}, which no run writes: move it away")
    return cells


def prepare_data(cells: Sequence[DictConfig]) -> None:
    """Make missing stacks once, before cells do so at the same time; raise if no cell has data."""
    from emotion.stacks.build import CacheBuilder  # here, because jobs import this module too

    builders = {each.cache.directory: each for each in map(CacheBuilder.from_config, cells)}
    errors = []
    for builder in builders.values():
        try:
            builder.ensure()
        except UserError as error:
            errors.append(error)
    if errors and len(errors) == len(builders):  # else the cells without data fail when they run
        raise errors[0]


def typed_command(config: DictConfig) -> str:
    """Return the command that starts the sweep again."""
    typed = OmegaConf.to_container(config.hydra.overrides)  # cells interpolate for themselves
    hydra = [override for override in typed["hydra"] if not override.startswith("hydra.mode=")]
    return command("-m", *config_flags(config.hydra), *typed["task"], *hydra)


def plan_cells(cells: dict[str, DictConfig], sweep_dir: Path, typed: str) -> list[PlannedCell]:
    """Write the plan of composed cells; print which are finished and which run again."""
    plan, names = [], defaultdict(list)
    for name, cfg in cells.items():
        why = why_run(cfg, sweep_dir / name)
        names[why].append(name)
        head = dict(describe_cell(cfg, cfg.hydra))
        plan.append(PlannedCell(**head, folder=name, to_run=why is not None, work=work(cfg)))
    write_plan(sweep_dir, Plan(command=typed, cells=plan))
    print(
        f"sweep {sweep_dir}: {len(plan)} cells, {len(names[None])} of them finished; "
        f"the same command with sweep={sweep_dir.name} continues it"
    )
    for why, some in names.items():
        if some and why != "new":
            print(f"run again, {why}:" if why else "finished, not run again:", ", ".join(some))
    return plan
