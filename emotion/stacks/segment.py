"""Segments: a clip is read once, cut into segments, and the face in each sampled frame cropped."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from emotion.clips.video import Picture, Pictures
from emotion.stacks.face_crop import Face, FaceCropper
from emotion.stacks.sampling import number_frames
from emotion.stacks.settings import CacheSettings


@dataclass(frozen=True)
class CroppedFrame:
    """A frame of a clip, and the person's face in it, if the frame is sampled and shows one."""

    number: int
    picture: Picture
    sampled: bool
    face: Face | None = None
    num_faces: int = 0  # seen at once


@dataclass
class Segment:
    """A stretch of a clip, numbered from 1, with the face of each sampled frame in it."""

    number: int
    first_frame: int = 0
    num_frames: int = 0
    num_faces: int = 0  # seen at once, at most
    faces: list[Face | None] = field(default_factory=list)

    @property
    def face_frames(self) -> int:
        """The number of sampled frames that show a face."""
        return sum(face is not None for face in self.faces)


def crop_frames(
    video: Pictures, cropper: FaceCropper, interval: int, by: str = "frames"
) -> Iterator[CroppedFrame]:
    """Yield each frame of a clip or a camera when decoded and, if sampled, cropped."""
    cropper.start_clip()
    pictures = ((picture.time_s, picture) for picture in video.pictures())
    for number, picture in number_frames(pictures, by, video.fps):
        if number % interval:
            if cropper.tracking == "every_frame":
                cropper.observe(picture.rgb())
            yield CroppedFrame(number, picture, sampled=False)
        else:
            face = cropper.crop(picture.rgb())
            yield CroppedFrame(number, picture, True, face, cropper.num_seen)


def crop_segments(
    video: Pictures,
    cropper: FaceCropper,
    segment_frames: int,
    interval: int,
    by: str = "frames",
    start: str = "clip",
) -> Iterator[Segment]:
    """Read a clip once, cut it into segments, and crop the face in each sampled frame.

    With `start=first_face`, segment 1 begins with the first sampled frame that shows a face. Frames
    are sampled at multiples of the interval in the clip either way. The last segment may be a tail.
    A clip without a face gives one segment without a crop. An unreadable one raises a VideoError.
    """
    segment = Segment(number=1)
    first = 0 if start == "clip" else None  # the first frame of segment 1
    index = -1
    for frame in crop_frames(video, cropper, interval, by):
        index = frame.number
        if not frame.sampled:
            continue
        if first is None and frame.face is not None:
            first = index
            segment = Segment(1, first_frame=index, num_faces=segment.num_faces)
        if first is not None and index - first == segment.number * segment_frames:
            segment.num_frames = segment_frames
            yield segment
            segment = Segment(segment.number + 1, first_frame=index)
        segment.faces.append(frame.face)
        segment.num_faces = max(segment.num_faces, frame.num_faces)
    segment.num_frames = index + 1 - segment.first_frame
    yield segment


def unfit(segment: Segment, settings: CacheSettings) -> tuple[str, str] | None:
    """Return why a segment makes no stack (reason and numbers); None if it makes one."""
    if segment.num_frames < settings.min_frames:
        reason = f"fewer than data.min_frames={settings.min_frames} frames"
        return reason, f"{segment.num_frames} frames"
    sampled = len(segment.faces)
    if settings.enough_faces(segment.face_frames, sampled):
        return None
    reason = f"a face in less of it than sampling.min_face_fraction={settings.min_face_fraction}"
    return reason, f"in {segment.face_frames} of {sampled} sampled frames"
