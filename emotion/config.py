"""The schema of `conf/`: types, ranges and choices of every key, checked before a script works.

The defaults stand in `conf/` alone. A key without a default here must be in every composed config.
Each class is a section; its comments, too, stand in `conf/`.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from omegaconf import DictConfig, OmegaConf
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    Tag,
    ValidationError,
)
from pydantic_core import CoreSchema, core_schema

from emotion.errors import UserError

MAX_LABELS = 100  # also of foreign records, whose charts would take hours
OUR_AUGMENTATION = "emotion.data.augmentation.Augmentation"
YAML_NAMES = {"None": "null", "True": "true", "False": "false"}
# Interpolations whose values are known only within a run, where they are texts
KNOWN_IN_A_RUN = re.compile(r"\$\{(hydra|cell_name|sweep_name|wandb_dir):[^{}]*\}")


@dataclass(frozen=True)
class Must:
    """Replaces pydantic's messages for a type by one: "must be" and what it must be."""

    be: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Wrap the schema of the annotated type."""
        return core_schema.custom_error_schema(
            handler(source), custom_error_type="must", custom_error_message=f"must be {self.be}"
        )


Count = Annotated[int, Field(gt=0), Must("a positive integer")]
Frames = Annotated[int, Field(gt=0, le=100_000), Must("an integer from 1 to 100000")]
CountOrNull = Annotated[Count | None, Must("a positive integer or null")]
Natural = Annotated[int, Field(ge=0), Must("an integer of at least 0")]
Seed = Annotated[int, Field(ge=0, lt=2**32), Must("an integer from 0 to 4294967295")]
Share = Annotated[float, Field(ge=0, le=1), Must("a number from 0 to 1")]
ShareOrNull = Annotated[Share | None, Must("a number from 0 to 1 or null")]
PositiveShare = Annotated[float, Field(gt=0, le=1), Must("a number above 0 and at most 1")]
ShareBelow1 = Annotated[float, Field(ge=0, lt=1), Must("a number from 0 to below 1")]
Positive = Annotated[float, Field(gt=0), Must("a positive number")]
PositiveOrNull = Annotated[Positive | None, Must("a positive number or null")]
NonNegative = Annotated[float, Field(ge=0), Must("a number of at least 0")]
NonNegativeOrNull = Annotated[NonNegative | None, Must("a number of at least 0 or null")]
Text = Annotated[str | int | float, Must("a text")]
TextOrNull = Annotated[Text | None, Must("a text or null")]
Texts = Annotated[list[Text], Must("a list of texts")]
Paths = Annotated[Text | list[Text] | None, Must("a path, a list of paths or null")]
Names = Annotated[list[str], Must('a list of names, numbers in quotes: ["03","17-20"]')]
Dropout = Annotated[list[ShareBelow1], Field(min_length=2, max_length=2)]
Labels = Annotated[
    list[str], Field(min_length=2, max_length=MAX_LABELS), Must("a list of 2 to 100 class names")
]
LabelMap = Annotated[
    dict[str, str | None], Must("a mapping from names (numbers in quotes) to class names or null")
]


class Section(BaseModel, extra="forbid", strict=True, allow_inf_nan=False):
    """A section of the config; its types are not converted, and it has no other keys."""


class Component(Section, extra="allow"):
    """A section that `_target_` makes an object of; other arguments of that class may be added."""

    target: str = Field(alias="_target_")


class DataSplitRule(Section):
    by: Text
    train: Names = []
    val: Names = []
    test: Names = []


class Render(Section):
    clips_per_class: Count
    seed: Seed


class Data(Section):
    name: Text
    kind: Literal["clips", "stills"]
    root: TextOrNull = None
    list_: TextOrNull = Field(None, alias="list")
    pattern: TextOrNull = None
    labels: Labels
    label_map: LabelMap
    min_frames: Count
    max_clips_per_class: CountOrNull
    notice: TextOrNull
    download_id: TextOrNull = None
    render: Render | None = None
    split: DataSplitRule | None

    def model_post_init(self, _: Any) -> None:
        if "/" in str(self.name):
            raise UserError(f"data.name must have no slash, it names a folder; got {self.name!r}")
        if len(set(self.labels)) < len(self.labels):
            raise UserError(f"data.labels must be distinct, got {self.labels}")


class Sampling(Section):
    segment_frames: Frames
    interval: Count
    by: Literal["frames", "time"]
    start: Literal["clip", "first_face"]
    min_face_fraction: Share


class FaceModel(Section):
    model: TextOrNull


class Face(FaceModel):
    tracking: Literal["every_frame", "sampled", "none"]
    follow: Literal["largest", "central"]
    margin: NonNegative
    align: bool
    fit: Literal["box", "features"]
    size_px: Count
    min_confidence: Share


class OutputPath(Section):
    output: Text


class DataPaths(OutputPath):
    cache: Text


class Executor(Component):
    num_workers: CountOrNull = None
    address: Text = ""
    timeout_s: Positive = 1


class Stacks(Section):
    data: Data
    sampling: Sampling
    face: Face
    paths: DataPaths
    num_workers: CountOrNull
    executor: Executor

    def model_post_init(self, _: Any) -> None:
        if self.data.min_frames > self.sampling.segment_frames:
            raise UserError(
                "data.min_frames must be at most sampling.segment_frames="
                f"{self.sampling.segment_frames}, got {self.data.min_frames}"
            )


class Preprocess(Stacks):
    dry_run: bool
    strict: bool
    verify: bool


class Discriminant(Section):
    components: Count
    shrinkage: PositiveShare


class Model(Section):
    name: Text
    backbone: TextOrNull
    inputs: Literal["stacks", "landmarks", "blendshapes", "face"]
    hidden: Count
    dropout: Annotated[Dropout, Must("a list of two numbers from 0 to below 1")]
    pretrained: Annotated[bool | Text, Must("auto, true, false or the path of a state dict")]
    channels_last: bool
    freeze_epochs: Natural
    fusion: Literal["early", "late"]
    normalize: Literal["range", "stack"]
    discriminant: Discriminant
    compile: bool
    stem: Literal["mean", "balanced"]

    def model_post_init(self, _: Any) -> None:
        if self.inputs == "stacks" and self.backbone is None:
            raise UserError(
                "model.backbone must be the name of a timm network, got null "
                "(model=landmarks, blendshapes and face have none)"
            )


class Loss(Section):
    class_weights: Literal["balanced", "root", None]
    label_smoothing: ShareBelow1
    mixup: NonNegative


class Augmentation(Section):
    """The arguments of `OUR_AUGMENTATION`."""

    target: str = Field(alias="_target_")
    strength: NonNegative
    flip: Share = 0
    rotation_deg: NonNegative = 0
    shift: NonNegative = 0
    scale_min: Positive = 1
    scale_max: Positive = 1
    blur: Share = 0
    blur_sigma_min: Positive = 0.1
    blur_sigma_max: Positive = 1
    erase: Share = 0
    erase_area_min: PositiveShare = 0.02
    erase_area_max: PositiveShare = 0.1
    erase_ratio: Annotated[float, Field(ge=1), Must("a number of at least 1")] = 3.3
    contrast: NonNegative = 0
    brightness: NonNegative = 0

    def model_post_init(self, _: Any) -> None:
        for name in ("scale", "blur_sigma", "erase_area"):
            least, most = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if least > most:
                raise UserError(
                    f"augmentation.{name}_min must be at most augmentation.{name}_max={most:g}, "
                    f"got {least:g}"
                )


class OwnAugmentation(Component):
    """A class of the user's own; its constructor checks the other arguments."""

    strength: NonNegative


def kind_of_augmentation(section: Any) -> str:
    """Tell our class, whose arguments are known here, from the user's own ones."""
    target = section.get("_target_") if isinstance(section, dict) else None
    return "ours" if target in (OUR_AUGMENTATION, None) else "own"


class Interval(Section):
    frames: Count


class DataSplit(Section):
    target: str = Field(alias="_target_")
    name: Literal["data"]


class IdSplit(DataSplit):
    name: Literal["ids"]
    by: Text
    val: Names
    test: Names


class GroupedSplit(DataSplit):
    name: Literal["grouped"]
    train: PositiveShare
    val: PositiveShare
    test: Share
    seed: Seed

    def model_post_init(self, _: Any) -> None:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise UserError(
                f"split.train, split.val and split.test must add up to 1, got {total:g}"
            )


class KFold(DataSplit):
    name: Literal["kfold"]
    folds: Annotated[int, Field(ge=3), Must("an integer of at least 3 (test, val, train)")]
    fold: Natural
    seed: Seed

    def model_post_init(self, _: Any) -> None:
        if self.fold >= self.folds:
            raise UserError(f"split.fold must be below split.folds={self.folds}, got {self.fold}")


class LeaveOneSubjectOut(DataSplit):
    name: Literal["leave_one_subject_out"]
    fold: Natural
    val_subjects: Count


class Optimizer(Section, extra="allow"):
    """An optimizer; other arguments of its class in `torch.optim` may be added."""

    name: str
    lr: Positive
    backbone_lr: NonNegativeOrNull
    weight_decay: NonNegative


class Exponential(Section):
    name: Literal["exponential"]
    lr_decay: Positive


class Warmup(Section):
    name: Literal["onecycle", "cosine"]
    warmup: ShareBelow1


class Loader(Section):
    batch_size: Count
    image_px: CountOrNull
    num_workers: Natural
    overfit: bool


class Calibration(Section):
    accuracy: ShareBelow1


class Trainer(Component):
    """The arguments of `pytorch_lightning.Trainer` that stand in `conf/trainer`."""

    max_epochs: Count
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
    devices: Annotated[
        int | str | list[int], Must("a number of devices, a list of their indices or auto")
    ]
    strategy: Annotated[str | Component, Must("the name of a strategy or a `_target_`")]
    precision: Literal[
        "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", 32, 16, 64
    ]
    accumulate_grad_batches: Count
    gradient_clip_val: PositiveOrNull
    deterministic: Literal[True, False, "warn"]
    num_sanity_val_steps: int
    log_every_n_steps: Natural
    enable_progress_bar: bool
    enable_model_summary: bool
    use_distributed_sampler: bool


class Ema(Component):
    decay: ShareBelow1


class EarlyStopping(Component):
    monitor: str
    mode: Literal["min", "max"]
    patience: Natural


class BestCheckpoint(Component):
    dirpath: Text
    filename: Text
    monitor: str
    mode: Literal["min", "max"]
    save_weights_only: bool


class Components(Section, extra="allow"):
    """A group of components by name; null switches one off, and others may be added."""

    __pydantic_extra__: dict[str, Component | None] = Field(init=False)


class Callbacks(Components):
    """The callbacks of the trainer; `best` selects the epoch, so it can't be null."""

    best: BestCheckpoint
    ema: Ema | None = None
    early_stopping: EarlyStopping | None = None


class Wandb(Component):
    project: Text
    name: TextOrNull
    group: TextOrNull
    tags: Texts
    gallery: Natural
    mistakes: Natural
    log_model: bool


class Logger(Components):
    wandb: Wandb | None = None


class Train(Stacks):
    sweep: Text
    seed: Seed
    ckpt_path: TextOrNull
    model: Model
    interval: Interval
    split: DataSplit | IdSplit | GroupedSplit | KFold | LeaveOneSubjectOut = Field(
        discriminator="name"
    )
    augmentation: Annotated[
        Annotated[Augmentation, Tag("ours")] | Annotated[OwnAugmentation, Tag("own")],
        Discriminator(kind_of_augmentation),
    ]
    loss: Loss
    optimizer: Optimizer
    schedule: Exponential | Warmup = Field(discriminator="name")
    loader: Loader
    calibration: Calibration
    trainer: Trainer
    callbacks: Callbacks
    logger: Logger


class Predict(Section):
    model_path: Text
    clips: Paths
    source: TextOrNull
    person: TextOrNull
    learn: bool
    render: bool
    stride: Count
    min_frames: CountOrNull
    unsure_below: ShareOrNull
    strict: bool
    num_workers: CountOrNull
    realtime: bool
    window: bool
    face: FaceModel
    paths: OutputPath

    def model_post_init(self, _: Any) -> None:
        if (self.clips is None) == (self.source is None):
            raise UserError("clips=PATH or source=0 (a camera) must be set, and not both")
        if self.learn and (self.person is None or self.clips is None):
            raise UserError("learn=true needs clips=PATH and person=FILE, their person's profile")


class Evaluate(Section):
    model_path: TextOrNull
    data: Data
    person: bool
    min_frames: CountOrNull
    num_workers: CountOrNull
    face: FaceModel
    paths: DataPaths

    def model_post_init(self, _: Any) -> None:
        if self.model_path is None:
            raise UserError("model_path must be set: model_path=RUN_DIR_OR_FILE")


SCHEMAS: dict[str, type[Section]] = {
    "train": Train,
    "preprocess": Preprocess,
    "predict": Predict,
    "evaluate": Evaluate,
}


def check_config(config_name: str, cfg: DictConfig) -> None:
    """Check a composed config, with or without Hydra's own section.

    Raises:
        UserError: a key is unknown, has no value, or has one of a wrong type or out of range.
    """
    own = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    own = OmegaConf.create(KNOWN_IN_A_RUN.sub("unknown", OmegaConf.to_yaml(own)))
    for key in sorted(OmegaConf.missing_keys(own)):
        option = f"data={own.data.name}: " if key.startswith("data.") else ""
        raise UserError(f"{option}{key} must be set: {key}=VALUE")
    values = OmegaConf.to_container(own, resolve=True)
    schema = SCHEMAS[config_name]
    if schema is Preprocess:  # where an experiment may set keys of train.py too
        of_train = Train.model_fields.keys() - schema.model_fields.keys()
        values = {key: value for key, value in values.items() if key not in of_train}
    try:
        schema.model_validate(values)
    except ValidationError as error:
        raise UserError(complaint(schema, values, error)) from None


def complaint(schema: type[Section], values: Any, error: ValidationError) -> str:
    """Describe the first mistake in a config in one line that names the key."""
    first = error.errors(include_url=False)[0]
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    if kind == "value_error":  # of a validator above, whose message names the keys
        return str(context["error"])
    path = []
    for part in first["loc"]:  # besides keys it names the chosen class of a union
        if isinstance(values, dict) and (part in values or kind == "missing"):
            path.append(str(part))
            values = values.get(part)
    key, known = ".".join(path), known_keys(schema)
    if kind == "extra_forbidden" and key in known:
        return f"{key} is no key of the chosen {path[0]}"
    if kind == "extra_forbidden":
        return f"{key} is no key or group here{did_you_mean(key, known)}"
    if kind == "missing":
        return f"{key} is missing"
    if kind == "union_tag_invalid":
        tags = context["expected_tags"].replace("'", "")
        return f"{key}.name must be one of {tags}, got {shown(value['name'])}"
    choices = re.sub(
        "None|True|False", lambda name: YAML_NAMES[name[0]], str(context.get("expected"))
    )
    requirement = {
        "must": first["msg"],
        "bool_type": "must be true or false",
        "literal_error": f"must be {choices}".replace("'", ""),
        "list_type": "must be a list",
        "string_type": "must be a text",
        "int_type": "must be an integer",
    }.get(kind, "must be a mapping")
    return f"{key} {requirement}, got {shown(value)}"


def shown(value: Any) -> str:
    """Write a value as one would write it in YAML; texts in quotes."""
    return YAML_NAMES.get(repr(value), repr(value))


def known_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """List all keys of a schema, those of sections with dots: model, model.name, ..."""
    keys = []
    for name, field in schema.model_fields.items():
        key = prefix + (field.alias or name)
        keys.append(key)
        for section in sections(field.annotation):
            keys += known_keys(section, f"{key}.")
    return list(dict.fromkeys(keys))


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the sections that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections(part)


def did_you_mean(word: str, known: list[str]) -> str:
    """Suggest the known word that is closest to a mistyped one; "" if none is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
