"""The cache: where the stacks of a data set are, and how to read them.

`emotion/stacks/build.py` writes what this module reads:

    <paths.cache>/<data.name>-<digest of data.root>/<settings>/
        settings.json                     what made the cache, see `CacheContents`
        stacks/<clip>_<segment>.tiff
        landmarks/<clip>_<segment>.npy    of the face in each image of the stack
        blendshapes/<clip>_<segment>.npy  likewise
        clips/<clip>.json                 how a clip was cut; written after its stacks
        manifest.csv                      a row for each stack
        dropped.csv                       what made no stack, with the reason
        report.csv                        counts of each class
        sheets/<class>.png                contact sheets of its stacks
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from omegaconf import DictConfig
from pydantic import BaseModel, TypeAdapter

from emotion.clips.naming import Dropped
from emotion.errors import DamagedFile, is_machine_fault
from emotion.files import MAX_NAME_BYTES, digest, file_digest, read_sealed, write_sealed
from emotion.stacks.arrays import read_array
from emotion.stacks.face_values import PART_SHAPES
from emotion.stacks.manifest import StackRow
from emotion.stacks.settings import CacheSettings
from emotion.stacks.source import ClipSource
from emotion.stacks.stack import read_stack
from emotion.tables import read_rows

CACHE_VERSION = 2  # counts up when a file of the cache changes its meaning
REMEDY = "run preprocess.py to make it"
TABLES = ("manifest.csv", "dropped.csv", "report.csv")

_known: set[tuple[Path, str]] = set()  # files whose digest this process has compared


class CacheContents(BaseModel, extra="forbid", frozen=True):
    """What made a complete cache: the content of its `settings.json`."""

    settings: CacheSettings
    source: dict[str, Any]  # of `ClipSource.description`
    tables: dict[str, str]  # name -> digest
    version: Literal[2] = CACHE_VERSION


_CONTENTS = TypeAdapter(CacheContents)


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
        return self.directory / "stacks" / f"{short(clip_id)}_{segment:04d}.tiff"

    def landmarks_path(self, clip_id: str, segment: int) -> Path:
        """Return the landmarks file of a segment."""
        return self.directory / "landmarks" / f"{short(clip_id)}_{segment:04d}.npy"

    def blendshapes_path(self, clip_id: str, segment: int) -> Path:
        """Return the blendshapes file of a segment."""
        return self.directory / "blendshapes" / f"{short(clip_id)}_{segment:04d}.npy"

    def record_path(self, clip_id: str) -> Path:
        """Return the record of a clip."""
        return self.directory / "clips" / f"{short(clip_id)}.json"

    def holds(self, path: str | None) -> bool:
        """Return whether a path lies in the cache."""
        return path is not None and Path(path).is_relative_to(self.directory)

    def manifest(self) -> list[StackRow]:
        """Read the rows of all stacks; see `read_rows`."""
        return read_rows(self.manifest_path, StackRow, REMEDY)

    def manifest_sha256(self) -> str | None:
        """Return the digest of the manifest, 64 hexadecimal digits; None if there is none."""
        path = self.manifest_path
        return file_digest(path) if path.is_file() else None

    def dropped(self) -> list[Dropped]:
        """Read what made no stack, and why; see `read_rows`."""
        return read_rows(self.directory / "dropped.csv", Dropped, REMEDY)

    def stack(self, row: StackRow) -> np.ndarray:
        """Read a stack, (T, H, W) uint8; (1, H, W) of a still; raises as `landmarks`."""
        shape = self.settings.size_px, self.settings.size_px
        return self._read(row.stack, row.stack_digest, read_stack, shape, np.uint8)

    def landmarks(self, row: StackRow) -> np.ndarray:
        """Read the landmarks of a stack's images, (T, 468, 3) float32; (1, 468, 3) of a still.

        Raises:
            DamagedFile: the file is missing, or not what was cut. Its digest is compared when this
                process first reads it.
        """
        return self._read_values("landmarks", row.landmarks, row.landmarks_digest)

    def blendshapes(self, row: StackRow) -> np.ndarray:
        """Read the blendshapes of a stack's images, (T, 52) float32; (1, 52) of a still.

        Raises as `landmarks`.
        """
        return self._read_values("blendshapes", row.blendshapes, row.blendshapes_digest)

    def _read_values(self, part: str, name: str, expected: str) -> np.ndarray:
        return self._read(name, expected, read_array, PART_SHAPES[part], np.float32)

    def _read(
        self,
        name: str,
        expected: str,
        read: Callable[[Path], np.ndarray],
        shape: tuple[int, ...],
        dtype: type,
    ) -> np.ndarray:
        path = self.directory / name
        shapes = {(length, *shape) for length in (1, self.settings.num_images)}
        try:
            if (path, expected) not in _known and file_digest(path) != expected:
                raise ValueError("it is not what was cut")
            array = read(path)
            if array.dtype != dtype or array.shape not in shapes:
                raise ValueError(f"its shape is {array.shape} and its type {array.dtype}")
        except Exception as error:  # damaged files make tifffile and NumPy raise errors of any type
            if is_machine_fault(error):
                raise
            raise DamagedFile(
                f"{path}: {' '.join(str(error).split())}: preprocess.py verify=true, with the same "
                "settings, makes it again"
            ) from None
        _known.add((path, expected))
        return array

    def contents(self) -> CacheContents | None:
        """Read what made the cache, and compare its tables; return None if it is incomplete.

        Raises:
            DamagedFile: `settings.json` or a table has changed since it was written.
        """
        try:
            contents = read_sealed(self.contents_path, _CONTENTS)
        except FileNotFoundError:
            return None
        for name, expected in contents.tables.items():
            path = self.directory / name
            if not path.is_file() or file_digest(path) != expected:
                raise DamagedFile(f"{path} has changed since it was written")
        return contents

    def write_contents(self, source: dict[str, Any]) -> None:
        """Write what made the cache, atomically: the last step of a complete build."""
        tables = {name: file_digest(self.directory / name) for name in TABLES}
        contents = CacheContents(settings=self.settings, source=source, tables=tables)
        write_sealed(self.contents_path, _CONTENTS, contents)


def short(clip_id: str) -> str:
    """Return the id of a clip, or a digest where `<id>_0001.tiff` is too long for a file system."""
    folder, slash, name = clip_id.rpartition("/")
    if len(name.encode()) > MAX_NAME_BYTES - 16:
        name = digest(clip_id.encode())
    return folder + slash + name
