"""Find the clips in a folder, and when they were recorded."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from emotion.clips.find import files_below
from emotion.clips.video import VideoError, open_stream
from emotion.errors import UserError, is_machine_fault
from emotion.executors import LocalExecutor
from emotion.files import file_digest
from emotion.journal.folder import MAX_CLIP_BYTES
from emotion.watchdog import REASON, watchdog

METADATA, FILE = "metadata", "file"
DATES = ("com.apple.quicktime.creationdate", "creation_time", "date", "DATE_RECORDED")
FIRST_YEAR = 1990  # clocks that were never set begin before


@dataclass(frozen=True)
class OldClip:
    """A file in the folder."""

    path: Path
    name: str  # relative to the folder
    size: int = 0  # bytes
    sha256: str = ""
    recorded_at: datetime | None = None  # local time
    source: str = FILE  # of `recorded_at`: the clip's metadata, or the time of the file
    is_known: bool = False  # whether the journal or another file of the folder has it already
    problem: str = ""  # why it cannot be kept


def find_old_clips(folder: Path, known: Collection[str]) -> Iterator[tuple[int, list[OldClip]]]:
    """Find the video files in or below a folder, without links and hidden ones.

    Args:
        folder: to search.
        known: SHA-256 of the clips that the journal has.

    Yields:
        How many files there are, and those inspected so far, by date at the end.

    Raises:
        UserError: there is no such folder, or no video file in it.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    paths = [path for path in files_below(folder, "clips") if path.is_file()]
    if not paths:
        raise UserError(f"no video files in {folder}")
    clips: list[OldClip] = []
    inspected = LocalExecutor(1).run(partial(inspect, folder), paths, folder)
    for path, clip in inspected:
        crashed = OldClip(path, name_below(path, folder), problem=REASON)
        clips.append(clip or crashed)
        yield len(paths), clips
    clips.sort(key=lambda clip: (clip.recorded_at or datetime.max, clip.name))
    seen = set(known)
    for place, clip in enumerate(clips):
        if clip.sha256:
            clips[place] = replace(clip, is_known=clip.sha256 in seen)
            seen.add(clip.sha256)
    yield len(paths), clips


def inspect(folder: Path, path: Path) -> OldClip:
    """Read size, content and date of a file."""
    name = name_below(path, folder)
    try:
        stat = path.stat()
        clip = OldClip(path, name, stat.st_size, recorded_at=file_time(stat.st_mtime))
        if not 0 < stat.st_size <= MAX_CLIP_BYTES:
            limit = f"more than {MAX_CLIP_BYTES >> 20} MiB"
            return replace(clip, problem="it is empty" if stat.st_size == 0 else limit)
        clip = replace(clip, sha256=file_digest(path))
        with watchdog.watch(path, ""):
            moment = recorded_at(path)
    except VideoError as error:
        return replace(clip, problem=str(error))
    except Exception as error:  # one file must not stop the others
        if is_machine_fault(error):
            raise
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        return OldClip(path, name, problem=reason)
    return replace(clip, recorded_at=moment, source=METADATA) if moment else clip


def recorded_at(path: Path) -> datetime | None:
    """Return the local time in a clip's metadata; None if there is none, or an impossible one."""
    stream = open_stream(path)
    with stream.container as container:
        metadata = {**stream.metadata, **container.metadata}
    for key in DATES:
        try:
            moment = datetime.fromisoformat(metadata[key].strip().replace("Z", "+00:00"))
        except (KeyError, ValueError):
            continue
        if moment.tzinfo:
            moment = moment.astimezone().replace(tzinfo=None)
        if moment.year >= FIRST_YEAR and moment <= datetime.now():
            return moment.replace(microsecond=0)
    return None


def file_time(seconds: float) -> datetime | None:
    """Return the local time of a file, None if it is impossible."""
    try:
        return datetime.fromtimestamp(int(seconds))
    except (OverflowError, ValueError, OSError):
        return None


def name_below(path: Path, folder: Path) -> str:
    """Return the name of a file relative to a folder, as text."""
    return path.relative_to(folder).as_posix().encode(errors="backslashreplace").decode()
