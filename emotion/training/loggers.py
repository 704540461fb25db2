"""Where a run's curves go: Weights & Biases, without ever asking for a login, and CSV.

Of a run, W&B gets the composed config and the git commit; stacks as training sees them; the curves;
and at the end scores, confusion matrix, mistakes with their images, and figures. Each goes there
once. A run that goes on after a kill in its own folder goes on in W&B too, under the id that W&B's
files there have. A sweep has one run more, with its results.
"""

import csv
import hashlib
import logging
import netrc
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import numpy as np
import wandb
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from torch.utils.data import DataLoader

from emotion import REPOSITORY
from emotion.data.dataset import StackDataset
from emotion.errors import UserError
from emotion.evaluation.predictions import Predictions
from emotion.stacks.contact_sheet import strip

CLASS_SCORES = ("precision", "recall", "f1")
ROWS_OF_A_PART = 1_000_000  # of its history; more than any part of a run logs

log = logging.getLogger(__name__)


def wandb_mode() -> str:
    """Decide how W&B runs: as `WANDB_MODE` says, else online where a key is, else offline."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    return "online" if os.environ.get("WANDB_API_KEY") or has_login() else "offline"


def has_login() -> bool:
    """Tell whether `wandb login` has left a key for the server in use."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):  # no such file, or not one that wandb could read
        return False


class Wandb(WandbLogger):
    """Lightning's W&B logger, offline where there is no key, and one W&B run for each of ours."""

    def __init__(
        self,
        save_dir: str,
        *,
        gallery: int = 3,
        mistakes: int = 20,
        log_model: bool = False,
        **settings: Any,
    ) -> None:
        """Start a run.

        Args:
            save_dir: W&B's files go to its subfolder `wandb`.
            gallery: how many train stacks of each class to show.
            mistakes: how many to show, those that the model is surest of.
            log_model: keep the best checkpoint as an artifact.
            **settings: as `WandbLogger` and `wandb.init` take them: project, group, name, tags.

        Raises:
            UserError: a value is of no use; names its key.
        """
        for key, value in (("gallery", gallery), ("mistakes", mistakes)):
            if value < 0:
                raise UserError(f"logger.wandb.{key}={value}: it is 0 (show none) or above")
        if not isinstance(log_model, bool):
            raise UserError(
                f"logger.wandb.log_model={log_model}: it is true (keep the best checkpoint as an "
                "artifact) or false"
            )
        self.goes_on = False
        self.gallery = gallery
        self.mistakes = mistakes
        self.keeps_model = log_model  # not Lightning's log_model, which keeps last.ckpt as well
        self.mode = wandb_mode()
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        super().__init__(
            save_dir=save_dir,
            mode=self.mode,
            resume=None if self.mode == "offline" else "allow",
            settings=wandb.Settings(silent=True, git_root=str(REPOSITORY)),
            **settings,
        )
        self._wandb_init.pop("anonymous")  # Lightning passes it on; W&B warns that it is gone

    def go_on(self, run_dir: Path) -> None:
        """Go on with the folder's last W&B run, if training does so there. Call it first of all.

        Offline, W&B writes the rest of a run to a folder of its own, which begins to count the
        history's rows anew; once uploaded, they would stand in the place of the first part's. So
        each part gets numbers of its own.

        Args:
            run_dir: folder of the run that training goes on from; another one's W&B run is left as
                it is.
        """
        parts = parts_of_runs(Path(self._save_dir) / "wandb")
        if run_dir.resolve() != Path(self._save_dir).resolve() or not parts:
            return
        self.goes_on = True
        _, self._id = parts[-1]
        self._wandb_init["id"] = self._id
        if self.mode == "offline":
            num_before = sum(run_id == self._id for _, run_id in parts)
            self.experiment.log({}, step=num_before * ROWS_OF_A_PART)

    @property
    def place(self) -> dict[str, str | None]:
        """Where the run is found: `mode`, `project`, `group`, `id`, and its `url` if online."""
        run = self.experiment
        return {
            "mode": self.mode,
            "entity": self._wandb_init.get("entity"),
            "project": self._project,
            "group": self._wandb_init.get("group"),
            "id": run.id,
            "url": run.url if self.mode == "online" else None,
        }

    def show_stacks(self, loader: DataLoader) -> None:
        """Show train stacks of each class, as the first epoch varies them; a run does so once.

        Args:
            loader: of a `StackDataset`, with its `SeededSampler`.
        """
        if self.goes_on:
            return
        dataset: StackDataset = loader.dataset
        shown: dict[str, list[wandb.Image]] = {label: [] for label in dataset.labels}
        for index, seed in loader.sampler:
            row = dataset.rows[index]
            if len(shown[row.label]) < self.gallery:
                caption = f"{row.label}: {row.clip}, segment {row.segment}"
                shown[row.label].append(stack_image(dataset, (index, seed), caption))
        images = [image for of_class in shown.values() for image in of_class]
        if images:
            self.experiment.log({"train/stacks": images})

    def show_result(
        self,
        result: Mapping[str, Any],
        predictions: Predictions,
        dataset: StackDataset,
        checkpoint: Path,
    ) -> None:
        """Show what came out: scores, confusion matrix, mistakes, figures.

        Args:
            result: what `metrics.json` tells of the run.
            predictions: for the stacks that it reports on.
            dataset: of these stacks, in the same order.
            checkpoint: the best one.
        """
        split = result["reported_on"]
        scores = result["scores"][split]["stacks"]
        labels = predictions.labels
        said = predictions.probabilities.argmax(axis=1)
        classes = wandb.Table(
            ["class", "stacks", "precision", "recall", "F1"],
            [
                [label, sum(scores["confusion"][i]), *(scores[score][i] for score in CLASS_SCORES)]
                for i, label in enumerate(labels)
            ],
        )
        shown = {
            f"{split}/classes": classes,
            f"{split}/confusion": wandb.plot.confusion_matrix(
                y_true=predictions.targets.tolist(),
                preds=said.tolist(),
                class_names=labels,
                title=f"{split}: true and predicted",
            ),
        }
        if self.mistakes:
            shown[f"{split}/mistakes"] = self._mistakes(predictions, said, dataset)
        with tables_kept_by(self.experiment):
            self.experiment.log(shown)
        self.experiment.summary.update(
            {
                **{f"{split}/{score}": scores[score] for score in ("accuracy", "uar", "macro_f1")},
                **{key: result[key] for key in ("parameters", "best_epoch", "seconds")},
                **result["throughput"],
            }
        )
        if self.keeps_model:
            score = {f"{split}/accuracy": scores["accuracy"], "epoch": result["best_epoch"]}
            artifact = wandb.Artifact(f"model-{self.experiment.id}", "model", metadata=score)
            # immutable: uploaded from where it lies, for a run's best checkpoint changes no more
            artifact.add_file(str(checkpoint), policy="immutable")
            self.experiment.log_artifact(artifact, aliases=["best"])

    def _mistakes(
        self, predictions: Predictions, said: np.ndarray, dataset: StackDataset
    ) -> wandb.Table:
        """List the mistakes that the model is surest of, with their images."""
        sure = predictions.probabilities.max(axis=1)
        wrong = np.flatnonzero(said != predictions.targets)
        wrong = wrong[np.argsort(-sure[wrong], kind="stable")][: self.mistakes]
        table = wandb.Table(["images", "clip", "segment", "true", "predicted", "sure", "p(true)"])
        for index in wrong.tolist():
            true, probabilities = predictions.targets[index], predictions.probabilities[index]
            table.add_data(
                stack_image(dataset, (index, 0)),
                predictions.clips[index],
                predictions.segments[index],
                predictions.labels[true],
                predictions.labels[said[index]],
                float(sure[index]),
                float(probabilities[true]),
            )
        return table

    def finish(self) -> None:
        """End the run, so that the next one in this process is one of its own."""
        run_id, directory = self.experiment.id, Path(self.experiment.dir).parent
        if self.mode == "online":
            log.info("W&B run: %s", self.experiment.url)
        self.experiment.finish()
        if self.mode == "offline":
            parts = [str(of) for of, its in parts_of_runs(directory.parent) if its == run_id]
            command = shlex.join(["wandb", "sync", parts[0]])  # replaces what is there
            if len(parts) > 1:
                command += " && " + shlex.join(["wandb", "sync", "--append", *parts[1:]])
            log.info("W&B run is offline; upload it with: %s", command)


class Curves(CSVLogger):
    """Lightning's CSV logger, which goes on with the curves that a run had before a kill."""

    def go_on(self, run_dir: Path, last_epoch: int) -> None:
        """Take over the rows of the epochs that need not be trained again. Call it first of all.

        Args:
            run_dir: folder of the run that training goes on from; may be this one's.
            last_epoch: the last of these epochs, counted from 0.
        """
        path = run_dir / self.name / str(self.version) / "metrics.csv"
        rows = []
        if path.is_file():
            with open(path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["epoch"]]
        kept = [row for row in rows if int(row["epoch"]) <= last_epoch]
        # `experiment` removes what stands in this run's own folder
        self.experiment.metrics += [{k: v for k, v in row.items() if v} for row in kept]
        self.save()


def parts_of_runs(folder: Path) -> list[tuple[Path, str]]:
    """List W&B's folders of runs, one for each start of a run.

    Args:
        folder: the folder `wandb` that they lie in.

    Returns:
        Each with the id of its W&B run, in the order in which they were started.
    """
    files = folder.glob("*run-*/run-*.wandb")  # [offline-]run-TIME-ID/run-ID.wandb
    parts = [(file.parent, file.stem.removeprefix("run-")) for file in files]
    return sorted(parts, key=lambda part: part[0].name.removeprefix("offline-"))


@contextmanager
def tables_kept_by(run: wandb.Run) -> Iterator[None]:
    """Keep tables that are logged, and their images, in the run's folder until they are uploaded.

    W&B would put them into the home folder, where a run that is carried elsewhere loses them.
    """
    folder = {"WANDB_DATA_DIR": str(Path(run.dir).parent)}
    with mock.patch.dict(os.environ, folder | dict(os.environ)):  # who has set it, has a reason
        yield


def stack_image(
    dataset: StackDataset, key: tuple[int, int], caption: str | None = None
) -> wandb.Image:
    """Draw a stack of a data set, its images side by side; `key` as the data set takes it."""
    return wandb.Image(strip(dataset.images(key).numpy()), caption=caption)


def log_sweep(
    sweep_dir: Path,
    place: Mapping[str, str | None],
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    confusion: Path,
) -> None:
    """Give a sweep's results a W&B run of their own, one however often the sweep is reported.

    Args:
        sweep_dir: the sweep's folder.
        place: of one of its runs, see `Wandb.place`.
        columns: of the results table.
        rows: of the same.
        confusion: picture of all confusion matrices.
    """
    # of project and folder, so that a report made again goes to the same run
    name = f"{place['project']} {sweep_dir.absolute()}"
    run_id = "sweep" + hashlib.sha256(name.encode()).hexdigest()[:8]
    mode = wandb_mode()
    for earlier in sweep_dir.glob(f"wandb/offline-run-*-{run_id}"):
        shutil.rmtree(earlier)  # it was our own and is replaced
    run = wandb.init(
        project=place["project"],
        entity=place["entity"],
        group=place["group"],
        id=run_id,
        name=f"sweep {sweep_dir.name}",
        job_type="sweep",
        tags=["sweep"],
        dir=str(sweep_dir),
        mode=mode,
        resume=None if mode == "offline" else "allow",
        settings=wandb.Settings(silent=True, git_root=str(REPOSITORY)),
    )
    table = wandb.Table(list(columns), [list(row) for row in rows])
    with tables_kept_by(run):
        run.log({"results": table, "confusion": wandb.Image(str(confusion))})
    directory = Path(run.dir).parent
    run.finish()
    if mode == "offline":
        log.info("the sweep's W&B run is offline; upload it with: wandb sync %s", directory)


def finish_wandb() -> None:
    """End the W&B run of this process, if one was started and something went wrong since."""
    if wandb.run is not None:
        wandb.finish(exit_code=1)
