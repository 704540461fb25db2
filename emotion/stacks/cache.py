"""The cache: where the stacks of a data set are, and how to read them.

`emotion/stacks/build.py` writes what this module reads:

    <paths.cache>/<data.name>-<digest of data.root>/<settings>/
        settings.json                     what made the cache, see `CacheContents`
        stacks/<clip>_<segment>.tiff
        landmarks/<clip>_<segment>.npy    of the face in each image of the stack
        clips/<clip>.json                 how a clip was cut; written after its stacks
        manifest.csv                      a row for each stack
        dropped.csv                       what made no stack, with the reason
        report.csv                        counts of each class
        sheets/<class>.png                contact sheets of its stacks
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from omegaconf import DictConfig
from pydantic import BaseModel, ValidationError

from emotion.clips.naming import Dropped
from emotion.errors import UserError, first_problem
from emotion.files import unfinished
from emotion.stacks.landmarks import read_landmarks
from emotion.stacks.manifest import StackRow, read_dropped, read_manifest
from emotion.stacks.settings import CacheSettings
from emotion.stacks.source import ClipSource
from emotion.stacks.stack import read_stack

CACHE_VERSION = 1  # counts up when a file of the cache changes its meaning


class CacheContents(BaseModel, extra="forbid", frozen=True):
    """What made a complete cache: the content of its `settings.json`."""

    settings: CacheSettings
    packages: dict[str, str]  # package -> version, of those that can change pixels
    source: dict[str, Any]  # of `ClipSource.description`
    version: Literal[1] = CACHE_VERSION


@dataclass(frozen=True)
class Cache:
    """The stacks of one data set with one group of settings."""

    directory: Path
    settings: CacheSettings

    @classmethod
    def from_config(cls, cfg: DictConfig) -> "Cache":
        """Locate the cache of a composed config; access no file."""
        settings = CacheSettings.from_config(cfg)
        folder = Path(cfg.paths.cache).absolute() / ClipSource.from_config(cfg).folder
        return cls(folder / settings.folder, settings)

    @property
    def manifest_path(self) -> Path:
        """The table of all stacks."""
        return self.directory / "manifest.csv"

    @property
    def contents_path(self) -> Path:
        """The file that records what made the cache."""
        return self.directory / "settings.json"

    def stack_path(self, clip_id: str, segment: int) -> Path:
        """Return the TIFF of a segment."""
        return self.directory / "stacks" / f"{clip_id}_{segment:04d}.tiff"

    def landmarks_path(self, clip_id: str, segment: int) -> Path:
        """Return the landmarks file of a segment."""
        return self.directory / "landmarks" / f"{clip_id}_{segment:04d}.npy"

    def record_path(self, clip_id: str) -> Path:
        """Return the record of a clip."""
        return self.directory / "clips" / f"{clip_id}.json"

    def manifest(self) -> list[StackRow]:
        """Read the rows of all stacks; see `read_manifest`."""
        return read_manifest(self.manifest_path)

    def manifest_sha256(self) -> str | None:
        """Return the digest of the manifest, 64 hexadecimal digits; None if there is none."""
        path = self.manifest_path
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None

    def dropped(self) -> list[Dropped]:
        """Read what made no stack, and why; see `read_dropped`."""
        return read_dropped(self.directory / "dropped.csv")

    def stack(self, row: StackRow) -> np.ndarray:
        """Read a stack, (T, H, W) uint8; (1, H, W) of a still."""
        return read_stack(self.directory / row.stack)

    def landmarks(self, row: StackRow) -> np.ndarray:
        """Read the landmarks of a stack's images, (T, 468, 3) float32; (1, 468, 3) of a still."""
        return read_landmarks(self.directory / row.landmarks)

    def contents(self) -> CacheContents | None:
        """Read what made the cache; return None if it is incomplete."""
        try:
            return CacheContents.model_validate_json(self.contents_path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UserError(
                f"{self.contents_path}: {first_problem(error)} (cache version {CACHE_VERSION}): "
                f"it is damaged or of another version; remove {self.directory}, and the stacks "
                "are cut again"
            ) from None

    def write_contents(self, contents: CacheContents) -> None:
        """Write what made the cache, atomically: the last step of a complete build."""
        with unfinished(self.contents_path) as temporary:
            temporary.write_text(contents.model_dump_json(indent=2), encoding="utf-8")
