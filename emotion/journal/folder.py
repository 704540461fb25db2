"""The files of a journal: clips and covers, and those of changes that are under way.

A change moves files between `pending` and `clips` before or after the commit of its rows, so that
`settle` can finish or undo it after a crash: a pending clip with a row belongs to `clips`, one
without is removed. A new clip is written to `pending`, its row is committed, then it is moved. A
clip to delete is moved to `pending`, its row is deleted, then it is removed.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import BinaryIO

from emotion.errors import UserError
from emotion.files import CHUNK_BYTES
from emotion.journal.schema import Entry

MAX_CLIP_BYTES = 512 << 20
HEAD_BYTES = 4096
UNKNOWN_TYPE = ("application/octet-stream", ".bin")


@dataclass(frozen=True)
class Received:
    """A file in `pending`."""

    path: Path
    sha256: str
    size: int
    media_type: str
    suffix: str


@dataclass(frozen=True)
class Folder:
    """The folder of a journal, with mode 700."""

    root: Path
    clips: Path = field(init=False)
    covers: Path = field(init=False)
    pending: Path = field(init=False)
    results: Path = field(init=False)  # of jobs, until the next start

    def __post_init__(self) -> None:
        """Name the folders."""
        for name in ("clips", "covers", "pending", "results"):
            object.__setattr__(self, name, self.root / name)

    def create(self) -> None:
        """Create what is missing, and set the mode."""
        for folder in (self.root, self.clips, self.covers, self.pending, self.results):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)

    def clip(self, entry: Entry) -> Path:
        """Return the path of an entry's clip."""
        return self.clips / entry.clip_name

    def cover(self, entry: Entry) -> Path:
        """Return the path of an entry's cover."""
        return self.covers / entry.cover_name

    def receive(self, file: BinaryIO, name: str) -> Received:
        """Write a clip to `pending`, through to the disk.

        Args:
            file: is read to its end, `read(size)` alone.
            name: of the file in `pending`, without suffix.

        Raises:
            UserError: it is empty or too large.
        """
        path = self.pending / name
        hasher, size, head = sha256(), 0, b""
        try:
            with path.open("wb") as copy:
                while chunk := file.read(CHUNK_BYTES):
                    head = (head + chunk)[:HEAD_BYTES] if len(head) < HEAD_BYTES else head
                    size += len(chunk)
                    if size > MAX_CLIP_BYTES:
                        raise UserError(
                            f"the clip is larger than {MAX_CLIP_BYTES >> 20} MiB: shorten it to a "
                            "few seconds"
                        )
                    hasher.update(chunk)
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
            if size == 0:
                raise UserError("the file is empty: choose a clip of a few seconds")
            media_type, suffix = sniff(head)
            whole = path.with_suffix(suffix)
            path.rename(whole)
            sync(self.pending)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(self.root)
            raise
        return Received(whole, hasher.hexdigest(), size, media_type, suffix)

    def keep(self, entries: Iterable[Entry]) -> None:
        """Move the clips of committed entries from `pending` to their places."""
        for entry in entries:
            (self.pending / entry.clip_name).rename(self.clip(entry))
        sync(self.clips)

    @contextmanager
    def removing(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Remove the files of entries, whose rows are deleted in this context.

        If that fails, the clips are moved back.
        """
        for entry in entries:
            with suppress(FileNotFoundError):
                self.clip(entry).rename(self.pending / entry.clip_name)
        sync(self.pending)
        try:
            yield
        except BaseException:
            for entry in entries:
                with suppress(FileNotFoundError):
                    (self.pending / entry.clip_name).rename(self.clip(entry))
            raise
        for entry in entries:
            self.cover(entry).unlink(missing_ok=True)
            (self.pending / entry.clip_name).unlink(missing_ok=True)

    def staging(self) -> Path:
        """Create a temporary folder, which the next start removes if it is still there."""
        return Path(mkdtemp(prefix="staging-", dir=self.pending))

    def settle(self, entries: Sequence[Entry]) -> tuple[list[str], list[Entry]]:
        """Make files and rows agree after a crash.

        Args:
            entries: all rows.

        Returns:
            What cannot be mended, in words, and the entries whose cover is missing.
        """
        shutil.rmtree(self.results, ignore_errors=True)
        self.create()
        for path in self.root.glob(".*"):  # of `unfinished`
            if path.is_file():
                path.unlink()
        by_clip = {entry.clip_name: entry for entry in entries}
        for path in self.pending.iterdir():
            entry = by_clip.get(path.name)
            if entry is not None and path.is_file() and not self.clip(entry).exists():
                path.rename(self.clip(entry))
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        problems = []
        sizes = {item.name: item.stat().st_size for item in os.scandir(self.clips)}
        for name, entry in by_clip.items():
            if name not in sizes:
                problems.append(f"the clip of {entry.day} is missing: {self.clips / name}")
            elif sizes[name] != entry.size:
                problems.append(
                    f"the clip of {entry.day} has changed: {self.clips / name} has {sizes[name]} "
                    f"bytes instead of {entry.size}"
                )
        problems += [
            f"a file belongs to no entry: {self.clips / name}"
            for name in sorted(sizes.keys() - by_clip.keys())
        ]
        covers = {item.name for item in os.scandir(self.covers)}
        for name in covers - {entry.cover_name for entry in entries}:
            (self.covers / name).unlink()  # can be made from its clip again
        lost = [
            entry
            for entry in entries
            if entry.has_picture and entry.cover_name not in covers and entry.clip_name in sizes
        ]
        return problems, lost


def sync(folder: Path) -> None:
    """Write a folder's names through to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sniff(head: bytes) -> tuple[str, str]:
    """Return the media type and suffix of a video file by its first bytes.

    >>> sniff(bytes(4) + b"ftypisom"), sniff(b"GIF89a")
    (('video/mp4', '.mp4'), ('application/octet-stream', '.bin'))
    """
    if head[4:8] == b"ftyp":
        is_quicktime = head[8:12] == b"qt  "
        return ("video/quicktime", ".mov") if is_quicktime else ("video/mp4", ".mp4")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return ("video/webm", ".webm") if b"webm" in head[:64] else ("video/x-matroska", ".mkv")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "video/x-msvideo", ".avi"
    if head[:3] == b"FLV":
        return "video/x-flv", ".flv"
    return UNKNOWN_TYPE
