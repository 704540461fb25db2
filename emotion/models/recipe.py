"""The recipe: what inference needs to know of a trained model apart from its weights.

Training writes it beside the checkpoint; an exported model carries it inside. Reading is strict:
a model that gets other images than in training would return wrong predictions silently.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from emotion.config import MAX_LABELS
from emotion.errors import DamagedFile, UserError, first_problem
from emotion.executors import pixel_versions
from emotion.files import read_sealed, write_sealed
from emotion.stacks.sampling import interval_step, num_images
from emotion.stacks.settings import CacheSettings

RECIPE_FILE = "recipe.json"
MAX_PIXELS = 1 << 28  # of a stack: 256 MB
VERSION: Final = 4  # of the JSON; counts up when a key changes its meaning

REMEDY = f"damaged, or not of version {VERSION}: train or export the model again"

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Recipe(BaseModel):
    """How clips become a model's inputs, and how its logits become an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[4] = VERSION
    title: str
    data: str  # the training data, and what a reader must know of it
    # In the order of their indices
    labels: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_LABELS)]
    settings: CacheSettings
    interval: int  # frames from one image of the model's stacks to the next
    image_px: Annotated[int, Field(ge=1)]
    versions: Mapping[str, str]  # of the packages that may change crops or logits
    inputs: Literal["stacks", "landmarks", "blendshapes", "face"] = "stacks"
    temperature: Annotated[Finite, Field(gt=0)] = 1.0  # logits are divided by it; 1: uncalibrated
    unsure_below: Annotated[Finite, Field(ge=0, le=1)] = 0.0  # top probability; 0: no threshold

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Recipe":
        """Check the fields against each other."""
        settings = self.settings
        interval_step(self.interval, settings.interval, settings.segment_frames)
        largest = max(settings.size_px, self.image_px)
        if settings.num_images * largest**2 > MAX_PIXELS:
            raise UserError(f"a stack must have at most {MAX_PIXELS} pixels")
        if settings.min_frames > settings.segment_frames:
            raise UserError(f"min_frames must be at most {settings.segment_frames}")
        if len(set(self.labels)) < len(self.labels):
            raise UserError("labels must be unique")
        return self

    @property
    def num_images(self) -> int:
        """T, the number of images in the model's stacks."""
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
            DamagedFile: it is foreign, damaged or of another version; names source and key.
        """
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise DamagedFile(f"{source}: {first_problem(error)}; {REMEDY}") from None

    def write(self, path: Path) -> None:
        """Write the recipe as a sealed record."""
        write_sealed(path, TypeAdapter(Recipe), self)

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read what `write` wrote; raise a DamagedFile if it is missing, foreign or damaged."""
        try:
            return read_sealed(path, TypeAdapter(Recipe))
        except FileNotFoundError:
            raise DamagedFile(
                f"{path} is missing: train.py writes it beside the checkpoint when a run is "
                "finished, and a checkpoint cannot be used without it"
            ) from None
        except DamagedFile as error:
            raise DamagedFile(f"{error}; {REMEDY}") from None

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
