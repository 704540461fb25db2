"""The record of a run: a typed model of `metrics.json`, written and read only here."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from emotion.data.split import PartCounts
from emotion.errors import UserError, first_problem
from emotion.evaluation.calibration import Calibration
from emotion.evaluation.metrics import LevelScores
from emotion.evaluation.predictions import PREDICTIONS_FILE, Predictions
from emotion.files import unfinished
from emotion.provenance import Provenance
from emotion.stacks.build_report import LostClips

RECORD_FILE = "metrics.json"  # the last file that a run writes
VERSION = 3  # of the record; counts up where a key changes its meaning


class Part(BaseModel):
    """A part of the record: immutable, with no keys but its own; built from equal attributes."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class SplitSettings(Part):
    """Which split a run used."""

    name: str
    fold: int | None = None  # of a split with folds
    settings: dict[str, Any] = {}  # all others


class RunHead(Part):
    """What is known of a run before it starts."""

    version: Literal[3] = VERSION
    cell: str  # the id of its config, see cell_id
    model: str  # name of the model's config file
    backbone: str | None  # the timm name
    model_title: str
    interval: int  # frames from one image of a stack to the next
    seed: int
    data: str
    labels: tuple[str, ...]  # in the order of their indices
    split: SplitSettings
    overrides: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command that trains the model again."""
        overrides = [each for each in self.overrides if not each.startswith("paths.")]
        if not any(override.startswith("data=") for override in overrides):
            overrides.insert(0, f"data={self.data}")
        return command(*overrides)


class FailedRun(RunHead):
    """A run that stopped with an error."""

    status: Literal["failed"] = "failed"
    error: str


class PretrainedWeights(Part):
    """Whether the weights are pretrained, and their source (or why they are random)."""

    loaded: bool
    source: str


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
    """A run that trained to its end and was evaluated; the keys of mappings are splits."""

    status: Literal["finished"] = "finished"
    settings: dict[str, Any]  # the sections of the config that results depend on
    notice: str | None  # what a reader must know of the data set
    parts: dict[str, PartCounts]
    stacks: dict[str, int]  # how many
    clips: dict[str, int]  # how many
    num_images: int
    image_px: int
    parameters: int  # how many are trainable
    pretrained: PretrainedWeights
    epochs: int
    best_epoch: int  # of the checkpoint, counted from 1
    seconds: float  # of training
    val_accuracy: float  # of the best epoch, on stacks
    selected_on: str = "val"
    reported_on: str
    scores: dict[str, LevelScores]
    calibration: Calibration
    checkpoint: Annotated[str, Field(pattern=r"^[^/\\]+\.ckpt$")]  # never a path elsewhere
    cache: str  # the folder of the stacks
    manifest_sha256: str
    dropped: tuple[LostClips, ...]
    throughput: Throughput
    provenance: Provenance
    wandb: WandbRun | None = None

    @property
    def reported(self) -> LevelScores:
        """The scores of the split that is reported on."""
        return self.scores[self.reported_on]

    def predictions(self, folder: Path) -> Predictions:
        """Read the calibrated predictions of the run's stacks from its folder."""
        raw = Predictions.read(folder / PREDICTIONS_FILE)
        return raw.calibrated(self.calibration.temperature)


def command(*arguments: str) -> str:
    """Format a call of train.py, without the quotes that it adds itself: `interval='5'`."""
    plain = [re.sub(r"'(\d+)'", r"\1", argument) for argument in arguments]
    return shlex.join(["python", "train.py", *plain])


RunRecord = FinishedRun | FailedRun

_ADAPTER: TypeAdapter[RunRecord] = TypeAdapter(Annotated[RunRecord, Field(discriminator="status")])


def write_record(folder: Path, record: RunRecord) -> None:
    """Write a run's record atomically: the last thing that a run does."""
    with unfinished(folder / RECORD_FILE) as temporary:
        temporary.write_text(record.model_dump_json(indent=2), encoding="utf-8")


def read_record(folder: Path) -> RunRecord | None:
    """Read a run's record; return None if the folder holds none."""
    path = folder / RECORD_FILE
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        problem = error.strerror if isinstance(error, OSError) else first_problem(error)
        raise UserError(
            f"{path}: {problem}; it is damaged or of another version than {VERSION}: run it "
            "again, or move its folder away"
        ) from None
