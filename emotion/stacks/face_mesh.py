"""Find the landmarks of one person's face in the frames of a clip; only this file uses MediaPipe.

The model is FaceMesh: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on
Mobile GPUs", CVPR Workshop 2019, https://arxiv.org/abs/1907.06724; with `refine`, Grishchenko et
al., "Attention Mesh", CVPR Workshop 2020, https://arxiv.org/abs/2006.10962.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from emotion.stacks.landmarks import NUM_POINTS
from emotion.stacks.settings import CacheSettings

BLACK_FRAME = np.zeros((8, 8, 3), np.uint8)
MAX_FACES = 4  # that are distinguished in one frame
LOOK_EVERY = 18  # sampled frames between face counts: one segment at the default interval


class FaceMesh:
    """Follows one person's face through a clip.

    With `tracking=every_frame` the mesh tracks the face through all frames, as the notebook does;
    with `sampled` from one sampled frame to the next, several times as fast. While one face
    is tracked, a mesh for a single face, which need not search, is enough. A detector counts faces
    when there is no track and every `LOOK_EVERY` sampled frames. If it finds a second one, a mesh
    for several faces (half as slow again) replaces the first, and the face nearest to the person's
    last position is used. A face farther away than its own size belongs to somebody else.

    With `tracking=none` every sampled frame is searched for several faces, and `follow` chooses.
    """

    def __init__(self, settings: CacheSettings) -> None:
        """Load the meshes."""
        from mediapipe import solutions  # 1.5 s, and only cutting needs it

        self.settings, self.tracking = settings, settings.tracking
        load_mesh = partial(
            solutions.face_mesh.FaceMesh,
            static_image_mode=self.tracking == "none",
            refine_landmarks=settings.refine,
            min_detection_confidence=settings.min_confidence,
            min_tracking_confidence=settings.min_confidence,
        )
        with quiet_mediapipe():
            self._several = load_mesh(max_num_faces=MAX_FACES)
            if self.tracking != "none":
                self._one = load_mesh(max_num_faces=1)
                self._detector = solutions.face_detection.FaceDetection(
                    model_selection=0, min_detection_confidence=settings.min_confidence
                )
                self._detector.process(BLACK_FRAME)
                self._several.process(BLACK_FRAME)
            self.start_clip()  # waits until the graphs, and their messages, have started

    def start_clip(self) -> None:
        """Forget the faces of the previous clip."""
        self.num_seen = 0  # faces in the last frame
        self._center: np.ndarray | None = None  # of the person's face when it was last seen
        self._crowded = self.tracking == "none"  # whether to distinguish several faces
        self._until_look = 0  # sampled frames
        # A frame without a face ends every track; FaceMesh.reset() costs ten times as much.
        with quiet_mediapipe():
            (self._several if self._crowded else self._one).process(BLACK_FRAME)

    def find(self, frame: np.ndarray) -> np.ndarray | None:
        """Find the person's landmarks in a sampled frame; arguments and result as in `observe`."""
        if not self._crowded and (self._until_look <= 0 or not self.num_seen):
            num_faces = self._count(frame)
            if num_faces == self.num_seen == 0 and self.tracking == "sampled":
                return None  # the mesh, which tracks nothing, would search with the same detector
        self._until_look -= 1
        return self.observe(frame)

    def observe(self, frame: np.ndarray) -> np.ndarray | None:
        """Find the person's landmarks in (H, W, 3) uint8 RGB and update their track.

        Returns:
            (468, 3) float64, x, y and z in pixels of the frame, possibly outside it; or None. z
            is 0 near the middle of the head and smaller toward the camera.
        """
        mesh = self._several if self._crowded else self._one
        with quiet_mediapipe():
            found = mesh.process(frame).multi_face_landmarks or []
        height, width = frame.shape[:2]
        faces = [
            np.array([[getattr(point, axis) for point in points] for axis in "xyz"]).T
            * (width, height, width)  # MediaPipe gives z on the scale of x
            for points in (face.landmark[:NUM_POINTS] for face in found)
        ]
        self.num_seen = len(faces)
        landmarks = self._choose(faces, (width, height))
        if landmarks is not None:
            self._center = middle(landmarks)
        return landmarks

    def _choose(self, faces: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray | None:
        """Return the person's face among those of a frame, (W, H); None if it is not there."""
        if not faces:
            return None
        if self.tracking == "none" or self._center is None:
            if self.settings.follow == "largest":
                return max(faces, key=lambda face: np.prod(np.ptp(face[:, :2], axis=0)))
            center = np.array(size) / 2
            return min(faces, key=lambda face: np.linalg.norm(middle(face) - center))
        nearest = min(faces, key=lambda face: np.linalg.norm(middle(face) - self._center))
        moved = np.abs(middle(nearest) - self._center)
        is_theirs = (moved < np.ptp(nearest[:, :2], axis=0)).all()
        return nearest if is_theirs else None

    def _count(self, frame: np.ndarray) -> int:
        """Count the faces of a frame; if there are several, distinguish them from now on."""
        with quiet_mediapipe():
            num_faces = len(self._detector.process(frame).detections or [])
            self._crowded = num_faces > 1
            if self._crowded:
                self._several.process(BLACK_FRAME)  # ends its tracks of another clip
        self._until_look = LOOK_EVERY
        return num_faces


def middle(landmarks: np.ndarray) -> np.ndarray:
    """Return the middle, (2,), of the box around landmarks, (N, 2) or (N, 3)."""
    return (landmarks[:, :2].min(axis=0) + landmarks[:, :2].max(axis=0)) / 2


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
