"""The record of a clip: how it was cut, and what its files were. One sealed JSON file per clip."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, TypeAdapter

from emotion.clips.naming import Dropped
from emotion.errors import DamagedFile, is_machine_fault
from emotion.files import file_digest, read_sealed, write_sealed

RECORD_VERSION = 2  # counts up when a key changes its meaning


@dataclass(frozen=True)
class FileStamp:
    """What a file was: size, times of the last write and of any change, SHA-256 of its content."""

    size_bytes: int = 0
    modified_ns: int = 0
    changed_ns: int = 0
    digest: str = ""  # "" if it could not be read, which decoding reports


@dataclass(frozen=True)
class SegmentRecord:
    """A segment that made a stack; its fields are those of `StackRow`, `number` is `segment`."""

    number: int
    num_frames: int
    num_faces: int
    has_face: str
    files: dict[str, FileStamp]  # stack, landmarks, blendshapes, by path relative to the cache


class ClipRecord(BaseModel, extra="forbid", allow_inf_nan=False):
    """How one clip was cut."""

    clip: str  # its id
    source: FileStamp = FileStamp()  # of the clip's file
    packages: dict[str, str] = {}  # versions that can change pixels
    fps: float = 0.0  # by the header
    num_frames: int = 0  # decoded
    failed: bool = False  # the file could not be read, or its reader crashed
    segments: list[SegmentRecord] = []  # that made a stack
    dropped: list[Dropped] = []  # that made none, or the clip
    version: Literal[2] = RECORD_VERSION

    @property
    def files(self) -> dict[str, FileStamp]:
        """The files that were made of the clip, by their paths relative to the cache."""
        return {name: stamp for each in self.segments for name, stamp in each.files.items()}


_ADAPTER = TypeAdapter(ClipRecord)


def write_clip_record(path: Path, record: ClipRecord) -> None:
    """Write a record as a sealed file."""
    write_sealed(path, _ADAPTER, record)


def read_clip_record(path: Path, clip_id: str) -> ClipRecord | None:
    """Read the record of a clip; return None if there is none.

    Raises:
        DamagedFile: it has changed since it was written, or is the record of another clip.
    """
    try:
        record = read_sealed(path, _ADAPTER)
    except FileNotFoundError:
        return None
    if record.clip != clip_id:
        raise DamagedFile(f"{path}: clip: it is the record of {record.clip}")
    return record


def stamp_of(path: Path, known: FileStamp | None = None) -> FileStamp:
    """Return the stamp of a file; as in git's index, its content is not read if it is `known`.

    A file that is missing, or that cannot be read for a fault of its own, has no digest.
    """
    try:
        stat = path.stat()
    except OSError as error:
        if is_machine_fault(error):
            raise
        return FileStamp()
    now = FileStamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, known.digest if known else "")
    if now == known:
        return known
    try:
        return replace(now, digest=file_digest(path))
    except OSError as error:
        if is_machine_fault(error):
            raise
        return replace(now, digest="")
