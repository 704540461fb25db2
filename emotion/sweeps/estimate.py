"""How long a sweep will take: extrapolated from the first training steps of its first cell."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from emotion.cli import CONF_DIR
from emotion.progress import duration
from emotion.sweeps.plan import PLAN_FILE, PlannedCell, read_plan, work
from emotion.training.throughput import relative_cost

log = logging.getLogger(__name__)

LONG_S = 2 * 3600.0  # shorter sweeps are not announced
WARM_UP = 2  # steps that are not timed
TIMED = 8  # steps that are
ENOUGH_S = 20.0  # of timing
EVALUATION = 1 / 3  # of the time of a training step: the forward pass alone


class SweepEstimate(pl.Callback):
    """Prints how long the cells of a sweep take, if it is long, and once."""

    def __init__(self, cells: Sequence[PlannedCell], num_parallel: int, small_share: float) -> None:
        """Estimate the time of `cells`, of which the first is trained here.

        `small_share` is the time of the first cell with `experiment=small`, as a share of its time.
        """
        self.cells, self.num_parallel, self.small_share = cells, num_parallel, small_share
        self.steps = 0

    @classmethod
    def of_job(cls, cfg: DictConfig, run_dir: Path) -> list["SweepEstimate"]:
        """Return the callback of the running job: one for a sweep's first cell, else none."""
        hydra = HydraConfig.get()
        sweep_dir = Path(hydra.sweep.dir)
        if "submitit" in hydra.launcher._target_ or not (sweep_dir / PLAN_FILE).is_file():
            return []  # cells on other machines; a search
        cells = [cell for cell in read_plan(sweep_dir).cells if cell.to_run]
        if not cells or cells[0].folder != run_dir.name or cells[0].backbone is None:
            return []
        num_parallel = joblib.effective_n_jobs(hydra.launcher.get("n_jobs", 1))
        small = OmegaConf.load(CONF_DIR / "experiment" / "small.yaml")
        typed = [o for o in hydra.overrides.task if o.startswith(("loader.", "trainer."))]
        small_cfg = OmegaConf.merge(cfg, small, OmegaConf.from_dotlist(typed))
        return [cls(cells, min(num_parallel, len(cells)), work(small_cfg) / work(cfg))]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Time steps after a warm-up, then extrapolate."""
        self.steps += 1
        if self.steps <= WARM_UP:
            self.start_s = time.perf_counter()
            return
        timed, seconds = self.steps - WARM_UP, time.perf_counter() - self.start_s
        if self.num_parallel and (timed == TIMED or seconds > ENOUGH_S):
            per_epoch = trainer.num_training_batches + EVALUATION * sum(trainer.num_val_batches)
            self.announce(seconds / timed * per_epoch * trainer.max_epochs)
            self.num_parallel = 0  # announced

    def announce(self, first_s: float) -> None:
        """Print the estimate, given the seconds of the first cell."""
        names = {cell.backbone for cell in self.cells if cell.backbone}
        costs = {name: relative_cost(name) if len(names) > 1 else 1.0 for name in names}
        works = [cell.work * costs.get(cell.backbone, 0.0) for cell in self.cells]
        total_s = first_s * sum(works) / works[0] / self.num_parallel
        if total_s > LONG_S:
            line = f"about {duration(total_s)} for {len(self.cells)} cells on this machine"
            if self.small_share < 1:
                line += f"; experiment=small makes it about {duration(total_s * self.small_share)}"
            log.info(line)
