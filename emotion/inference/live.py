"""Predict the emotion of the last three seconds of a webcam, or of a clip in place of one.

Camera frames take the same path as a clip's: the same crops, the same stack. They are numbered by
time, 30 per second, whatever the frame rate of the camera.
"""

import json
import logging
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from emotion.clips.read_ahead import ReadAhead
from emotion.clips.video import Picture, Pictures, Video, VideoError
from emotion.errors import UserError
from emotion.inference.answer import Probabilities, rounded, summary, top_label
from emotion.inference.drawing import annotate, write_clip
from emotion.inference.recognizer import EmotionRecognizer
from emotion.stacks.face_crop import Box, FaceCropper
from emotion.stacks.sampling import NOMINAL_FPS
from emotion.stacks.segment import crop_frames

log = logging.getLogger(__name__)

TITLE = "emotion (q closes)"
CLOSING_KEYS = (ord("q"), 27)  # 27 is Esc


@dataclass(frozen=True)
class LiveFrame:
    """A frame with the latest prediction."""

    number: int  # of the frame, 30 per second
    picture: Picture
    box: Box | None  # of the face in the last sampled frame
    probabilities: Probabilities | None  # None before the first prediction, or if it found no face
    is_answer: bool  # whether the prediction was made at this frame

    @property
    def time_s(self) -> float:
        """The seconds watched so far."""
        return round((self.number + 1) / NOMINAL_FPS, 3)

    def to_json(self) -> str:
        """Return the prediction as one line of JSON."""
        answer = {"time_s": self.time_s, "label": top_label(self.probabilities)}
        answer["probabilities"] = rounded(self.probabilities)
        return json.dumps(answer, ensure_ascii=False, allow_nan=False)


class Camera:
    """A camera of this machine; implements `Pictures`."""

    def __init__(self, number: int) -> None:
        """Open a camera by the system's number, from 0, or raise a UserError."""
        cv2.utils.logging.setLogLevel(0)  # OpenCV prints every backend that it has tried
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened() or not self._capture.read()[0]:
            raise UserError(
                f"source={number}: there is no such camera, or another program uses it; "
                "source=clip.mp4 uses a clip instead"
            )
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 30.0

    def pictures(self) -> Iterator[Picture]:
        """Yield frames until the camera is disconnected."""
        converter = VideoReformatter()
        start_s = time.monotonic()
        try:
            while (read := self._capture.read())[0]:
                frame = av.VideoFrame.from_ndarray(read[1], format="bgr24")
                yield Picture(frame, time.monotonic() - start_s, converter)
        finally:
            self._capture.release()


class PlayedClip(Video):
    """A clip that yields its frames at its own speed, as a camera does."""

    def pictures(self) -> Iterator[Picture]:
        """Yield each frame when it is due by its timestamp, or else by the frame rate."""
        start_s = time.monotonic()
        first_s = None
        for number, picture in enumerate(super().pictures()):
            time_s = number / self.fps if picture.time_s is None else picture.time_s
            first_s = time_s if first_s is None else first_s
            time.sleep(max(0.0, start_s + time_s - first_s - time.monotonic()))
            yield picture


def watch(recognizer: EmotionRecognizer, source: Pictures, stride: int) -> Iterator[LiveFrame]:
    """Predict the emotion of the most recent frames every `stride` frames.

    `recognizer.predict` may be called between two frames: `watch` has a face mesh of its own.

    Yields:
        Every frame. The first prediction is made at `min_frames` frames, padded like the tail of a
        clip; from `segment_frames` on, each is of the last `segment_frames` frames.
    """
    recognizer.check_stride(stride)
    settings = recognizer.settings
    faces = deque(maxlen=settings.num_images)
    probabilities = None
    # Not the cropper of the process, which `predict` uses.
    cropper = FaceCropper(settings, recognizer.face_model)
    for frame in crop_frames(source, cropper, settings.interval, by="time"):
        covered = frame.number + settings.interval  # number of frames that the faces represent
        is_answer = frame.sampled and covered % stride == 0 and covered >= settings.min_frames
        if frame.sampled:
            faces.append(frame.face)
        if is_answer:
            probabilities = recognizer.probabilities(list(faces))
        box = faces[-1] and faces[-1].box  # frame 0 is sampled
        yield LiveFrame(frame.number, frame.picture, box, probabilities, is_answer)


def open_source(source: int | str, realtime: bool) -> ReadAhead:
    """Open a camera, by its number, or a clip in place of one, or raise a UserError.

    With `realtime`, a clip is played at its own speed, and frames that come too fast are dropped.
    """
    if str(source).isdigit():
        return ReadAhead(Camera(int(source)), drop_late=True)
    try:
        clip = (PlayedClip if realtime else Video)(Path(str(source)).expanduser())
    except VideoError as error:
        raise UserError(f"source={source}: {error}") from None
    return ReadAhead(clip, drop_late=realtime)


def watch_to_files(
    recognizer: EmotionRecognizer,
    source: ReadAhead,
    stride: int,
    folder: Path,
    *,
    window: bool,
    render: bool,
) -> None:
    """Watch a source until it ends, Ctrl-C, or its window is closed; log each prediction.

    `live.jsonl` in the folder gets the predictions, `live.mp4` the annotated frames with `render`.
    """
    threshold = recognizer.unsure_below
    with ExitStack() as stack, suppress(KeyboardInterrupt):
        lines = stack.enter_context(open(folder / "live.jsonl", "w", encoding="utf-8"))
        outputs = [stack.enter_context(open_window())] if window else []
        if render:
            outputs.append(stack.enter_context(write_clip(folder / "live.mp4", NOMINAL_FPS)))
        for frame in watch(recognizer, source, stride):
            if frame.is_answer:
                log.info("%6.1f s  %s", frame.time_s, summary(frame.probabilities, threshold))
                print(frame.to_json(), file=lines, flush=True)
            if outputs:
                note = "no face" if frame.box is None else "waiting ..."
                rgb, probabilities = frame.picture.rgb(), frame.probabilities
                picture = annotate(rgb, frame.box, probabilities, threshold, note)
                for output in outputs:
                    output(picture)
    log.info("live.jsonl%s: %s", ", live.mp4" * render, folder)
    if source.num_dropped:
        log.info("%d frames came too fast and were dropped", source.num_dropped)


@contextmanager
def open_window() -> Iterator[Callable[[np.ndarray], None]]:
    """Open a window, or raise a UserError if there is no display.

    Yields:
        A function that shows the next frame, (H, W, 3) uint8 RGB. It raises KeyboardInterrupt if
        the window was closed, by q, Esc or its button.
    """
    # Checked in a process of its own: without a display, Qt ends the process that opens a window.
    check = subprocess.run(
        [sys.executable, "-c", "import cv2; cv2.namedWindow('x'); cv2.waitKey(1)"],
        capture_output=True,
    )
    if check.returncode:
        raise UserError(
            "window=true, but there is no display: set window=false, and render=true to write "
            "what the window would show"
        )

    def show(frame: np.ndarray) -> None:
        cv2.imshow(TITLE, frame[..., ::-1])
        key = cv2.waitKey(1) & 0xFF
        if key in CLOSING_KEYS or cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            raise KeyboardInterrupt

    try:
        yield show
    finally:
        cv2.destroyAllWindows()
