"""The settings that decide which stacks a clip gives and what is in them."""

from dataclasses import dataclass, fields

from omegaconf import DictConfig
from pydantic import ConfigDict

from emotion.errors import UserError
from emotion.stacks.sampling import BY, num_images

STARTS = ("clip", "first_face")
TRACKING = ("every_frame", "sampled", "none")
FOLLOW = ("largest", "central")
FITS = ("box", "features")


@dataclass(frozen=True)
class CacheSettings:
    """Every setting that changes which stacks a clip gives, or their pixels.

    The names are those of the config: `min_frames` is in `data`, the next five are in `sampling`,
    the others in `face`. `conf/stacks.yaml` documents them.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    min_frames: int
    segment_frames: int
    interval: int
    by: str
    start: str
    min_face_fraction: float
    tracking: str
    follow: str
    margin: float
    align: bool
    size_px: int
    min_confidence: float
    refine: bool = False
    fit: str = "box"

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "CacheSettings":
        """Read the settings from a composed config.

        Raises:
            UserError: a key is unknown, or a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        for group in ("sampling", "face"):
            if unknown := sorted(set(cfg[group]) - known):
                raise UserError(f"{group}.{unknown[0]} is not a setting of {group}")
        return cls(min_frames=cfg.data.min_frames, **cfg.sampling, **cfg.face)

    def __post_init__(self) -> None:
        """Check choices and ranges.

        Raises:
            UserError: names the key.
        """
        num_images(self.segment_frames, self.interval)
        for key, value, choices in (
            ("sampling.by", self.by, BY),
            ("sampling.start", self.start, STARTS),
            ("face.tracking", self.tracking, TRACKING),
            ("face.follow", self.follow, FOLLOW),
            ("face.fit", self.fit, FITS),
        ):
            if value not in choices:
                raise UserError(f"{key} must be one of {', '.join(choices)}, got {value!r}")
        for key, value, low, high in (
            ("sampling.min_face_fraction", self.min_face_fraction, 0, 1),
            ("face.min_confidence", self.min_confidence, 0, 1),
            ("data.min_frames", self.min_frames, 1, self.segment_frames),
            ("face.size_px", self.size_px, 1, float("inf")),
            ("face.margin", self.margin, 0, float("inf")),
        ):
            if not low <= value <= high:
                raise UserError(f"{key} must be from {low} to {high}, got {value}")

    @property
    def num_images(self) -> int:
        """T, the number of images in a cached stack."""
        return num_images(self.segment_frames, self.interval)

    def enough_faces(self, face_frames: int, sampled_frames: int) -> bool:
        """Return whether a segment with a face in so many of its sampled frames makes a stack."""
        return face_frames >= max(1, self.min_face_fraction * sampled_frames)

    @property
    def folder(self) -> str:
        """A folder name that is unique to these settings."""
        return (
            f"{self.segment_frames}{self.by}-every{self.interval}-from_{self.start}"
            f"-min{self.min_frames}-faces{self.min_face_fraction}_{self.tracking}-{self.follow}"
            f"-margin{self.margin}{'-level' * self.align}{'-features' * (self.fit == 'features')}"
            f"-{self.size_px}px-confidence{self.min_confidence}{'-refined' * self.refine}"
        )
