"""The recipe: what inference needs to know of a trained model apart from its weights.

Training writes it beside the checkpoint as `recipe.json`; an exported model carries it inside.
Reading is strict, because a model with other images than it was trained on would return wrong
predictions silently.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from emotion.errors import UserError
from emotion.executors import pixel_versions
from emotion.files import unfinished
from emotion.stacks.sampling import interval_step, num_images
from emotion.stacks.settings import CacheSettings

RECIPE_FILE = "recipe.json"
VERSION = 2  # of the JSON; counts up when a key changes its meaning

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Recipe(BaseModel):
    """How clips become a model's inputs, and how its logits become an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2] = VERSION
    title: str
    data: str  # the training data, and what a reader must know of it
    labels: Annotated[tuple[str, ...], Field(min_length=1)]  # in the order of their indices
    settings: CacheSettings
    interval: int  # frames from one image of a stack to the next, as the model takes them
    image_px: Annotated[int, Field(ge=1)]
    versions: Mapping[str, str]  # of the packages that may change crops or logits
    inputs: Literal["stacks", "landmarks", "blendshapes", "face"] = "stacks"
    temperature: Annotated[Finite, Field(gt=0)] = 1.0  # logits are divided by it; 1: uncalibrated
    unsure_below: Annotated[Finite, Field(ge=0, le=1)] = 0.0  # top probability; 0: no threshold
    neutral_label: str | None = None  # the class of a resting face
    # Mean log-probabilities of the validation stacks of that class, which a person's own neutral
    # clips are compared with; empty if there are none.
    neutral: tuple[Finite, ...] = ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Recipe":
        """Check the fields against each other."""
        interval_step(self.interval, self.settings.interval, self.settings.segment_frames)
        if len(set(self.labels)) < len(self.labels):
            raise UserError("labels must be unique")
        if self.neutral_label is not None and self.neutral_label not in self.labels:
            raise UserError(f"neutral_label must be one of labels, got {self.neutral_label!r}")
        if len(self.neutral) not in (0, len(self.labels)):
            raise UserError(
                f"neutral must have {len(self.labels)} numbers or none, got {len(self.neutral)}"
            )
        return self

    @property
    def num_images(self) -> int:
        """T, the images of a stack as the model takes it."""
        return num_images(self.settings.segment_frames, self.interval)

    @property
    def step(self) -> int:
        """The model takes every `step`-th image of a cached stack."""
        return interval_step(self.interval, self.settings.interval, self.settings.segment_frames)

    def to_json(self) -> str:
        """Return indented JSON, which `from_json` reads back to the last digit."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "Recipe":
        """Read what `to_json` returned.

        Raises:
            UserError: it is foreign, damaged or of another version; names the source and the key.
        """
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            wrong = error.errors()
            first = next((each for each in wrong if each["loc"] == ("version",)), wrong[0])
            key = ".".join(map(str, first["loc"])) or "the recipe"
            raise UserError(
                f"{source}: {key}: {first['msg']}; it is damaged or of another version of this "
                f"project (this one reads version {VERSION}): train or export the model again"
            ) from None

    def write(self, path: Path) -> None:
        """Write the recipe to a file atomically."""
        with unfinished(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read a recipe from a file; raise UserError if it is missing, foreign or damaged."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(
                f"{path} does not exist: train.py writes it beside the checkpoint when a run is "
                "finished, and a checkpoint cannot be used without it"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
        return cls.from_json(text, str(path))

    def changed_packages(self) -> list[str]:
        """List the packages that may change a crop and have another version here."""
        return [
            f"{name} {here} instead of {self.versions[name]}"
            for name, here in pixel_versions().items()
            if self.versions.get(name, here) != here
        ]


def package_versions() -> dict[str, str]:
    """Return package -> installed version, of those that may change crops or logits."""
    return pixel_versions() | {name: version(name) for name in ("torch", "timm")}
