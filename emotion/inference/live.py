"""a camera ──watch──> what the model says of the last three seconds, again and again.

A camera gives pictures as a clip does, so all else is the way of the data: the same crops, the same
stack. Frames are counted by time, 30 a second, whatever the camera's rate is.
"""

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from emotion.clips.video import Picture, Pictures, Video
from emotion.errors import UserError
from emotion.inference.answer import Probabilities, rounded, top_label
from emotion.inference.recognizer import EmotionRecognizer
from emotion.stacks.cutter import face_cropper, one_at_a_time
from emotion.stacks.sampling import NOMINAL_FPS
from emotion.stacks.segment import Box, crop_frames

TITLE = "emotion (q closes)"
CLOSING_KEYS = (ord("q"), 27)  # 27 is Esc


@dataclass(frozen=True)
class LiveFrame:
    """A frame, and what is said of it.

    Attributes:
        number: of the moment that it shows, 30 a second.
        picture: the frame.
        box: of the face in the last sampled frame, or None.
        probabilities: of the last answer; None before the first one, or where it found no face.
        is_answer: whether the answer was given at this very frame.
    """

    number: int
    picture: Picture
    box: Box | None
    probabilities: Probabilities | None
    is_answer: bool

    @property
    def time_s(self) -> float:
        """How long the source has been watched."""
        return (self.number + 1) / NOMINAL_FPS

    def to_json(self) -> str:
        """Write the answer as one line of JSON."""
        answer = {
            "time_s": round(self.time_s, 3),
            "label": top_label(self.probabilities),
            "probabilities": rounded(self.probabilities),
        }
        return json.dumps(answer, ensure_ascii=False, allow_nan=False)


class Camera:
    """A camera of this machine; see `Pictures`."""

    def __init__(self, number: int) -> None:
        """Open it.

        Args:
            number: as the system counts its cameras, from 0.

        Raises:
            UserError: there is none of this number, or it does not answer.
        """
        level = cv2.getLogLevel()
        cv2.setLogLevel(0)  # it would list on stderr all that it has tried
        self._capture = cv2.VideoCapture(number)
        answers = self._capture.isOpened() and self._capture.read()[0]
        cv2.setLogLevel(level)
        if not answers:
            raise UserError(
                f"source={number}: there is no such camera, or another program has it; "
                "source=clip.mp4 takes a clip for one"
            )
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 30.0

    def pictures(self) -> Iterator[Picture]:
        """Give frames until the camera is gone."""
        converter = VideoReformatter()
        start_s = time.monotonic()
        try:
            while (read := self._capture.read())[0]:
                frame = av.VideoFrame.from_ndarray(read[1], format="bgr24")
                yield Picture(frame, time.monotonic() - start_s, converter)
        finally:
            self._capture.release()


class PlayedClip:
    """A clip that shows its frames when their time has come, as a camera would; see `Pictures`."""

    def __init__(self, video: Video) -> None:
        """Take a clip, not read yet."""
        self._video = video
        self.fps = video.fps

    def pictures(self) -> Iterator[Picture]:
        """Give each frame when it is due, by the clip's clock or else by its rate."""
        start_s = time.monotonic()
        first_s = None
        for number, picture in enumerate(self._video.pictures()):
            time_s = number / self.fps if picture.time_s is None else picture.time_s
            first_s = time_s if first_s is None else first_s
            time.sleep(max(0.0, start_s + time_s - first_s - time.monotonic()))
            yield picture


def watch(recognizer: EmotionRecognizer, source: Pictures, stride: int) -> Iterator[LiveFrame]:
    """Say every `stride` frames what the frames up to now show.

    Args:
        recognizer: the model.
        source: a camera, or a clip.
        stride: frames from one answer to the next; see `EmotionRecognizer.check_stride`.

    Yields:
        Every frame. The first answer comes with the first `min_frames` frames, padded to a segment
        as a clip's tail; from `segment_frames` on, each is about the last segment of them.

    Raises:
        UserError: there is no such stride.
        VideoError: the clip can't be read.
    """
    recognizer.check_stride(stride)
    settings = recognizer.recipe.settings
    crops: deque[np.ndarray | None] = deque(maxlen=settings.num_images)
    points: deque[np.ndarray | None] = deque(maxlen=settings.num_images)
    box = probabilities = None
    with one_at_a_time:
        for frame in crop_frames(source, face_cropper(settings), settings.interval, by="time"):
            covered = frame.number + settings.interval  # frames that the crops up to here stand for
            is_answer = frame.sampled and covered % stride == 0 and covered >= settings.min_frames
            if frame.sampled:
                box = frame.box
                crops.append(frame.crop)
                points.append(frame.landmarks)
            if is_answer:
                probabilities = recognizer.probabilities(list(crops), list(points))
            yield LiveFrame(frame.number, frame.picture, box, probabilities, is_answer)


@contextmanager
def open_window() -> Iterator[Callable[[np.ndarray], bool]]:
    """Open a window.

    Yields:
        A function that shows the next frame, (H, W, 3) uint8 RGB, and tells whether the window is
        to stay: not after q or Esc, or once it was closed.

    Raises:
        UserError: there is no display.
    """
    # Asked in a process of its own: where there is no display, Qt ends the process that asks.
    asked = subprocess.run(
        [sys.executable, "-c", "import cv2; cv2.namedWindow('x'); cv2.waitKey(1)"],
        capture_output=True,
    )
    if asked.returncode:
        raise UserError(
            "there is no display to open a window on: window=false does without, "
            "and render=true writes what it would show"
        )

    def show(frame: np.ndarray) -> bool:
        cv2.imshow(TITLE, frame[..., ::-1])
        key = cv2.waitKey(1) & 0xFF
        return key not in CLOSING_KEYS and cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) > 0

    try:
        yield show
    finally:
        cv2.destroyAllWindows()
