"""The record of a run: a typed model of `metrics.json`, written and read only here."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from emotion.errors import UserError
from emotion.evaluation.calibration import Calibration
from emotion.evaluation.metrics import LevelScores
from emotion.evaluation.predictions import PREDICTIONS_FILE, Predictions
from emotion.files import unfinished
from emotion.provenance import Provenance

RECORD_FILE = "metrics.json"  # the last file that a run writes
VERSION = 2  # of the record; counts up where a key changes its meaning


class Part(BaseModel):
    """A part of the record: immutable, with no keys but its own; built from equal attributes."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class SplitSettings(Part):
    """Which split a run used.

    Attributes:
        name: the split's name.
        fold: its fold; None for a split without folds.
        settings: all its other settings.
    """

    name: str
    fold: int | None = None
    settings: dict[str, Any] = {}


class RunHead(Part):
    """What is known of a run before it starts.

    Attributes:
        version: of the record's format.
        cell: the id of its config, 8 hexadecimal digits.
        model: name of the model's config file.
        backbone: the timm name; None for a model without a backbone.
        model_title: the model's name for people; it follows the backbone.
        interval: frames from one image of a stack to the next.
        seed: the run's seed.
        data: name of the data set.
        labels: the classes, in the order of their indices.
        split: which split it used.
        overrides: the command line's overrides.
    """

    version: Literal[2] = VERSION
    cell: str
    model: str
    backbone: str | None
    model_title: str
    interval: int
    seed: int
    data: str
    labels: tuple[str, ...]
    split: SplitSettings
    overrides: tuple[str, ...] = ()


class FailedRun(RunHead):
    """A run that stopped with an error."""

    status: Literal["failed"] = "failed"
    error: str


class SplitPart(Part):
    """Who and what is in one part of a split: counts by class, and the known subjects."""

    stacks: dict[str, int]
    clips: dict[str, int]
    subjects: tuple[str, ...]


class PretrainedWeights(Part):
    """Whether the weights are pretrained, and their source (or why they are random)."""

    loaded: bool
    source: str


class DroppedCount(Part):
    """How many whole clips, and how many segments of other clips, one reason dropped."""

    reason: str
    clips: int
    segments: int


class Throughput(Part):
    """Stacks per second in training, and milliseconds per stack of inference (a median)."""

    train_stacks_per_s: float | None
    ms_per_stack: float


class WandbRun(Part):
    """Where a run is in W&B."""

    entity: str | None = None
    project: str
    group: str | None = None
    id: str
    url: str | None = None
    mode: str


class FinishedRun(RunHead):
    """A run that trained to its end and was evaluated.

    Attributes:
        settings: the sections of the config that results depend on.
        notice: what a reader must know of the data set.
        parts: split -> who and what is in it.
        stacks: split -> number of stacks.
        clips: split -> number of clips.
        num_images: T.
        image_px: height and width of the images.
        parameters: number of trainable parameters.
        pretrained: where the weights came from.
        epochs: number of epochs trained.
        best_epoch: the epoch of the checkpoint, counted from 1.
        seconds: of training.
        val_accuracy: of the best epoch, on validation stacks.
        selected_on: split that selected the epoch.
        reported_on: split of the reported scores.
        scores: split -> scores.
        calibration: the calibration.
        checkpoint: the checkpoint's file name in the run's folder.
        cache: the folder of the stacks.
        manifest_sha256: hash of the manifest.
        dropped: what made no stack.
        memory_mb: `resident` at the end, and `peak`.
        throughput: how fast the model is.
        provenance: code, packages, machine.
        wandb: the W&B run, if there was one.
    """

    status: Literal["finished"] = "finished"
    settings: dict[str, Any]
    notice: str | None
    parts: dict[str, SplitPart]
    stacks: dict[str, int]
    clips: dict[str, int]
    num_images: int
    image_px: int
    parameters: int
    pretrained: PretrainedWeights
    epochs: int
    best_epoch: int
    seconds: float
    val_accuracy: float
    selected_on: str = "val"
    reported_on: str
    scores: dict[str, LevelScores]
    calibration: Calibration
    checkpoint: Annotated[str, Field(pattern=r"^[^/\\]+\.ckpt$")]  # never a path elsewhere
    cache: str
    manifest_sha256: str
    dropped: tuple[DroppedCount, ...]
    memory_mb: dict[str, int]
    throughput: Throughput
    provenance: Provenance
    wandb: WandbRun | None = None

    @property
    def reported(self) -> LevelScores:
        """The scores of the split that is reported on."""
        return self.scores[self.reported_on]

    def predictions(self, folder: Path) -> Predictions:
        """Read the calibrated predictions of the run's stacks from its folder.

        Raises:
            UserError: the file is missing or damaged.
        """
        raw = Predictions.read(folder / PREDICTIONS_FILE)
        return raw.calibrated(self.calibration.temperature)


RunRecord = FinishedRun | FailedRun

_ADAPTER: TypeAdapter[RunRecord] = TypeAdapter(
    Annotated[FinishedRun | FailedRun, Field(discriminator="status")]
)


def write_record(folder: Path, record: RunRecord) -> None:
    """Write a run's record atomically: the last thing that a run does."""
    with unfinished(folder / RECORD_FILE) as temporary:
        temporary.write_text(record.model_dump_json(indent=2), encoding="utf-8")


def read_record(folder: Path) -> RunRecord | None:
    """Read a run's record; return None if the folder holds none.

    Raises:
        UserError: the record is damaged, or of another version.
    """
    path = folder / RECORD_FILE
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: {key or 'the file'}: {first['msg']} (record version {VERSION}); "
            "it is damaged or of another version: run it again, or move its folder away"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
