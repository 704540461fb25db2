"""clips ──read──> the sampled frames, and nothing else.

The third step of the way of the data. OpenCV decodes: it can obey the rotation in the metadata, and
`grab()` without `retrieve()` spares the colour conversion of the frames that nobody asked for.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# FFmpeg, inside OpenCV, would write a line to stderr for every damaged packet; what matters of it
# is reported as a VideoError or as a clip that is too short.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2  # reads the two variables when it is imported


class VideoError(ValueError):
    """A file that is no video, or one without a frame that decodes."""


class Video:
    """One pass over a clip's frames.

    Attributes:
        path: the file.
        fps: frames per second by the header; 0 where it says nothing.
        num_frames: frames decoded so far. Headers lie about the count, so it is known only once
            `frames` has come to its end.
    """

    def __init__(self, path: Path) -> None:
        """Open a clip.

        Raises:
            VideoError: OpenCV can't open it.
        """
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise VideoError("OpenCV can't open it: no video, or damaged beyond reading")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # not every build does so by itself
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.num_frames = 0

    def frames(self, every: int) -> Iterator[tuple[int, np.ndarray]]:
        """Decode the clip from its start to its end.

        Args:
            every: of how many frames one is wanted.

        Yields:
            The number of the frame (0, every, 2 * every, ...) and the frame, (H, W, 3) uint8 BGR.

        Raises:
            VideoError: not a single frame decodes.
        """
        try:
            while self._capture.grab():
                index = self.num_frames
                if index % every == 0:
                    decoded, frame = self._capture.retrieve()
                    if not decoded:
                        break
                    yield index, frame
                self.num_frames += 1
        finally:
            self._capture.release()
        if self.num_frames == 0:
            raise VideoError("not a single frame can be decoded")
