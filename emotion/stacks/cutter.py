"""Cut one clip into stacks: the work that an executor distributes over processes and machines."""

import threading
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from emotion.clips.naming import Clip, Dropped
from emotion.clips.still import Still, open_clip
from emotion.clips.video import Video, VideoError
from emotion.executors import pixel_versions
from emotion.stacks.cache import Cache
from emotion.stacks.clip_record import (
    ClipRecord,
    SegmentRecord,
    content_of,
    dates_of,
    read_clip_record,
    write_clip_record,
)
from emotion.stacks.face_crop import FaceCropper
from emotion.stacks.landmarks import write_landmarks
from emotion.stacks.sampling import sampled_frames
from emotion.stacks.segment import crop_segments, unfit
from emotion.stacks.settings import CacheSettings
from emotion.stacks.stack import own_crops, stack_crops, write_stack

one_at_a_time = threading.Lock()  # a Dask worker may have many threads; the face mesh serves one


@dataclass(frozen=True)
class Cutter:
    """Cuts clips into the stacks of a cache."""

    cache: Cache

    def record(self, clip: Clip) -> ClipRecord | None:
        """Return the record of a clip if it is current, else None.

        It is current if the clip is unchanged, the installed packages are those that cut it, and
        its stacks and landmarks exist. If only the dates of the clip have changed, as in a copy,
        its content is compared.
        """
        record = self.last_record(clip)
        if record is None or record.packages != pixel_versions():
            return None
        numbers = [segment.number for segment in record.segments]
        if not all(path.exists() for number in numbers for path in self._paths(clip, number)):
            return None
        try:
            dates = dates_of(clip.path)
        except OSError:  # removed since it was listed
            return None
        if dates == record.dates:
            return record
        if dates.size_bytes != record.dates.size_bytes or content_of(clip.path) != record.content:
            return None
        record.dates = dates
        write_clip_record(self.cache.record_path(clip.id), record)
        return record

    def last_record(self, clip: Clip) -> ClipRecord | None:
        """Return the record of a clip even if it is not current; None if it was never cut."""
        return read_clip_record(self.cache.record_path(clip.id))

    def cut(self, clip: Clip) -> ClipRecord:
        """Make the stacks and the record of a clip, unless they are current.

        A clip that cannot be read is dropped in the record. So is a clip that failed for another
        reason, but then the record is not written, and the next run tries again.
        """
        if record := self.record(clip):
            return record
        record = ClipRecord()
        try:
            record.dates, record.content = dates_of(clip.path), content_of(clip.path)
            record.packages = pixel_versions()
            self._cut_segments(clip, record)
        except VideoError as error:
            record.failed = True
            record.dropped.append(Dropped(clip.id, str(error)))
        except Exception as error:  # one clip must not stop the others; it is reported
            record.failed = True
            record.dropped.append(Dropped(clip.id, f"{type(error).__name__}: {error}"))
            return record
        self._remove_others(clip, record)
        write_clip_record(self.cache.record_path(clip.id), record)
        return record

    def _paths(self, clip: Clip, segment: int) -> tuple[Path, Path]:
        cache = self.cache
        return cache.stack_path(clip.id, segment), cache.landmarks_path(clip.id, segment)

    def _remove_others(self, clip: Clip, record: ClipRecord) -> None:
        """Remove the files of segments that a clip had when it was last cut, and has no more."""
        last = self.last_record(clip) or ClipRecord()
        had, has = ({segment.number for segment in r.segments} for r in (last, record))
        for number in had - has:
            for path in self._paths(clip, number):
                path.unlink(missing_ok=True)

    def _cut_segments(self, clip: Clip, record: ClipRecord) -> None:
        settings = self.cache.settings
        video = open_sampled(clip.path, settings)
        num_images = 1 if isinstance(video, Still) else settings.num_images  # that are written
        record.fps = video.fps
        sampling = settings.segment_frames, settings.interval, settings.by, settings.start
        for segment in crop_segments(video, face_cropper(settings), *sampling):
            if flaw := unfit(segment, settings):
                record.dropped.append(Dropped(clip.id, *flaw, segment.number))
                continue
            stack_path, landmarks_path = self._paths(clip, segment.number)
            write_stack(stack_path, stack_crops(segment.crops, num_images))
            write_landmarks(landmarks_path, stack_crops(segment.landmarks, num_images))
            has_face = "".join("01"[own] for own in own_crops(segment.crops, settings.num_images))
            record.segments.append(
                SegmentRecord(segment.number, segment.num_frames, segment.num_faces, has_face)
            )
        record.num_frames = video.num_frames


def cut_in_worker(cutter: Cutter, clip: Clip) -> ClipRecord:
    """Cut a clip in a process that an executor has started."""
    with one_at_a_time:
        return cutter.cut(clip)


@lru_cache(maxsize=1)
def face_cropper(settings: CacheSettings) -> FaceCropper:
    """Load the face mesh once per process: loading it for every clip would take 80 ms each."""
    return FaceCropper(settings)


def open_sampled(path: Path, settings: CacheSettings) -> Video | Still:
    """Open a clip of which only the frames that the face mesh sees need to be decoded."""
    if settings.tracking == "every_frame":
        return open_clip(path)
    return open_clip(path, partial(sampled_frames, interval=settings.interval, by=settings.by))
