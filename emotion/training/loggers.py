"""Loggers of a run: Weights & Biases, which never prompts for a login, and CSV.

A run that resumes in its own folder continues its W&B run. The runs of a sweep share one W&B
folder, so that `wandb leet` compares them. A sweep has a W&B run of its own, for its table.
"""

import hashlib
import json
import logging
import math
import netrc
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import wandb
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader

from emotion import REPOSITORY
from emotion.data.dataset import StackDataset
from emotion.evaluation.predictions import Predictions
from emotion.stacks.contact_sheet import strip
from emotion.tables import read_table, write_table
from emotion.training.cell import CURVES_FILE
from emotion.training.record import FinishedRun, WandbRun

SWEEP_RUN = "wandb/sweep"  # not among the cells: `wandb leet` opens the newest run of a folder

log = logging.getLogger(__name__)


def wandb_mode() -> str:
    """Return W&B's mode: `WANDB_MODE` if set, else online with a key or login, else offline."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        has_login = netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):  # missing, or not readable for W&B either
        has_login = False
    default = "online" if os.environ.get("WANDB_API_KEY") or has_login else "offline"
    return os.environ.get("WANDB_MODE") or default


def init_settings() -> dict[str, Any]:
    """Return the arguments of `wandb.init` that all our W&B runs have."""
    mode = wandb_mode()
    settings = wandb.Settings(silent=True, git_root=str(REPOSITORY))
    return {"mode": mode, "resume": None if mode == "offline" else "allow", "settings": settings}


class Wandb(WandbLogger):
    """Lightning's W&B logger, offline without a key, with one W&B run for each of our runs.

    A step of W&B is an epoch, counted from 1. Tables go to the summary: numbers of the history,
    such as a table's count of rows, would become charts.
    """

    def __init__(
        self, save_dir: str, *, gallery: int, mistakes: int, log_model: bool, **settings: Any
    ) -> None:
        self.resumes = False
        self.gallery, self.mistakes = gallery, mistakes
        self.keeps_model = log_model  # not Lightning's log_model, which keeps last.ckpt as well
        super().__init__(save_dir=save_dir, **init_settings(), **settings)
        self.mode = self._wandb_init["mode"]
        self._wandb_init.pop("anonymous")  # Lightning passes it on, W&B warns of it

    def start(self, run_dir: Path, cell: str, *, resumes: bool) -> None:
        """Start the W&B run, or continue the one of this folder if training resumes in it.

        The ids of a cell's runs begin with its id. A cell that starts again replaces its W&B run.
        """
        folder = Path(self._save_dir) / "wandb"
        parts = parts_of_runs(folder)
        if run_dir.resolve() != folder.resolve().parent:  # that of a sweep
            parts = [(part, run_id) for part, run_id in parts if run_id.startswith(f"{cell}-")]
        self.resumes = resumes and bool(parts)
        if self.resumes:
            _, self._id = parts[-1]
        else:
            for part, _ in parts:
                shutil.rmtree(part)
            self._id = f"{cell}-{secrets.token_hex(2)}"
        self._wandb_init["id"] = self._id
        # not by Lightning, which makes batches, another key of each row, the x-axis of all charts
        self._experiment = wandb.init(**self._wandb_init)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of their epoch, which W&B writes when the next one begins.

        Values without an epoch, of a callback that has been added, join the last one.
        """
        values = dict(metrics)
        epoch = values.pop("epoch", None)
        self.experiment.log(values, step=None if epoch is None else int(epoch) + 1, commit=False)

    @property
    def place(self) -> WandbRun:
        """Where the run is in W&B."""
        run = self.experiment
        return WandbRun(
            mode=self.mode,
            entity=self._wandb_init.get("entity"),
            project=self._project,
            group=self._wandb_init.get("group"),
            id=run.id,
            url=run.url if self.mode == "online" else None,
        )

    def show_stacks(self, loader: DataLoader) -> None:
        """Log augmented train stacks of each class, as the first epoch sees them."""
        if self.resumes:
            return
        dataset: StackDataset = loader.dataset
        shown: dict[str, list[wandb.Image]] = {label: [] for label in dataset.labels}
        for index, seed in loader.sampler:
            row = dataset.rows[index]
            if len(shown[row.label]) < self.gallery:
                caption = f"{row.label}: {row.clip}, segment {row.segment}"
                images = strip(dataset.images((index, seed)).numpy())
                shown[row.label].append(wandb.Image(images, caption=caption))
        if any(shown.values()):
            self.experiment.log({"train/stacks": list(chain(*shown.values()))}, step=0)

    def show_result(
        self, record: FinishedRun, predictions: Predictions, dataset: StackDataset, checkpoint: Path
    ) -> None:
        """Log scores, confusion matrix, mistakes and throughput.

        `predictions` are calibrated, of the stacks of the reported split; `dataset` has the same
        stacks in the same order.
        """
        split, scores = record.reported_on, record.reported.stacks
        labels = list(predictions.labels)
        counts = np.sum(scores.confusion, axis=1).tolist()
        by_class = zip(labels, counts, scores.precision, scores.recall, scores.f1, strict=True)
        columns = ["class", "stacks", "precision", "recall", "F1"]
        confusion = wandb.plot.confusion_matrix(
            y_true=predictions.targets.tolist(),
            preds=predictions.predicted.tolist(),
            class_names=labels,
            title=f"{split}: true and predicted",
        )
        confusion.set_key(f"{split}/confusion")
        # as `log` does, which would also add the size of the chart's table to the history
        self.experiment._config_callback(confusion.spec.config_key, confusion.spec.config_value)
        tables = {
            f"{split}/classes": wandb.Table(columns, [list(row) for row in by_class]),
            confusion.spec.table_key: confusion.table,
        }
        if self.mistakes:
            tables[f"{split}/mistakes"] = self._mistakes(predictions, dataset)
        with tables_kept_by(self.experiment):
            self.experiment.summary.update(tables)
        summary = record.throughput.model_dump()
        summary |= {f"{split}/{s}": getattr(scores, s) for s in ("accuracy", "uar", "macro_f1")}
        summary |= {key: getattr(record, key) for key in ("parameters", "best_epoch", "seconds")}
        self.experiment.summary.update(summary)
        if self.keeps_model:
            metadata = {f"{split}/accuracy": scores.accuracy, "epoch": record.best_epoch}
            artifact = wandb.Artifact(f"model-{self.experiment.id}", "model", metadata=metadata)
            # immutable: uploaded from its place, because the best checkpoint changes no more
            artifact.add_file(str(checkpoint), policy="immutable")
            self.experiment.log_artifact(artifact, aliases=["best"])

    def _mistakes(self, predictions: Predictions, dataset: StackDataset) -> wandb.Table:
        """Make a table of the mistakes of highest confidence, with their images."""
        top, predicted = predictions.probabilities.max(axis=1), predictions.predicted
        wrong = np.flatnonzero(predicted != predictions.targets)
        wrong = wrong[np.argsort(-top[wrong], kind="stable")][: self.mistakes]
        table = wandb.Table(
            ["images", "clip", "segment", "true", "predicted", "confidence", "p(true)"]
        )
        for index in wrong.tolist():
            sample, true = predictions.samples[index], predictions.targets[index]
            images = wandb.Image(strip(dataset.images((index, 0)).numpy()))
            table.add_data(
                *(images, sample.clip, sample.segment),
                *(sample.label, predictions.labels[predicted[index]]),
                *(float(top[index]), float(predictions.probabilities[index, true])),
            )
        return table

    def finish(self) -> None:
        """End the W&B run, so that the next run in this process starts its own."""
        run_id, directory = self.experiment.id, Path(self.experiment.dir).parent
        if self.mode == "online":
            log.info("W&B run: %s", self.experiment.url)
        self.experiment.finish()
        if self.mode == "offline":
            parts = [str(of) for of, its in parts_of_runs(directory.parent) if its == run_id]
            command = shlex.join(["wandb", "sync", parts[0]])  # replaces an earlier upload
            if len(parts) > 1:
                command += " && " + shlex.join(["wandb", "sync", "--append", *parts[1:]])
            log.info("W&B run is offline; upload it with: %s", command)


class Curves(CSVLogger):
    """Lightning's CSV logger, which keeps the curves of a run that is resumed."""

    rows: Sequence[dict[str, float]] = ()  # that have been written

    def go_on(self, run_dir: Path, last_epoch: int) -> None:
        """Take over the rows of epochs up to `last_epoch`, counted from 0; call this first."""
        try:
            table = read_table(run_dir / CURVES_FILE)
            rows = [{k: json.loads(v) for k, v in row.items() if v} for row in table]
            # `experiment` removes the file in this run's own folder, so it is read before
            self.rows = [row for row in rows if row.get("epoch", math.inf) <= last_epoch]
        except FileNotFoundError:
            return
        except (ValueError, TypeError) as error:
            log.warning("WARNING: the curves start with epoch %d: %s", last_epoch + 2, error)
        self.save()

    def save(self) -> None:
        """Write all rows atomically; Lightning appends, which may leave half a row."""
        self.rows = [*self.rows, *self.experiment.metrics]
        self.experiment.metrics = []
        columns = sorted({key for row in self.rows for key in row})
        write_table(Path(self.log_dir) / "metrics.csv", columns, self.rows)


def parts_of_runs(folder: Path) -> list[tuple[Path, str]]:
    """List the folders of W&B runs below a folder `wandb`, oldest first, with their run ids."""
    files = folder.glob("*run-*/run-*.wandb")  # [offline-]run-TIME-ID/run-ID.wandb
    parts = [(file.parent, file.stem.removeprefix("run-")) for file in files]
    return sorted(parts, key=lambda part: part[0].name.removeprefix("offline-"))


@contextmanager
def tables_kept_by(run: wandb.Run) -> Iterator[None]:
    """Store logged tables in the run's folder until they are uploaded, unless the user names one.

    W&B's default is the home folder, where a run that is moved elsewhere loses them.
    """
    is_set = "WANDB_DATA_DIR" in os.environ
    os.environ.setdefault("WANDB_DATA_DIR", str(Path(run.dir).parent))
    try:
        yield
    finally:
        if not is_set:
            del os.environ["WANDB_DATA_DIR"]


def log_sweep(
    sweep_dir: Path,
    place: WandbRun,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    confusion: Path,
) -> None:
    """Log the results table and the picture of confusion matrices of a sweep as one W&B run.

    A repeated report replaces it. `place` is that of one of the sweep's runs.
    """
    name = f"{place.project} {sweep_dir.absolute()}"  # a repeated report has the same id
    run_id = "sweep" + hashlib.sha256(name.encode()).hexdigest()[:8]
    folder = sweep_dir / SWEEP_RUN
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = wandb.init(
        **place.model_dump(include={"entity", "project", "group"}),
        **init_settings(),
        id=run_id,
        name=f"sweep {sweep_dir.name}",
        job_type="sweep",
        tags=["sweep"],
        dir=str(folder),
    )
    run.log({"confusion": wandb.Image(str(confusion))})
    with tables_kept_by(run):
        run.summary["results"] = wandb.Table(list(columns), [list(row) for row in rows])
    directory = Path(run.dir).parent
    run.finish()
    if wandb_mode() == "offline":
        log.info("compare the curves of the sweep's runs with: wandb leet %s", sweep_dir / "wandb")
        log.info("the sweep's W&B run is offline; upload it with: wandb sync %s", directory)


def finish_wandb() -> None:
    """End the W&B run of this process after an error, if there is one."""
    if wandb.run is not None:
        wandb.finish(exit_code=1)
