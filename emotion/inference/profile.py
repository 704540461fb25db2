"""A person's profile: the features and emotions of their clips, in a file without pictures."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from emotion.config import MAX_LABELS
from emotion.errors import DamagedFile, UserError
from emotion.files import claimed, read_sealed, read_whole, write_sealed
from emotion.tables import counted

VERSION: Final = 1  # of the JSON; counts up when a key changes its meaning
MAX_CLIPS = 2000  # those of face models then take 50 MB
DIGITS = 7  # significant, of features: float32 has as many

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Observation(BaseModel):
    """What is kept of a clip."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str | None  # None where the emotion is unknown
    features: tuple[Finite, ...]  # D, mean of the clip's stacks

    @classmethod
    def of(cls, label: str | None, features: Sequence[float]) -> "Observation":
        """Round features to the digits that are kept."""
        values = np.asarray(features).tolist()
        return cls(label=label, features=tuple(float(f"{value:.{DIGITS}g}") for value in values))


class Profile(BaseModel):
    """What is known of one person; the order in which it was learned does not matter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = VERSION
    model: str  # `PersonModel.fingerprint` of the model whose features these are
    labels: Annotated[tuple[str, ...], Field(min_length=2, max_length=MAX_LABELS)]
    clips: Annotated[dict[str, Observation], Field(max_length=MAX_CLIPS)] = {}  # by SHA-256

    def observe(self, clip: str, features: Sequence[float], label: str | None = None) -> "Profile":
        """Add a clip; one that is there counts once, and keeps its label if None is given.

        Args:
            clip: the SHA-256 of its file.
            features: D numbers, see `Answer.features`.
            label: its emotion; None if it is unknown.

        Raises:
            UserError: the label is none of the model's, or there are 2,000 clips.
        """
        if label is not None and label not in self.labels:
            raise UserError(f"the emotion must be one of {', '.join(self.labels)}, got {label!r}")
        if clip not in self.clips and len(self.clips) >= MAX_CLIPS:
            raise UserError(f"a profile may have {MAX_CLIPS} clips: forget some, or begin another")
        if label is None and clip in self.clips:
            label = self.clips[clip].label
        clips = self.clips | {clip: Observation.of(label, features)}
        return self.model_copy(update={"clips": dict(sorted(clips.items()))})

    def forget(self, clip: str) -> "Profile":
        """Remove a clip if it is there."""
        clips = {name: kept for name, kept in self.clips.items() if name != clip}
        return self.model_copy(update={"clips": clips})

    @property
    def counts(self) -> str:
        """The number of clips, in words."""
        corrected = sum(kept.label is not None for kept in self.clips.values())
        unknown = len(self.clips) - corrected
        return f"{counted(corrected, 'corrected clip')}, {unknown} of unknown emotion"

    def write(self, path: Path) -> None:
        """Write the profile as a sealed record."""
        write_sealed(path, TypeAdapter(Profile), self)

    @classmethod
    def read(cls, path: Path, model: str | None = None) -> "Profile":
        """Read what `write` wrote.

        Args:
            path: of the file.
            model: the fingerprint that it must have; None for any.

        Raises:
            FileNotFoundError: there is none.
            DamagedFile: it is damaged, of a newer version or of another model.
        """
        try:
            profile = read_sealed(path, TypeAdapter(Profile))
        except DamagedFile as error:
            newer = newer_version(path)
            remedy = (
                f"it is of version {newer}, and this program reads version {VERSION}: update it"
                if newer
                else "restore a copy, or remove it and observe the person's clips again"
            )
            raise DamagedFile(f"{error}; {remedy}") from None
        sizes = {len(kept.features) for kept in profile.clips.values()}
        if len(sizes) > 1:
            raise DamagedFile(f"{path}: its clips have features of different models")
        if model not in (None, profile.model):
            raise DamagedFile(
                f"{path} was learned with another model: use that one, or begin another profile "
                "and observe the person's clips again"
            )
        return profile


class AnyVersion(BaseModel):
    """The version of a profile, whatever else it has."""

    version: Annotated[int, Field(gt=VERSION)]


def newer_version(path: Path) -> int | None:
    """Return the version of a profile that a newer program wrote, or None."""
    try:
        return AnyVersion.model_validate_json(read_whole(path)).version
    except (ValidationError, OSError, DamagedFile):
        return None


def change_profile(
    path: Path | None, profile: Profile, change: Callable[[Profile], Profile]
) -> Profile:
    """Change a profile and its file, if it has one; other processes wait meanwhile.

    Args:
        path: of the file, which is read again first; None for none.
        profile: where there is no file.
        change: returns the changed profile.

    Raises:
        DamagedFile: the file is damaged, or of another model.
    """
    lock = claimed(path.with_name(f".{path.name}.lock"), str(path), wait=True) if path else None
    with lock or nullcontext():
        if path is not None and path.exists():
            profile = Profile.read(path, profile.model)
        changed = change(profile)
        if path is not None:
            changed.write(path)
    return changed
