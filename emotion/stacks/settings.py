"""The settings that decide which stacks a clip gives and what is in them."""

from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig
from pydantic import ConfigDict

from emotion.config import Count, Frames, NonNegative, Share
from emotion.stacks.sampling import num_images


@dataclass(frozen=True)
class CacheSettings:
    """Every setting that changes which stacks a clip gives, or their pixels.

    The names are those of the config: `min_frames` is in `data`, the next five are in `sampling`,
    the others in `face`, whose `model` is always the same file. `conf/stacks.yaml` documents them.
    pydantic checks them in what is read.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    min_frames: Count
    segment_frames: Frames
    interval: Count
    by: Literal["frames", "time"]
    start: Literal["clip", "first_face"]
    min_face_fraction: Share
    tracking: Literal["every_frame", "sampled", "none"]
    follow: Literal["largest", "central"]
    margin: NonNegative
    align: bool
    size_px: Count
    min_confidence: Share
    fit: Literal["box", "features"] = "box"

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "CacheSettings":
        """Read the settings from a composed config, whose schema has checked them."""
        face = {key: value for key, value in cfg.face.items() if key != "model"}
        return cls(min_frames=cfg.data.min_frames, **cfg.sampling, **face)

    def __post_init__(self) -> None:
        """Raise a UserError if the interval does not divide the segment."""
        num_images(self.segment_frames, self.interval)

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
