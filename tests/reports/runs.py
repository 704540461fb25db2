"""Writes what finished and failed runs leave behind, without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion.evaluation.calibration import Calibration
from emotion.evaluation.predictions import Predictions, Sample
from emotion.files import file_digest
from emotion.models.titles import model_title
from emotion.provenance import Machine, Provenance
from emotion.sweeps.plan import Plan, PlannedCell, write_plan
from emotion.training.record import (
    FailedRun,
    FinishedRun,
    PretrainedWeights,
    RunHead,
    SplitSettings,
    Throughput,
    write_record,
)

LABELS = ("Anger", "Happy")
KFOLD = {"folds": 5, "seed": 0}
MACHINE = Machine(host="h", system="s", cpu="CPU", cores=2, torch_threads=1, gpu=None)


def predict(right: int, wrong: int, start: int = 0, stacks: int = 1, subject: str = ""):
    """Make predictions for `right` + `wrong` clips of alternating class, numbered from `start`."""
    numbers = [n for n in range(start, start + right + wrong) for _ in range(stacks)]
    targets = np.array([n % 2 for n in numbers])
    is_right = np.array([n - start < right for n in numbers])
    probabilities = np.where(is_right == (targets == 1), 0.75, 0.25)
    samples = [
        Sample("test", f"clip{n}", 1 + i % stacks, subject and f"{subject}{n}", LABELS[n % 2])
        for i, n in enumerate(numbers)
    ]
    both = np.stack([1 - probabilities, probabilities], axis=1).astype(np.float32)
    return Predictions(LABELS, samples, both)


def calibration(temperature: float = 1.0) -> Calibration:
    return Calibration(
        temperature=temperature,
        unsure_below=0.0,
        accuracy=0.9,
        threshold_set=False,
        splits={},
    )


def run_head(**changes: Any) -> dict[str, Any]:
    head = {"model": "net", "backbone": "resnet10t", "interval": 5, "seed": 0, "data": "demo"}
    head |= {"cell": "0123abcd", "labels": LABELS, "split": SplitSettings(name="data")} | changes
    return head | {"model_title": model_title(head["backbone"])}


def write_run(
    folder: Path, predictions: Predictions, more_files: Sequence[str] = (), **changes: Any
) -> FinishedRun:
    """Write the record and predictions of a finished run, whose other files are there."""
    folder.mkdir(parents=True, exist_ok=bool(more_files))
    predictions.write(folder / "predictions.csv")
    made = Provenance(commit="0123abc", dirty=False, versions={"torch": "2"}, machine=MACHINE)
    fields = {
        "settings": {}, "notice": "synthetic <faces>", "parts": {}, "num_images": 18,
        "stacks": {"train": 8, "val": 4, "test": 10}, "clips": {}, "image_px": 224,
        "parameters": 3_468_709, "epochs": 12, "best_epoch": 9, "seconds": 95.0,
        "pretrained": PretrainedWeights(loaded=False, source="random weights"),
        "val_accuracy": 0.5, "reported_on": "test", "scores": {}, "calibration": calibration(),
        "files": {n: file_digest(folder / n) for n in ("predictions.csv", *more_files)},
        "checkpoint": "best.ckpt", "cache": str(folder.parent / "cache"), "manifest_sha256": "",
        "dropped": (), "provenance": made,
        "throughput": Throughput(train_stacks_per_s=31.5, ms_per_stack=14.2),
    }  # fmt: skip
    fields["parts"] = {
        split: {"stacks": {}, "clips": {}, "subjects": ()} for split in ("train", "val", "test")
    }
    head_keys = set(RunHead.model_fields)
    head = run_head(**{key: value for key, value in changes.items() if key in head_keys})
    record = FinishedRun(**fields | head | changes)
    write_record(folder, record)
    return record


def fail_run(folder: Path, error: str = "oom", **changes: Any) -> None:
    """Write the record of a failed run."""
    folder.mkdir(parents=True)
    write_record(folder, FailedRun(**run_head(**changes), error=error))


def plan(folder: Path, command: str = "python train.py -m", **cells: dict[str, Any]) -> None:
    """Write the plan of a sweep: folder -> changes of its head."""
    planned = [
        PlannedCell(**run_head(**changes), folder=name, to_run=True, work=1.0)
        for name, changes in cells.items()
    ]
    write_plan(folder, Plan(command=command, cells=planned))
