"""logger=tensorboard and logger=mlflow: their own readers find the curves of a run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from emotion.training.cell import foreign_files
from emotion.training.record import FinishedRun, read_record

pytestmark = pytest.mark.slow


def test_tensorboard_reads_the_curves(run_train: Callable[..., Path], tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_train("logger=tensorboard", "trainer=cpu", f"hydra.run.dir={tmp_path}/run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {"train/loss", "val/loss", "val/accuracy"} <= set(events.Tags()["scalars"])
    assert isinstance(read_record(tmp_path / "run"), FinishedRun)
    assert foreign_files(tmp_path / "run") == []


def test_mlflow_reads_the_curves(run_train: Callable[..., Path], tmp_path: Path):
    from mlflow.tracking import MlflowClient

    run_train("logger=mlflow", "trainer=cpu", f"hydra.run.dir={tmp_path}/run")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("emotion")
    (run,) = client.search_runs([experiment.experiment_id])
    assert {"train/loss", "val/loss", "val/accuracy"} <= set(run.data.metrics)
    assert run.info.status == "FINISHED" and foreign_files(tmp_path / "run") == []
