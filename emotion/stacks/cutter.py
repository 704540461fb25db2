"""Cut one clip into stacks: the work that an executor distributes over processes and machines."""

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from os import PathLike
from pathlib import Path

import numpy as np

from emotion.clips.naming import Clip, Dropped, printable
from emotion.clips.still import Still, open_clip
from emotion.clips.video import Video, VideoError
from emotion.errors import DamagedFile, is_machine_fault
from emotion.executors import pixel_versions
from emotion.stacks.arrays import write_array
from emotion.stacks.cache import Cache
from emotion.stacks.clip_record import (
    ClipRecord,
    FileStamp,
    SegmentRecord,
    read_clip_record,
    stamp_of,
    write_clip_record,
)
from emotion.stacks.face_crop import FaceCropper
from emotion.stacks.sampling import sampled_frames
from emotion.stacks.segment import crop_segments, unfit
from emotion.stacks.settings import CacheSettings
from emotion.stacks.stack import fill_gaps, own_crops, write_stack
from emotion.watchdog import watchdog

one_at_a_time = threading.Lock()  # a Dask worker may have many threads; the face mesh serves one


@dataclass(frozen=True)
class Cutter:
    """Cuts clips into the stacks of a cache."""

    cache: Cache
    verify: bool = False  # compare the content of files even if their size and times agree
    face_model: str | None = None  # its file; None to look for it

    def record(self, clip: Clip) -> ClipRecord | None:
        """Return the record of a clip; None if the clip has changed or was never cut.

        Raises as `made`.
        """
        record = self.made(clip.id)
        if record is None:
            return None
        source = self._stamp(clip.path, record.source)
        if source.digest != record.source.digest:
            return None
        if source != record.source:
            record.source = source
            write_clip_record(self.cache.record_path(clip.id), record)
        return record

    def _stamp(self, path: Path, known: FileStamp) -> FileStamp:
        return stamp_of(path, None if self.verify else known)

    def made(self, clip_id: str) -> ClipRecord | None:
        """Return the record of a clip if its files are as recorded; None if it was never cut.

        Raises:
            DamagedFile: the record or a file is missing, damaged or of other packages.
        """
        path = self.cache.record_path(clip_id)
        record = read_clip_record(path, clip_id)
        if record is None:
            return None
        if record.packages != pixel_versions():
            raise DamagedFile(f"{path}: cut with {differing_versions(record.packages)}")
        stamps = record.files
        for name, known in stamps.items():
            stamps[name] = self._stamp(self.cache.directory / name, known)
            if stamps[name].digest != known.digest:
                raise DamagedFile(f"{self.cache.directory / name} is not what was cut")
        if stamps != record.files:
            record.segments = [
                replace(each, files={name: stamps[name] for name in each.files})
                for each in record.segments
            ]
            write_clip_record(path, record)
        return record

    def cut(self, clip: Clip) -> ClipRecord:
        """Make the stacks and the record of a clip, unless they are current.

        A clip that cannot be read is dropped in the record. So is a clip that failed for another
        reason, but then the record is not written, and the next run tries again.

        Raises:
            OSError, MemoryError: of the machine (see `is_machine_fault`), or of writing.
        """
        had = {}  # files of an earlier cut
        with suppress(DamagedFile):
            if record := self.record(clip):
                return record
        with suppress(DamagedFile):
            if last := read_clip_record(self.cache.record_path(clip.id), clip.id):
                had = last.files
        record = ClipRecord(clip=clip.id, packages=pixel_versions())
        try:
            record.source = stamp_of(clip.path)
            self._cut_segments(clip, record)
        except VideoError as error:
            record.failed = True
            record.dropped.append(Dropped(clip.id, str(error)))
        except Exception as error:  # one clip must not stop the others; it is reported
            if is_machine_fault(error) or self.cache.holds(getattr(error, "filename", None)):
                raise
            record.failed = True
            reason = printable(f"{type(error).__name__}: {error}")
            record.dropped.append(Dropped(clip.id, reason))
            return record
        for name in had.keys() - record.files.keys():
            (self.cache.directory / name).unlink(missing_ok=True)
        write_clip_record(self.cache.record_path(clip.id), record)
        return record

    def _cut_segments(self, clip: Clip, record: ClipRecord) -> None:
        settings, cache = self.cache.settings, self.cache
        video = open_sampled(clip.path, settings)
        num_images = 1 if isinstance(video, Still) else settings.num_images  # that are written
        record.fps = video.fps
        cropper = face_cropper(settings, self.face_model)
        sampling = settings.segment_frames, settings.interval, settings.by, settings.start
        for segment in crop_segments(video, cropper, *sampling):
            if flaw := unfit(segment, settings):
                record.dropped.append(Dropped(clip.id, *flaw, segment.number))
                continue
            paths = [
                path_of(clip.id, segment.number)
                for path_of in (cache.stack_path, cache.landmarks_path, cache.blendshapes_path)
            ]
            faces = fill_gaps(segment.faces, num_images)
            write_stack(paths[0], np.stack([face.crop for face in faces]))
            write_array(paths[1], np.stack([face.landmarks for face in faces]))
            write_array(paths[2], np.stack([face.blendshapes for face in faces]))
            record.segments.append(
                SegmentRecord(
                    number=segment.number,
                    num_frames=segment.num_frames,
                    num_faces=segment.num_faces,
                    has_face="".join(
                        "01"[own] for own in own_crops(segment.faces, settings.num_images)
                    ),
                    files={
                        path.relative_to(cache.directory).as_posix(): stamp_of(path)
                        for path in paths
                    },
                )
            )
        record.num_frames = video.num_frames


def cut_in_worker(cutter: Cutter, clip: Clip) -> ClipRecord:
    """Cut a clip in a process that an executor has started."""
    remedy = "convert or remove it, or skip it with num_workers=2"
    with one_at_a_time, watchdog.watch(clip.path, remedy):
        return cutter.cut(clip)


@lru_cache(maxsize=1)
def face_cropper(settings: CacheSettings, model: str | PathLike | None = None) -> FaceCropper:
    """Load the face model once per process: loading it for every clip would take 80 ms each."""
    return FaceCropper(settings, model)


def open_sampled(path: Path, settings: CacheSettings) -> Video | Still:
    """Open a clip of which only the frames that the face mesh sees need to be decoded."""
    if settings.tracking == "every_frame":
        return open_clip(path)
    return open_clip(path, partial(sampled_frames, interval=settings.interval, by=settings.by))


def differing_versions(packages: dict[str, str]) -> str:
    """Return which recorded package versions differ from the installed ones."""
    installed = pixel_versions()
    return ", ".join(
        f"{name} {packages.get(name)} (installed: {installed.get(name)})"
        for name in sorted(packages.keys() | installed.keys())
        if packages.get(name) != installed.get(name)
    )
