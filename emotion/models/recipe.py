"""What prediction needs to know of a trained model apart from its weights.

`train.py` leaves it beside the checkpoint as `recipe.json`, an exported model carries it inside;
both are read here, and strictly, for a model that is fed other images than it has learned from
answers all the same, and wrongly.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar

from emotion.errors import UserError
from emotion.executors import PIXEL_PACKAGES
from emotion.files import unfinished
from emotion.stacks.sampling import interval_step, num_images
from emotion.stacks.settings import CacheSettings

Known = TypeVar("Known")

RECIPE_FILE = "recipe.json"
FORMAT = 1  # of the JSON; counts up where a key changes its meaning
LATER = {"landmarks": False, "neutral": []}  # keys that older files lack, and what they mean
PACKAGES = (*PIXEL_PACKAGES, "torch", "timm")


@dataclass(frozen=True)
class Recipe:
    """How clips become what a model takes, and how its logits are to be read.

    Attributes:
        title: of the model, for people.
        data: what it was trained on, and what has to be known of that.
        labels: the C classes, in the order of their indices.
        settings: how clips are cut and cropped.
        interval: frames from one image of a stack to the next, as the model takes them.
        image_px: height and width of these images.
        versions: package -> version, of those that may change crops or logits.
        landmarks: whether the model takes the landmarks of the images as well.
        temperature: what logits are divided by before softmax; 1 where nothing was calibrated.
        unsure_below: a clip whose top probability is lower is unsure; 0 where none was set.
        neutral: the mean log-probabilities of val stacks whose class is Neutral, what a person's
            own neutral clips are compared with; none where there is no such class or stack.
    """

    title: str
    data: str
    labels: Sequence[str]
    settings: CacheSettings
    interval: int
    image_px: int
    versions: Mapping[str, str]
    landmarks: bool = False
    temperature: float = 1.0
    unsure_below: float = 0.0
    neutral: Sequence[float] = ()

    def __post_init__(self) -> None:
        """Check that the values can be.

        Raises:
            UserError: names the one that can't.
        """
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "versions", dict(self.versions))
        object.__setattr__(self, "neutral", tuple(self.neutral))
        interval_step(self.interval, self.settings.interval, self.settings.segment_frames)
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise UserError(f"labels {list(self.labels)} are none, or one of them twice")
        if self.image_px < 1:
            raise UserError(f"image_px {self.image_px} is below 1")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"temperature {self.temperature} is not above 0")
        if not all(map(math.isfinite, self.neutral)):
            raise UserError(f"neutral {list(self.neutral)} has what is no number")
        if len(self.neutral) not in (0, len(self.labels)):
            raise UserError(f"neutral has {len(self.neutral)} logits for {len(self.labels)} labels")
        if not 0 <= self.unsure_below <= 1:
            raise UserError(f"unsure_below {self.unsure_below} is no probability")

    @property
    def num_images(self) -> int:
        """T, the images of a stack as the model takes it."""
        return num_images(self.settings.segment_frames, self.interval)

    @property
    def step(self) -> int:
        """Every how many images of a cached stack the model takes one."""
        return interval_step(self.interval, self.settings.interval, self.settings.segment_frames)

    def to_json(self) -> str:
        """Write it as indented JSON, which `from_json` gives back to the last digit."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "Recipe":
        """Read what `to_json` wrote, and nothing else.

        Args:
            text: the JSON.
            source: where it was found, for the error.

        Raises:
            UserError: it is foreign or damaged, or of another version of this project.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or "format" not in values:
                raise UserError("it has no format")
            if (form := values.pop("format")) != FORMAT:
                raise UserError(f"its format is {form!r}, and this version reads {FORMAT}")
            settings = typed(CacheSettings, values.pop("settings", None), "settings.")
            return typed(cls, {**LATER, **values, "settings": settings}, "")
        except (ValueError, RecursionError) as error:  # a UserError, or what json says
            reason = " ".join(str(error).split())
            raise UserError(f"{source} is no recipe of ours, or damaged: {reason}") from None

    def write(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        with unfinished(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read it from a file.

        Raises:
            UserError: the file is not there, is foreign or damaged.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(
                f"no {path.name} in {path.parent}: train.py puts it beside the checkpoint when a "
                "run has ended, and a checkpoint without it can't be used"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} can't be read: {' '.join(str(error).split())}") from None
        return cls.from_json(text, str(path))

    def changed_packages(self) -> list[str]:
        """Name the packages that may change a crop and are here in another version."""
        here = package_versions()
        return [
            f"{name} {here[name]} instead of {self.versions[name]}"
            for name in PIXEL_PACKAGES
            if name in self.versions and here[name] != self.versions[name]
        ]


def package_versions() -> dict[str, str]:
    """Look up the installed version of each of `PACKAGES`; "none" of one that is not there."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return versions


def typed(kind: type[Known], values: Any, prefix: str) -> Known:
    """Build a dataclass from plain values; take no other keys and no other types than it has.

    Args:
        kind: the dataclass.
        values: a mapping from the names of its fields.
        prefix: goes before a key's name in errors.

    Raises:
        UserError: a key is unknown or missing, or its value is of another type.
    """
    if not isinstance(values, dict):
        raise UserError(f"{prefix.rstrip('.') or 'it'} is no mapping")
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(set(values) - set(known)):
        raise UserError(f"unknown key {prefix}{unknown[0]}")
    for name, field in known.items():
        if name not in values:
            raise UserError(f"{prefix}{name} is missing")
        if not is_of(field.type, values[name]):
            raise UserError(f"{prefix}{name} is {json.dumps(values[name])[:60]}, of another type")
    return kind(**values)


def is_of(kind: type | GenericAlias, value: Any) -> bool:
    """Tell whether a value, as JSON gives it, is of a field's type."""
    if kind == Sequence[str]:
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if kind == Sequence[float]:
        return isinstance(value, list) and all(is_of(float, each) for each in value)
    if kind == Mapping[str, str]:
        return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
