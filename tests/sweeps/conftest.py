"""A sweep in this process whose cells cost nothing, and a real one in processes of its own."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from emotion import REPOSITORY

if TYPE_CHECKING:
    from emotion.stacks.cache import Cache
    from emotion.training.record import FinishedRun

CHEAP = ("experiment=smoke", "logger=none", "model.backbone=test_resnet", "interval=15")


@dataclass
class CheapCells:
    """Replaces the training of cells; `fails` and `ran` hold seeds, in their order."""

    fails: dict[int, BaseException] = field(default_factory=dict)
    ran: list[int] = field(default_factory=list)
    overrides: list[list[str]] = field(default_factory=list)

    def run_cell(self, cfg: Any, run_dir: Path, callbacks: Any) -> "FinishedRun":
        from hydra.core.hydra_config import HydraConfig

        from emotion.stacks.cache import Cache
        from emotion.training.cell import describe_cell
        from emotion.training.record import write_record

        overrides = list(HydraConfig.get().overrides.task)
        self.ran.append(cfg.seed)
        self.overrides.append(overrides)
        (run_dir / "best.ckpt").write_text("weights")
        if error := self.fails.get(cfg.seed):
            raise error
        # An accuracy with its maximum at a learning rate of 3e-4
        accuracy = 1 / (1 + abs(cfg.optimizer.lr - 3e-4))
        record = finished(
            describe_cell(cfg, HydraConfig.get()),
            Cache.from_config(cfg).manifest_sha256(),
            accuracy,
        )
        write_record(run_dir, record)
        return record


def finished(head: Any, manifest_sha256: str, val_accuracy: float) -> "FinishedRun":
    from emotion.evaluation.calibration import Calibration
    from emotion.provenance import provenance
    from emotion.training.record import FinishedRun, PretrainedWeights, Provenance, Throughput

    return FinishedRun(
        **dict(head), settings={}, notice=None, parts={}, stacks={}, clips={}, num_images=6,
        image_px=64, parameters=1, pretrained=PretrainedWeights(loaded=False, source="none"),
        epochs=1, best_epoch=1, seconds=1, val_accuracy=val_accuracy, reported_on="test", scores={},
        calibration=Calibration(temperature=1, unsure_below=0, accuracy=0.9,
                                threshold_set=False, splits={}),
        checkpoint="best.ckpt", files={}, cache="", manifest_sha256=manifest_sha256, dropped=(),
        throughput=Throughput(train_stacks_per_s=1, ms_per_stack=1),
        provenance=Provenance.model_validate(provenance(), from_attributes=True),
    )  # fmt: skip


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> CheapCells:
    """Replace the training of cells in this process."""
    import emotion.sweeps.job

    cells = CheapCells()
    monkeypatch.setattr(emotion.sweeps.job, "run_cell", cells.run_cell)
    return cells


@pytest.fixture
def sweep(
    demo_cache: "Cache", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Give a function that runs a sweep in this process, as sweep `s`, and returns its error."""
    from emotion.commands.train import train

    def run(*arguments: str) -> str:
        paths = [f"paths.output={tmp_path}", f"paths.cache={demo_cache.directory.parents[1]}"]
        monkeypatch.setattr("sys.argv", ["train.py", "-m", *CHEAP, "sweep=s", *paths, *arguments])
        try:
            train()
        except SystemExit as stopped:
            return str(stopped.code)
        return ""

    return run


@pytest.fixture
def start_sweep(demo_cache: "Cache", tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Give a function that starts a sweep in a process group of its own, as sweep `s`."""

    def start(*arguments: str, cwd: Path = REPOSITORY) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "train.py"), "-m", *CHEAP, "sweep=s",
             f"paths.output={tmp_path}", f"paths.cache={demo_cache.directory.parents[1]}",
             *arguments],
            cwd=cwd, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return start


def wait_for(folder: Path, pattern: str, process: subprocess.Popen, num: int = 1) -> None:
    """Wait until a folder holds `num` files of a glob pattern, while a process runs."""
    end_s = time.monotonic() + 400
    while len(list(folder.glob(pattern))) < num:
        assert time.monotonic() < end_s and process.poll() is None
        time.sleep(0.05)
