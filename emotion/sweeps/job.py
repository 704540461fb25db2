"""One job of a sweep: what happens around the run of its cell."""

import gc
import logging
import multiprocessing
import os
import signal
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from emotion.cli import one_line
from emotion.errors import is_machine_fault
from emotion.files import claimed, holder
from emotion.stopping import end_with, is_stopped
from emotion.sweeps.estimate import SweepEstimate
from emotion.training.cell import ERROR_FILE, LOCK, clear, describe_cell, why_run
from emotion.training.checkpoint import LAST
from emotion.training.record import FailedRun, FinishedRun, RunRecord, read_record, write_record
from emotion.training.run import run_cell

log = logging.getLogger(__name__)


def run_job(cfg: DictConfig) -> float | None:
    """Run the cell of a job unless it is finished; return `val_accuracy`, None if it failed.

    If another process runs the cell, a job of an earlier start for example, wait for it.
    """
    if is_stopped():  # although something has swallowed the exception
        raise KeyboardInterrupt
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if multiprocessing.get_start_method() == "loky":  # a joblib worker; cannot start more of them
        multiprocessing.set_start_method(None, force=True)  # the platform's method, for loaders
        end_with(multiprocessing.parent_process().pid)
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # in a worker: Lightning would ignore it
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    if process := holder(run_dir / LOCK):
        log.info("cell %s is in use by %s: waiting for it", run_dir.name, process)
    with claimed(run_dir / LOCK, f"cell {run_dir.name}", wait=True):
        why = why_run(cfg, run_dir)
        record = read_record(run_dir) if why is None else run_or_fail(cfg, run_dir, why)
    return record.val_accuracy if isinstance(record, FinishedRun) else None


def run_or_fail(cfg: DictConfig, run_dir: Path, why: str) -> RunRecord | None:
    """Run a cell for a reason of `why_run`; record an exception, but do not catch signals."""
    resumes = cfg.ckpt_path == "last" and why != "made from other stacks"
    try:
        clear(run_dir, but_for_training=resumes and (run_dir / LAST).is_file())
        return run_cell(cfg, run_dir, SweepEstimate.of_job(cfg, run_dir))
    except Exception as error:
        if is_machine_fault(error):  # it would meet every cell
            raise
        log.error("cell %s failed: %s", run_dir.name, one_line(error))
        (run_dir / ERROR_FILE).write_text(traceback.format_exc(), encoding="utf-8")
        head = describe_cell(cfg, HydraConfig.get())
        failed = FailedRun(**dict(head), error=f"{type(error).__name__}: {one_line(error)}")
        write_record(run_dir, failed)
        return failed
    finally:
        gc.collect()  # Lightning's objects form cycles: free this cell's memory before the next
