"""One clip to its stacks and its record: the work that processes and machines share out.

Runs the way of the data for one clip, read to stack, wherever an executor puts it. All that it
needs comes as arguments, all that it makes goes into the cache's folder.
"""

import hashlib
import json
import threading
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from emotion.clips.naming import Clip
from emotion.clips.still import Still, open_clip
from emotion.clips.video import VideoError
from emotion.errors import UserError
from emotion.executors import begin_work
from emotion.files import unfinished
from emotion.stacks.face_crop import FITS, FOLLOW, TRACKING, FaceCropper
from emotion.stacks.sampling import BY, num_images
from emotion.stacks.stack import (
    STARTS,
    Segment,
    crop_segments,
    own_crops,
    stack_crops,
    write_landmarks,
    write_stack,
)

CHUNK_BYTES = 1 << 20
# Those that older caches and recipes lack, as they had them.
LATER_SETTINGS = {"refine": False, "fit": "box"}
one_at_a_time = threading.Lock()  # a Dask worker may have many threads, the face mesh serves one


@dataclass(frozen=True)
class CacheSettings:
    """Every setting that changes which stacks a clip gives, or their pixels.

    The names are those of the config: `min_frames` stands under `data`, the next five under
    `sampling`, the rest under `face`.
    """

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
    refine: bool = False
    fit: str = "box"

    def __post_init__(self) -> None:
        """Check what a config can get wrong.

        Raises:
            UserError: names the key that is at fault.
        """
        num_images(self.segment_frames, self.interval)
        for key, value, choices in (
            ("sampling.by", self.by, BY),
            ("sampling.start", self.start, STARTS),
            ("face.tracking", self.tracking, TRACKING),
            ("face.follow", self.follow, FOLLOW),
            ("face.fit", self.fit, FITS),
        ):
            if value not in choices:
                raise UserError(f"{key}={value}: it is one of {', '.join(choices)}")
        for key, value in (
            ("sampling.min_face_fraction", self.min_face_fraction),
            ("face.min_confidence", self.min_confidence),
        ):
            if not 0 <= value <= 1:
                raise UserError(f"{key}={value}: it is a fraction, 0 to 1")
        if not 1 <= self.min_frames <= self.segment_frames:
            raise UserError(
                f"data.min_frames={self.min_frames}: it is 1 to "
                f"sampling.segment_frames={self.segment_frames}"
            )
        if self.size_px < 1 or self.margin < 0:
            raise UserError(
                f"face.size_px={self.size_px} and face.margin={self.margin}: "
                "the size is at least 1, the margin at least 0"
            )

    @property
    def num_images(self) -> int:
        """T, the images of a cached stack."""
        return num_images(self.segment_frames, self.interval)

    def enough_faces(self, face_frames: int, sampled_frames: int) -> bool:
        """Tell whether so many of some sampled frames show a face that they may make a stack."""
        return face_frames >= max(1, self.min_face_fraction * sampled_frames)

    @property
    def folder(self) -> str:
        """A folder name that no other settings have."""
        return (
            f"{self.segment_frames}{self.by}-every{self.interval}-from_{self.start}"
            f"-min{self.min_frames}-faces{self.min_face_fraction}_{self.tracking}-{self.follow}"
            f"-margin{self.margin}{'-level' * self.align}{'-features' * (self.fit == 'features')}"
            f"-{self.size_px}px-confidence{self.min_confidence}{'-refined' * self.refine}"
        )


@dataclass
class ClipRecord:
    """How one clip was cut.

    Attributes:
        size_bytes: of the clip's file.
        modified_ns: when it was last written.
        changed_ns: when anything of it was last changed, its name or owner too.
        content: BLAKE2b hash of the file.
        fps: frames per second by the header.
        num_frames: of the file, decoded.
        segments: of each stack: its segment's number and frames, the faces seen at once, and which
            places have a crop.
        dropped: of each segment that made no stack, the fields of a `Dropped` but for the clip.
        failed: whether the file could not be read, or its reader broke down.
    """

    size_bytes: int = 0
    modified_ns: int = 0
    changed_ns: int = 0
    content: str = ""
    fps: float = 0.0
    num_frames: int = 0
    failed: bool = False
    segments: list[dict] = field(default_factory=list)
    dropped: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Cutter:
    """Cuts clips into stacks in one folder, under one set of settings.

    Attributes:
        directory: the cache's folder.
        settings: how clips are cut and cropped.
    """

    directory: Path
    settings: CacheSettings

    def stack_path(self, clip_id: str, segment: int) -> Path:
        """Name the TIFF of a segment."""
        return self.directory / "stacks" / f"{clip_id}_{segment:04d}.tiff"

    def landmarks_path(self, clip_id: str, segment: int) -> Path:
        """Name the landmarks of a segment's stack."""
        return self.directory / "landmarks" / f"{clip_id}_{segment:04d}.npy"

    def record_path(self, clip_id: str) -> Path:
        """Name the record of a clip."""
        return self.directory / "clips" / f"{clip_id}.json"

    def record(self, clip: Clip) -> ClipRecord | None:
        """Read how a clip was cut, if it was, has not changed since, and what it gave stands there.

        A clip whose dates alone have changed, as those of a copy, is told by its content.
        """
        record = self._last_record(clip)
        if record is None:
            return None
        numbers = [segment["number"] for segment in record.segments]
        if not all(path.exists() for number in numbers for path in self._paths(clip, number)):
            return None
        try:
            dates = dates_of(clip.path)
        except OSError:  # gone since it was listed
            return None
        if dates == {key: getattr(record, key) for key in dates}:
            return record
        if dates["size_bytes"] != record.size_bytes or content_of(clip.path) != record.content:
            return None
        record = replace(record, **dates)
        self._write_record(clip, record)
        return record

    def _paths(self, clip: Clip, segment: int) -> tuple[Path, Path]:
        """Name all that a segment gives."""
        return self.stack_path(clip.id, segment), self.landmarks_path(clip.id, segment)

    def _last_record(self, clip: Clip) -> ClipRecord | None:
        """Read how a clip was cut when that was last done, whatever has changed since."""
        try:
            return ClipRecord(**json.loads(self.record_path(clip.id).read_text()))
        except FileNotFoundError:
            return None

    def _remove_stacks(self, clip: Clip, last: ClipRecord, record: ClipRecord) -> None:
        """Remove the stacks, and their landmarks, of segments that a clip no longer has."""
        had, has = ({s["number"] for s in r.segments} for r in (last, record))
        for number in had - has:
            for path in self._paths(clip, number):
                path.unlink(missing_ok=True)

    def _write_record(self, clip: Clip, record: ClipRecord) -> None:
        with unfinished(self.record_path(clip.id)) as temporary:
            temporary.write_text(json.dumps(asdict(record)))

    def cut(self, clip: Clip) -> ClipRecord:
        """Make a clip's stacks and its record, where they are not there yet.

        Args:
            clip: what to cut.

        Returns:
            The record. A clip that can't be read is dropped in it; one that failed for another
            reason too, but then the record is not kept on disk, so that the next run tries again.
        """
        if record := self.record(clip):
            return record
        record = ClipRecord()
        try:
            record = ClipRecord(**dates_of(clip.path), content=content_of(clip.path))
            self._cut_segments(clip, record)
        except VideoError as error:
            record.failed = True
            record.dropped.append({"reason": str(error)})
        except Exception as error:  # one clip must not stop the others; it is reported
            record.failed = True
            record.dropped.append({"reason": f"{type(error).__name__}: {error}"})
            return record
        if last := self._last_record(clip):
            self._remove_stacks(clip, last, record)
        self._write_record(clip, record)
        return record

    def _cut_segments(self, clip: Clip, record: ClipRecord) -> None:
        """Read a clip and write a stack for every segment that has enough frames and faces.

        Args:
            clip: what to cut.
            record: takes down the segments made and dropped.

        Raises:
            VideoError: the clip can't be read.
        """
        settings = self.settings
        video = open_clip(clip.path)
        num_images = 1 if isinstance(video, Still) else settings.num_images  # of what is written
        record.fps = video.fps
        segments = crop_segments(
            video,
            face_cropper(settings),
            settings.segment_frames,
            settings.interval,
            settings.by,
            settings.start,
        )
        for segment in segments:
            if flaw := unfit(segment, settings):
                record.dropped.append({"segment": segment.number, **flaw})
                continue
            stack = stack_crops(segment.crops, num_images)
            landmarks = stack_crops(segment.landmarks, num_images)
            write_stack(self.stack_path(clip.id, segment.number), stack)
            write_landmarks(self.landmarks_path(clip.id, segment.number), landmarks)
            has_face = own_crops(segment.crops, settings.num_images)
            record.segments.append(
                {
                    "number": segment.number,
                    "num_frames": segment.num_frames,
                    "num_faces": segment.num_faces,
                    "has_face": "".join("1" if found else "0" for found in has_face),
                }
            )
        record.num_frames = video.num_frames


def cut_in_worker(cutter: Cutter, clip: Clip) -> ClipRecord:
    """Cut a clip in a process that an executor has started.

    Args:
        cutter: see `Cutter.cut`.
        clip: what to cut.

    Returns:
        The clip's record.
    """
    begin_work()
    with one_at_a_time:
        return cutter.cut(clip)


@lru_cache(maxsize=1)
def face_cropper(settings: CacheSettings) -> FaceCropper:
    """Load the face mesh once a process: a new one for every clip would cost 80 ms each."""
    return FaceCropper(
        settings.tracking,
        settings.follow,
        settings.margin,
        settings.align,
        settings.size_px,
        settings.min_confidence,
        settings.refine,
        settings.fit,
    )


def dates_of(path: Path) -> dict[str, int]:
    """Read the size and the dates of a file, or of a symbolic link that leads nowhere."""
    try:
        stat = path.stat()
    except OSError:
        stat = path.lstat()
    return {
        "size_bytes": stat.st_size,
        "modified_ns": stat.st_mtime_ns,
        "changed_ns": stat.st_ctime_ns,
    }


def content_of(path: Path) -> str:
    """Hash a file; "" where it can't be read, which is found out again by decoding it."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def unfit(segment: Segment, settings: CacheSettings) -> dict[str, str] | None:
    """Say why a segment makes no stack, as `reason` and `detail`; None if it does."""
    if segment.num_frames < settings.min_frames:
        return {
            "reason": f"fewer than data.min_frames={settings.min_frames} frames",
            "detail": f"{segment.num_frames} frames",
        }
    sampled = len(segment.crops)
    if not settings.enough_faces(segment.face_frames, sampled):
        return {
            "reason": "a face in less of it than "
            f"sampling.min_face_fraction={settings.min_face_fraction}",
            "detail": f"in {segment.face_frames} of {sampled} sampled frames",
        }
    return None
