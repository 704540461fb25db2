"""The record of a run: a typed model of `metrics.json`, written and read only here."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, model_validator

from emotion.config import MAX_LABELS
from emotion.data.split import PartCounts
from emotion.errors import DamagedFile
from emotion.evaluation.calibration import Calibration
from emotion.evaluation.metrics import LevelScores
from emotion.evaluation.predictions import PREDICTIONS_FILE, REMEDY, Predictions
from emotion.files import file_digest, read_sealed, write_sealed
from emotion.provenance import Provenance
from emotion.stacks.build_report import LostClips

RECORD_FILE = "metrics.json"  # the last file that a run writes
VERSION: Final = 3  # of the record; counts up where a key changes its meaning

NonNegative = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    """A part of the record: immutable, with no keys but its own; built from equal attributes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, from_attributes=True, allow_inf_nan=False
    )


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
    # In the order of their indices
    labels: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_LABELS)]
    split: SplitSettings
    overrides: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # of the command line that choose the config: --config-dir, DIR

    @property
    def command(self) -> str:
        """The command that trains the model again."""
        overrides = [each for each in self.overrides if not each.startswith("paths.")]
        is_whole = "--config-name" in self.flags  # which names the data, too
        if not is_whole and not any(override.startswith("data=") for override in overrides):
            overrides.insert(0, f"data={self.data}")
        return command(*self.flags, *overrides)


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

    train_stacks_per_s: NonNegative | None
    ms_per_stack: NonNegative


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
    stacks: dict[str, NonNegativeInt]  # how many
    clips: dict[str, NonNegativeInt]  # how many
    num_images: NonNegativeInt
    image_px: NonNegativeInt
    parameters: NonNegativeInt  # how many are trainable
    pretrained: PretrainedWeights
    epochs: NonNegativeInt
    best_epoch: NonNegativeInt  # of the checkpoint, counted from 1
    seconds: NonNegative  # of training
    val_accuracy: Annotated[float, Field(ge=0, le=1)]  # of the best epoch, on stacks
    selected_on: str = "val"
    reported_on: str
    scores: dict[str, LevelScores]
    calibration: Calibration
    checkpoint: Annotated[str, Field(pattern=r"^[^/\\]+\.ckpt$")]  # never a path elsewhere
    files: dict[str, str]  # the SHA-256 of the run's other files, which cannot be of another run
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

    @model_validator(mode="after")
    def _is_scored(self) -> "FinishedRun":
        if self.scores and not {"val", self.reported_on} <= self.scores.keys():
            raise ValueError(f"scores must have val and {self.reported_on}")
        return self

    def check_files(self, folder: Path, *names: str) -> None:
        """Raise a DamagedFile unless these files of the run, or all, are those that it wrote."""
        for name in names or self.files:
            try:
                is_own = file_digest(folder / name) == self.files.get(name)
            except OSError:
                is_own = False
            if not is_own:
                raise DamagedFile(
                    f"{folder / name} is missing, damaged or of another run than {RECORD_FILE} "
                    f"beside it: {REMEDY}"
                )

    def raw_predictions(self, folder: Path) -> Predictions:
        """Read the uncalibrated predictions of the run's stacks from its folder."""
        self.check_files(folder, PREDICTIONS_FILE)
        return Predictions.read(folder / PREDICTIONS_FILE)

    def predictions(self, folder: Path) -> Predictions:
        """Read the calibrated predictions of the run's stacks from its folder."""
        return self.raw_predictions(folder).calibrated(self.calibration.temperature)


def command(*arguments: str, script: str = "train.py") -> str:
    """Format a call of a script, without the quotes that it adds itself: `interval='5'`."""
    plain = [re.sub(r"'(\d+)'", r"\1", argument) for argument in arguments]
    return shlex.join(["python", script, *plain])


def predict_command(run_dir: Path) -> str:
    """Return the command that predicts with a run."""
    return shlex.join(["python", "predict.py", f"model_path={run_dir}", "clips=CLIPS"])


RunRecord = FinishedRun | FailedRun

_ADAPTER: TypeAdapter[RunRecord] = TypeAdapter(Annotated[RunRecord, Field(discriminator="status")])


def write_record(folder: Path, record: RunRecord) -> None:
    """Write a run's record atomically: the last thing that a run does."""
    write_sealed(folder / RECORD_FILE, _ADAPTER, record)


def read_record(folder: Path) -> RunRecord | None:
    """Read a run's record; return None if there is none, raise a DamagedFile if it is damaged."""
    try:
        return read_sealed(folder / RECORD_FILE, _ADAPTER)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        raise DamagedFile(f"{error}; damaged, or not of version {VERSION}: {REMEDY}") from None
