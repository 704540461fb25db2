"""The settings that decide which stacks a clip gives and what is in them."""

from dataclasses import dataclass

from omegaconf import DictConfig
from pydantic import ConfigDict

from emotion.errors import UserError
from emotion.stacks.sampling import num_images

TRACKING = ("every_frame", "sampled", "none")
CHOICES = {
    "sampling.by": ("frames", "time"),
    "sampling.start": ("clip", "first_face"),
    "face.tracking": TRACKING,
    "face.follow": ("largest", "central"),
    "face.fit": ("box", "features"),
}


@dataclass(frozen=True)
class CacheSettings:
    """Every setting that changes which stacks a clip gives, or their pixels.

    The names are those of the config: `min_frames` is in `data`, the next five are in `sampling`,
    the others in `face`, whose `model` is always the same file. `conf/stacks.yaml` documents them.
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
    fit: str = "box"

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "CacheSettings":
        """Read the settings from a composed config."""
        face = {key: value for key, value in cfg.face.items() if key != "model"}
        return cls(min_frames=cfg.data.min_frames, **cfg.sampling, **face)

    def __post_init__(self) -> None:
        """Check choices and ranges; a UserError names the key."""
        num_images(self.segment_frames, self.interval)
        ranges = {
            "sampling.min_face_fraction": (0, 1),
            "face.min_confidence": (0, 1),
            "data.min_frames": (1, self.segment_frames),
            "face.size_px": (1, float("inf")),
            "face.margin": (0, float("inf")),
        }
        for key, choices in CHOICES.items():
            if (value := getattr(self, key.split(".")[1])) not in choices:
                raise UserError(f"{key} must be one of {', '.join(choices)}, got {value!r}")
        for key, (low, high) in ranges.items():
            if not low <= (value := getattr(self, key.split(".")[1])) <= high:
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
            f"-{self.size_px}px-confidence{self.min_confidence}"
        )
