"""Find the mesh of one person's face in the frames of a clip; only this file uses MediaPipe.

The models are those of MediaPipe's FaceLandmarker: BlazeFace, a face mesh with attention
(Grishchenko et al., "Attention Mesh", CVPR Workshop 2020, https://arxiv.org/abs/2006.10962) and
blendshapes (Grishchenko et al., "Blendshapes GHUM", 2023, https://arxiv.org/abs/2309.05782).
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import finalize

import numpy as np

from emotion.stacks.face_model import find_face_model
from emotion.stacks.landmarks import NUM_POINTS
from emotion.stacks.sampling import NOMINAL_FPS
from emotion.stacks.settings import CacheSettings

BLACK_FRAME = np.zeros((8, 8, 3), np.uint8)
MAX_FACES = 4  # that are distinguished in one frame
LOOK_EVERY = 18  # sampled frames between face counts: one segment at the default interval


@dataclass(frozen=True)
class MeshFace:
    """A face in a frame."""

    landmarks: np.ndarray  # (468, 3) float64, x, y and z in pixels, possibly outside the frame; z
    # is the depth relative to about the middle of the head, smaller is nearer
    blendshapes: np.ndarray  # (52,) float32, 0 to 1, in the order of `BLENDSHAPES`


class FaceMesh:
    """Follows one person's face through a clip.

    With `tracking=every_frame` the mesh tracks the face through all frames, as the notebook does;
    with `sampled` from one sampled frame to the next, several times as fast. While one face is
    tracked, a landmarker for a single face is used, which places the mesh by that of the frame
    before, and not by the detector (docs/face_mesh.md). A landmarker for several faces counts them
    when there is no track and every `LOOK_EVERY` sampled frames. If it finds a second one, it
    replaces the first, and the face nearest to the person's last position is used. A face farther
    away than its own size is another person's.

    With `tracking=none` every sampled frame is searched for several faces, and `follow` chooses.
    """

    def __init__(self, settings: CacheSettings, model: str | os.PathLike | None = None) -> None:
        """Load the face model from its file, which is looked for if `model` is None."""
        self.settings, self.tracking = settings, settings.tracking
        content = find_face_model(model).read_bytes()
        step = settings.interval if self.tracking == "sampled" else 1
        with quiet_mediapipe():
            self._several = Landmarker(content, settings, MAX_FACES, step)
            if self.tracking != "none":
                self._one = Landmarker(content, settings, 1, step)
            self.start_clip()  # waits until the graphs, and their messages, have started

    def start_clip(self) -> None:
        """Forget the faces of the previous clip."""
        self.num_seen = 0  # faces in the last frame
        self._center: np.ndarray | None = None  # of the person's face when it was last seen
        self._crowded = self.tracking == "none"  # whether to distinguish several faces
        self._until_look = 0  # sampled frames
        # A frame without a face ends every track; a new landmarker takes as long as ten frames.
        self._several.find(BLACK_FRAME)
        if self.tracking != "none":
            self._one.find(BLACK_FRAME)

    def find(self, frame: np.ndarray) -> MeshFace | None:
        """Find the person's face in a sampled frame; argument and result as in `observe`."""
        if not self._crowded and (self._until_look <= 0 or not self.num_seen):
            num_faces = len(self._several.find(frame))
            self._crowded = num_faces > 1
            self._until_look = LOOK_EVERY
            if num_faces == self.num_seen == 0 and self.tracking == "sampled":
                return None  # without a track, the other landmarker would search likewise
        self._until_look -= 1
        return self.observe(frame)

    def observe(self, frame: np.ndarray) -> MeshFace | None:
        """Find the person's face in (H, W, 3) uint8 RGB and update its track."""
        faces = (self._several if self._crowded else self._one).find(frame)
        self.num_seen = len(faces)
        face = self._choose(faces, (frame.shape[1], frame.shape[0]))
        if face is not None:
            self._center = middle(face.landmarks)
        return face

    def _choose(self, faces: Sequence[MeshFace], size: tuple[int, int]) -> MeshFace | None:
        """Return the person's face among those of a frame, (W, H); None if it is not there."""
        if not faces:
            return None
        if self.tracking == "none" or self._center is None:
            if self.settings.follow == "largest":
                return max(faces, key=lambda face: np.prod(extent(face.landmarks)))
            center = np.array(size) / 2
            return min(faces, key=lambda face: np.linalg.norm(middle(face.landmarks) - center))
        nearest = min(faces, key=lambda face: np.linalg.norm(middle(face.landmarks) - self._center))
        moved = np.abs(middle(nearest.landmarks) - self._center)
        return nearest if (moved < extent(nearest.landmarks)).all() else None


class Landmarker:
    """MediaPipe's FaceLandmarker with NumPy arrays for its results."""

    def __init__(self, model: bytes, settings: CacheSettings, num_faces: int, step: int) -> None:
        """Load the model; between two frames that it sees are `step` frames of the clip."""
        import mediapipe  # 1 s, and only cutting needs it
        from mediapipe.tasks.python import BaseOptions, vision

        # MediaPipe ignores this signal of its profiler behind Python's back, and Lightning restores
        # what Python knows after each run: the default, which kills the process.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGPROF, signal.SIG_IGN)

        class SilentOptions(BaseOptions):
            """Options that let MediaPipe send no usage metrics (docs/face_mesh.md)."""

            def to_ctypes(self) -> Any:
                """Give its uploader no certificates, without which it sends nothing."""
                options = super().to_ctypes()
                options.ca_bundle_path = os.devnull.encode()
                return options

        tracks = settings.tracking != "none"
        self._image = partial(mediapipe.Image, mediapipe.ImageFormat.SRGB)
        self._landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=SilentOptions(model_asset_buffer=model),
                running_mode=vision.RunningMode.VIDEO if tracks else vision.RunningMode.IMAGE,
                num_faces=num_faces,
                min_face_detection_confidence=settings.min_confidence,
                min_face_presence_confidence=settings.min_confidence,
                min_tracking_confidence=settings.min_confidence,
                output_face_blendshapes=True,
            )
        )
        finalize(self, close, self._landmarker)
        self._step_ms = round(1000 * step / NOMINAL_FPS) if tracks else None
        self._time_ms = 0  # must grow, from clip to clip too

    def find(self, frame: np.ndarray) -> list[MeshFace]:
        """Find the faces in (H, W, 3) uint8 RGB."""
        # 1.2.3 finds no face in an array with padded rows, such as PyAV's.
        image = self._image(np.ascontiguousarray(frame))
        with quiet_mediapipe():
            if self._step_ms is None:
                result = self._landmarker.detect(image)
            else:
                self._time_ms += self._step_ms
                result = self._landmarker.detect_for_video(image, self._time_ms)
        height, width = frame.shape[:2]
        scale = width, height, width  # MediaPipe gives z on the scale of x
        return [
            MeshFace(
                np.array([(point.x, point.y, point.z) for point in points[:NUM_POINTS]]) * scale,
                np.array([shape.score for shape in shapes], np.float32),
            )
            for points, shapes in zip(result.face_landmarks, result.face_blendshapes, strict=True)
        ]


def close(landmarker: Any) -> None:
    """Close a FaceLandmarker.

    Its own `__del__` runs whenever Python collects cycles, within `submit` of another one too, and
    then waits forever for a lock that this thread holds.
    """
    try:
        landmarker.close()
    except RuntimeError:  # the interpreter exits and has stopped its thread
        landmarker._handle = None  # or `__del__` would print a stack trace


def middle(landmarks: np.ndarray) -> np.ndarray:
    """Return the middle, (2,), of the box around landmarks, (N, 2) or (N, 3)."""
    return (landmarks[:, :2].min(axis=0) + landmarks[:, :2].max(axis=0)) / 2


def extent(landmarks: np.ndarray) -> np.ndarray:
    """Return the width and height, (2,), of the box around landmarks, (N, 2) or (N, 3)."""
    return np.ptp(landmarks[:, :2], axis=0)


@contextmanager
def quiet_mediapipe() -> Iterator[None]:
    """Discard what MediaPipe's C++ code writes to stderr for every clip, whatever its log level.

    Its errors are Python exceptions, which pass.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
