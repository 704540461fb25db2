"""crops ──stack──> one (T, H, W) array and one TIFF a segment, and their landmarks beside it.

The fifth step of the way of the data. A cached stack holds a crop at every `sampling.interval`;
stacks of longer intervals are taken from it without the clip. Its landmarks, (T, 468, 3) in a NumPy
file, are those of the same images. The cached stack of a still holds its one image and stands for
T of them, of which the first alone counts as a crop of its own frame.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import tifffile

from emotion.clips.video import Picture, Pictures
from emotion.files import unfinished
from emotion.stacks.face_crop import FaceCropper
from emotion.stacks.sampling import number_frames

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive
STARTS = ("clip", "first_face")


@dataclass(frozen=True)
class CroppedFrame:
    """A frame of a clip, and the face in it if the frame is sampled.

    Attributes:
        number: as `number_frames` counts.
        picture: the frame.
        sampled: whether the face was looked for.
        crop: (H, W) uint8 gray, or None where there is no face.
        box: where the crop was cut out, or None.
        num_faces: that were seen.
        landmarks: (468, 3) float32 of the face in the crop, see `normalize_landmarks`, or None.
    """

    number: int
    picture: Picture
    sampled: bool
    crop: np.ndarray | None = None
    box: Box | None = None
    num_faces: int = 0
    landmarks: np.ndarray | None = None


@dataclass
class Segment:
    """A stretch of a clip, and the faces in it.

    Attributes:
        number: counted from 1 in the clip, as in the stack's file name.
        first_frame: the number of its first frame in the clip.
        num_frames: frames of the clip in it; a tail has fewer than the others.
        num_faces: the most that were seen at once.
        crops: of each sampled frame in turn, (H, W) uint8 gray, or None where there is no face.
        boxes: where each of them was cut out, or None.
        landmarks: of the face in each of them, (468, 3) float32, or None.
    """

    number: int
    first_frame: int = 0
    num_frames: int = 0
    num_faces: int = 0
    crops: list[np.ndarray | None] = field(default_factory=list)
    boxes: list[Box | None] = field(default_factory=list)
    landmarks: list[np.ndarray | None] = field(default_factory=list)

    @property
    def face_frames(self) -> int:
        """How many of the sampled frames show a face."""
        return sum(crop is not None for crop in self.crops)


def crop_frames(
    video: Pictures, cropper: FaceCropper, interval: int, by: str = "frames"
) -> Iterator[CroppedFrame]:
    """Walk through a clip once, frame by frame; crop the face of each sampled one.

    Args:
        video: a clip, not read yet, or a camera.
        cropper: finds the face; forgets the clip before.
        interval: frames from one sampled frame to the next.
        by: `frames`, those of the file; or `time`, frames are moments, see `number_frames`.

    Yields:
        Every frame, as soon as it is decoded and, if sampled, cropped.

    Raises:
        VideoError: the clip can't be read.
    """
    cropper.start_clip()
    pictures = ((picture.time_s, picture) for picture in video.pictures())
    for number, picture in number_frames(pictures, by, video.fps):
        if number % interval:
            if cropper.tracking == "every_frame":
                cropper.observe(picture.rgb())
            yield CroppedFrame(number, picture, sampled=False)
        else:
            crop = cropper.crop(picture.rgb())
            yield CroppedFrame(
                number, picture, True, crop, cropper.box, cropper.num_seen, cropper.landmarks
            )


def crop_segments(
    video: Pictures,
    cropper: FaceCropper,
    segment_frames: int,
    interval: int,
    by: str = "frames",
    start: str = "clip",
) -> Iterator[Segment]:
    """Walk through a clip once: cut it into segments, crop the face of each sampled frame.

    Args:
        video: the clip, not read yet.
        cropper: finds the face; forgets the clip before.
        segment_frames: frames in a segment.
        interval: frames from one sampled frame to the next; divides `segment_frames`.
        by: `frames`, those of the file; or `time`, frames are moments, see `number_frames`.
        start: `clip`, segment 1 begins with the clip; or `first_face`, it begins with the first
            sampled frame that shows a face. Frames are sampled at multiples of the interval in
            the clip either way.

    Yields:
        Each segment once its last frame is read; the last one may be a tail. A clip without a face
        gives one segment without a crop.

    Raises:
        VideoError: the clip can't be read.
    """
    segment = Segment(number=1)
    first = 0 if start == "clip" else None  # the frame that segment 1 begins with
    index = -1
    for frame in crop_frames(video, cropper, interval, by):
        index = frame.number
        if not frame.sampled:
            continue
        if first is None and frame.crop is not None:
            first = segment.first_frame = index
            segment.crops.clear()  # the frames before
            segment.boxes.clear()
            segment.landmarks.clear()
        if first is not None and index - first == segment.number * segment_frames:
            segment.num_frames = segment_frames
            yield segment
            segment = Segment(segment.number + 1, first_frame=index)
        segment.crops.append(frame.crop)
        segment.boxes.append(frame.box)
        segment.landmarks.append(frame.landmarks)
        segment.num_faces = max(segment.num_faces, frame.num_faces)
    segment.num_frames = index + 1 - segment.first_frame
    yield segment


def source_images(has_face: Sequence[bool]) -> np.ndarray:
    """Say which image stands at each place of a stack.

    Where no face was found the last crop before is used again; before the first crop, that one.
    (The seed puts black images there. In data where some classes open with black frames more often
    than others, a model reads the label off them.)

    Args:
        has_face: for each of the T places, whether a crop was found there.

    Returns:
        (T,) int64, places that have a crop.

    Raises:
        ValueError: there is no crop at all.

    >>> source_images([False, True, False, True]).tolist()
    [1, 1, 1, 3]
    """
    found = np.flatnonzero(has_face)
    if found.size == 0:
        raise ValueError("no place of the stack has a crop")
    before = np.searchsorted(found, np.arange(len(has_face)), side="right") - 1
    return found[np.maximum(before, 0)]


def stack_crops(crops: Sequence[np.ndarray | None], num_images: int) -> np.ndarray:
    """Stack the crops of a segment, or their landmarks; repeat them where there are none.

    Args:
        crops: of each sampled frame in turn, (H, W) uint8 or None; a tail has fewer than
            `num_images` of them. Or the landmarks of these crops, (468, 3) float32 or None.
        num_images: T, the images of a stack.

    Returns:
        (T, H, W) uint8; of landmarks, (T, 468, 3) float32.
    """
    return np.stack([crops[i] for i in source_images(own_crops(crops, num_images))])


def own_crops(crops: Sequence[np.ndarray | None], num_images: int) -> list[bool]:
    """Tell which of a stack's `num_images` are crops of their own frames; a tail lacks the last."""
    found = [crop is not None for crop in crops]
    return found + [False] * (num_images - len(found))


def take_images(has_face: Sequence[bool], step: int) -> np.ndarray:
    """Say which images of a cached stack make the stack of a longer interval.

    The answer is what cutting the clip at that interval would give: a crop between two of its
    sampled frames is never used, not even to fill in for a missing face.

    Args:
        has_face: for each of the T cached images, whether it is a crop of its own frame.
        step: every how many cached images one is taken.

    Returns:
        (ceil(T / step),) int64, indices into the cached stack. Where none of the taken frames has
        a face, every `step`-th image as it is.

    >>> take_images([True, True, False, True, False, False], step=2).tolist()
    [0, 0, 0]
    """
    taken = list(has_face)[::step]
    if not any(taken):
        return np.arange(0, len(has_face), step)
    return source_images(taken) * step


def model_images(
    stack: np.ndarray, has_face: Sequence[bool], step: int, image_px: int
) -> np.ndarray:
    """Make of a cached stack what a model takes.

    Args:
        stack: (T, H, W) uint8, of crops at every `sampling.interval`; (1, H, W) of a still.
        has_face: for each of the T images, whether it is a crop of its own frame.
        step: every how many of them one is taken.
        image_px: height and width of the images given out.

    Returns:
        (ceil(T / step), image_px, image_px) uint8, with channels last in memory.
    """
    taken = stack[take_images(has_face, step)]
    if taken.shape[-1] != image_px:
        size = (image_px, image_px)
        taken = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in taken]
    images = cv2.merge(list(taken)).reshape(image_px, image_px, -1)  # (H, W, T)
    return images.transpose(2, 0, 1)  # (T, H, W)


def model_landmarks(landmarks: np.ndarray, has_face: Sequence[bool], step: int) -> np.ndarray:
    """Make of cached landmarks what a model takes beside `model_images`.

    Args:
        landmarks: (T, 468, 3) float32, of the images of a cached stack; (1, 468, 3) of a still.
        has_face: for each of the T images, whether it is a crop of its own frame.
        step: every how many of them one is taken.

    Returns:
        (ceil(T / step), 468, 3) float32, a new array.
    """
    return landmarks[take_images(has_face, step)]


def write_stack(path: Path, stack: np.ndarray) -> None:
    """Write a stack as an uncompressed ImageJ TIFF, whole or not at all.

    Args:
        path: the file; its folder is made.
        stack: (T, H, W) uint8.
    """
    assert stack.ndim == 3 and stack.dtype == np.uint8
    tiff = io.BytesIO()  # in memory first: NumPy's own writing does not say that a disk is full
    tifffile.imwrite(tiff, stack, imagej=True, metadata={"axes": "CYX", "mode": "grayscale"})
    with unfinished(path) as temporary:
        temporary.write_bytes(tiff.getbuffer())


def read_stack(path: Path) -> np.ndarray:
    """Map a stack into memory; its images are read from disk when they are looked at.

    Args:
        path: a TIFF that `write_stack`, or the seed, has written; one that cannot be mapped, such
            as a compressed one, is read at once.

    Returns:
        (T, H, W) uint8, not to be written to.
    """
    try:
        stack = tifffile.memmap(path, mode="r")
    except ValueError:
        stack = tifffile.imread(path)
    return stack.reshape(-1, *stack.shape[-2:])  # the seed's files have axes of length 1


def write_landmarks(path: Path, landmarks: np.ndarray) -> None:
    """Write the landmarks of a stack's images as a NumPy file, whole or not at all.

    Args:
        path: the file; its folder is made.
        landmarks: (T, 468, 3) float32.
    """
    assert landmarks.ndim == 3 and landmarks.dtype == np.float32
    content = io.BytesIO()  # see write_stack
    np.save(content, landmarks, allow_pickle=False)
    with unfinished(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_landmarks(path: Path) -> np.ndarray:
    """Read what `write_landmarks` wrote.

    Args:
        path: the NumPy file.

    Returns:
        (T, 468, 3) float32.
    """
    return np.load(path, allow_pickle=False)
