"""The record of a clip: how it was cut, and what vouches for its stacks. One JSON file per clip."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from emotion.clips.naming import Dropped
from emotion.errors import UserError, first_problem
from emotion.files import unfinished

RECORD_VERSION = 1  # counts up when a key changes its meaning
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileDates:
    """Size of a clip's file, and times of the last write and of any change, even of its name."""

    size_bytes: int = 0
    modified_ns: int = 0
    changed_ns: int = 0


@dataclass(frozen=True)
class SegmentRecord:
    """A segment that made a stack; its fields are those of `StackRow`, `number` is `segment`."""

    number: int
    num_frames: int
    num_faces: int
    has_face: str


class ClipRecord(BaseModel, extra="forbid"):
    """How one clip was cut."""

    dates: FileDates = FileDates()
    content: str = ""  # BLAKE2b digest of the file
    packages: dict[str, str] = {}  # versions that can change pixels
    fps: float = 0.0  # by the header
    num_frames: int = 0  # decoded
    failed: bool = False  # the file could not be read, or its reader crashed
    segments: list[SegmentRecord] = []  # that made a stack
    dropped: list[Dropped] = []  # that made none, or the clip
    version: Literal[1] = RECORD_VERSION


def write_clip_record(path: Path, record: ClipRecord) -> None:
    """Write a record atomically."""
    with unfinished(path) as temporary:
        temporary.write_text(record.model_dump_json(), encoding="utf-8")


def read_clip_record(path: Path) -> ClipRecord | None:
    """Read a record; return None if there is none, and raise a UserError if it is damaged."""
    try:
        return ClipRecord.model_validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise UserError(
            f"{path}: {first_problem(error)}: remove this file, and its clip is cut again"
        ) from None


def dates_of(path: Path) -> FileDates:
    """Read the size and dates of a file, or of a symbolic link that leads nowhere."""
    try:
        stat = path.stat()
    except OSError:
        stat = path.lstat()
    return FileDates(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def content_of(path: Path) -> str:
    """Return the digest of a file; "" if it cannot be read, which decoding will report."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
