"""frames ──crop──> gray face crops, uint8.

The fourth step of the way of the data, and the only file that knows MediaPipe. The face is found
by FaceMesh: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile
GPUs", CVPR Workshop 2019, https://arxiv.org/abs/1907.06724.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import mediapipe as mp
import numpy as np

BLACK_FRAME = np.zeros((8, 8, 3), np.uint8)
TRACKING = ("every_frame", "sampled", "none")


class FaceCropper:
    """Finds the face in a clip's frames, one after the other, and cuts it out.

    `tracking` says which frames the mesh sees. With `every_frame` it follows the face through all
    of them, as the seed does; with `sampled` it follows it from one sampled frame to the next,
    several times as fast, and crops differ by a few gray levels of box jitter; with `none` every
    sampled frame is searched anew, so that a crop depends on its frame alone.
    """

    def __init__(self, tracking: str, margin: float, size_px: int, min_confidence: float) -> None:
        """Load the face mesh.

        Args:
            tracking: `every_frame`, `sampled` or `none`.
            margin: added to the box on each side, as a fraction of its width and height.
            size_px: height and width of a crop.
            min_confidence: 0 to 1, of detection and of tracking.
        """
        assert tracking in TRACKING, tracking
        self.tracking = tracking
        self.margin = margin
        self.size_px = size_px
        with quiet_mediapipe():
            self._mesh = mp.solutions.face_mesh.FaceMesh(
                static_image_mode=tracking == "none",
                max_num_faces=1,
                refine_landmarks=False,
                min_detection_confidence=min_confidence,
                min_tracking_confidence=min_confidence,
            )
            self._mesh.process(BLACK_FRAME)

    def start_clip(self) -> None:
        """Forget the face of the clip before."""
        with quiet_mediapipe():
            self._mesh.reset()
            self._mesh.process(BLACK_FRAME)  # waits for the graph, and its notes, to have started

    def observe(self, frame: np.ndarray) -> np.ndarray | None:
        """Find the face's landmarks and keep its track.

        Args:
            frame: (H, W, 3) uint8 BGR.

        Returns:
            (468, 2) float64, x and y in pixels of the frame, possibly outside it; or None.
        """
        with quiet_mediapipe():
            found = self._mesh.process(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)).multi_face_landmarks
        if not found:
            return None
        height, width = frame.shape[:2]
        landmarks = np.array([(point.x, point.y) for point in found[0].landmark])
        return landmarks * (width, height)

    def crop(self, frame: np.ndarray) -> np.ndarray | None:
        """Cut the face out of a frame.

        Args:
            frame: (H, W, 3) uint8 BGR.

        Returns:
            (size_px, size_px) uint8 gray, or None where there is no face.
        """
        landmarks = self.observe(frame)
        if landmarks is None:
            return None
        left, top, right, bottom = face_box(landmarks, self.margin, frame.shape)
        if left >= right or top >= bottom:  # the track has left the frame
            return None
        gray = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_BGR2GRAY)
        return cv2.resize(gray, (self.size_px, self.size_px), interpolation=cv2.INTER_AREA)


@contextmanager
def quiet_mediapipe() -> Iterator[None]:
    """Keep off the screen what MediaPipe's C++ says.

    It writes half a dozen lines to the process's stderr for every clip, whatever its log level is
    set to; errors reach Python as exceptions and come through.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def face_box(
    landmarks: np.ndarray, margin: float, frame_shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """Put a box around landmarks, grow it and clip it to the frame, as the seed does.

    Args:
        landmarks: (N, 2), x and y in pixels.
        margin: added on each side, as a fraction of the box's width and height.
        frame_shape: (H, W, ...) of the frame.

    Returns:
        left, top, right, bottom in whole pixels, the last two exclusive.

    >>> face_box(np.array([[10.0, 20.0], [30.0, 60.0]]), 0.1, (100, 31, 3))
    (8, 16, 31, 64)
    """
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    grown = margin * (high - low)
    size = (frame_shape[1], frame_shape[0])
    left, top = (max(0, int(edge)) for edge in low - grown)
    right, bottom = (min(limit, int(edge)) for limit, edge in zip(size, high + grown, strict=True))
    return left, top, right, bottom
