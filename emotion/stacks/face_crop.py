"""frames ──crop──> gray face crops, uint8, and the landmarks of the faces in them.

The fourth step of the way of the data, and the only file that knows MediaPipe. The face is found
by FaceMesh: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile
GPUs", CVPR Workshop 2019, https://arxiv.org/abs/1907.06724.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from emotion.stacks.landmarks import NUM_POINTS, eye_centers, normalize_landmarks
from emotion.stacks.settings import FITS, FOLLOW, TRACKING

BLACK_FRAME = np.zeros((8, 8, 3), np.uint8)
MAX_FACES = 4  # told apart in one frame
LOOK_EVERY = 18  # sampled frames, a segment at the usual interval: how often faces are counted
MOUTH = (61, 291)  # its corners
# Where both eyes and the mouth come to lie in a crop, x and y as fractions of its side.
PLACES = np.array([[0.31, 0.38], [0.69, 0.38], [0.5, 0.76]])


class FaceCropper:
    """Finds one person's face in a clip's frames, one after the other, and cuts it out.

    `tracking` says which frames the mesh sees. With `every_frame` it follows the face through all
    of them, as the seed does; with `sampled` it follows it from one sampled frame to the next,
    several times as fast, and crops differ by a few gray levels of box jitter; with `none` every
    sampled frame is searched anew, so that a crop depends on its frame alone.

    While a face is tracked, a mesh for one face does, which need not search. A detector counts
    faces when there is no track and every `LOOK_EVERY` sampled frames; once it sees a second one, a
    mesh for several takes over for the rest of the clip (half as slow again, and to the last bit
    the same landmarks where there is one face), and of its faces we take the one that is nearest to
    where the person was. A face farther from there than its own size is somebody else's. Without
    tracking, several are always looked for, and `follow` chooses.
    """

    def __init__(
        self,
        tracking: str,
        follow: str,
        margin: float,
        align: bool,
        size_px: int,
        min_confidence: float,
        refine: bool = False,
        fit: str = "box",
    ) -> None:
        """Load the face mesh.

        Args:
            tracking: `every_frame`, `sampled` or `none`.
            follow: whose face is taken, where the clip first shows several: the `largest` or the
                most `central`.
            margin: added to the box on each side, as a fraction of its width and height.
            align: turn the face so that its eyes are level.
            size_px: height and width of a crop.
            min_confidence: 0 to 1, of detection and of tracking.
            refine: find eyes, lips and brows a second time, more exactly: Grishchenko et al.,
                "Attention Mesh", CVPR Workshop 2020, https://arxiv.org/abs/2006.10962.
            fit: `box`, the box around the landmarks is stretched to a square, whatever an open
                mouth adds to it; or `features`, see `crop_features`, whatever `align` says.
        """
        assert tracking in TRACKING and follow in FOLLOW and fit in FITS, (tracking, follow, fit)
        self.tracking = tracking
        self.follow = follow
        self.margin = margin
        self.align = align
        self.size_px = size_px
        self.min_confidence = min_confidence
        self.refine = refine
        self.fit = fit
        with quiet_mediapipe():
            self._several = self._load_mesh(MAX_FACES)
            if tracking != "none":
                self._one = self._load_mesh(1)
                import mediapipe as mp

                self._detector = mp.solutions.face_detection.FaceDetection(
                    model_selection=0, min_detection_confidence=min_confidence
                )
                self._detector.process(BLACK_FRAME)
                self._several.process(BLACK_FRAME)
            self.start_clip()  # waits for the graphs, and their notes, to have started

    def _load_mesh(self, max_faces: int) -> Any:
        import mediapipe as mp

        return mp.solutions.face_mesh.FaceMesh(
            static_image_mode=self.tracking == "none",
            max_num_faces=max_faces,
            refine_landmarks=self.refine,
            min_detection_confidence=self.min_confidence,
            min_tracking_confidence=self.min_confidence,
        )

    def start_clip(self) -> None:
        """Forget the faces of the clip before."""
        self.num_seen = 0  # faces in the frame that was looked at last
        self.box: tuple[int, int, int, int] | None = None  # of the crop made last, see face_box
        self.landmarks: np.ndarray | None = None  # of that crop, see normalize_landmarks
        self._center: np.ndarray | None = None  # of the person's face when it was last seen
        self._crowded = self.tracking == "none"  # whether to tell several faces apart
        self._until_look = 0  # sampled frames
        # A frame without a face ends every track; FaceMesh.reset() would, at ten times the cost.
        with quiet_mediapipe():
            (self._several if self._crowded else self._one).process(BLACK_FRAME)

    def observe(self, frame: np.ndarray) -> np.ndarray | None:
        """Find the person's landmarks and keep their track.

        Args:
            frame: (H, W, 3) uint8 RGB.

        Returns:
            (468, 3) float64, x, y and z in pixels of the frame, possibly outside it; or None. z
            is the depth, from about the middle of the head, and smaller is nearer.
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
        landmarks = self._choose(faces, frame.shape)
        if landmarks is not None:
            self._center = middle(landmarks)
        return landmarks

    def _choose(
        self, faces: Sequence[np.ndarray], frame_shape: tuple[int, ...]
    ) -> np.ndarray | None:
        """Take the person's face among those of a frame; None if it is not among them."""
        if not faces:
            return None
        if self.tracking == "none" or self._center is None:
            if self.follow == "largest":
                return max(faces, key=lambda face: np.prod(np.ptp(face[:, :2], axis=0)))
            center = np.array(frame_shape[1::-1]) / 2
            return min(faces, key=lambda face: np.linalg.norm(middle(face) - center))
        nearest = min(faces, key=lambda face: np.linalg.norm(middle(face) - self._center))
        moved = np.abs(middle(nearest) - self._center)
        is_theirs = (moved < np.ptp(nearest[:, :2], axis=0)).all()
        return nearest if is_theirs else None

    def _look(self, frame: np.ndarray) -> int:
        """Count the faces of a frame; tell them apart from now on if there are several."""
        with quiet_mediapipe():
            num_faces = len(self._detector.process(frame).detections or [])
            self._crowded = num_faces > 1
            if self._crowded:
                self._several.process(BLACK_FRAME)  # ends what it tracked in another clip
        self._until_look = LOOK_EVERY
        return num_faces

    def crop(self, frame: np.ndarray) -> np.ndarray | None:
        """Cut the person's face out of a frame, and keep its box and its landmarks.

        Args:
            frame: (H, W, 3) uint8 RGB.

        Returns:
            (size_px, size_px) uint8 gray, or None where there is no face.
        """
        self.box = self.landmarks = None
        if not self._crowded and (self._until_look <= 0 or not self.num_seen):
            num_faces = self._look(frame)
            if num_faces == self.num_seen == 0 and self.tracking == "sampled":
                return None  # the mesh, which tracks nothing, would search with the same detector
        self._until_look -= 1
        landmarks = self.observe(frame)
        if landmarks is None:
            return None
        left, top, right, bottom = face_box(landmarks, self.margin, frame.shape)
        if left >= right or top >= bottom:  # the track has left the frame
            return None
        self.box = left, top, right, bottom
        self.landmarks = normalize_landmarks(landmarks)
        if self.fit == "features":
            return crop_features(frame, landmarks, self.margin, self.size_px)
        if self.align:
            return crop_level(frame, landmarks, self.margin, self.size_px)
        gray = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
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
        landmarks: (N, 2) or (N, 3), x, y and perhaps z in pixels.
        margin: added on each side, as a fraction of the box's width and height.
        frame_shape: (H, W, ...) of the frame.

    Returns:
        left, top, right, bottom in whole pixels, the last two exclusive.

    >>> face_box(np.array([[10.0, 20.0], [30.0, 60.0]]), 0.1, (100, 31, 3))
    (8, 16, 31, 64)
    """
    low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
    grown = margin * (high - low)
    size = (frame_shape[1], frame_shape[0])
    left, top = (max(0, int(edge)) for edge in low - grown)
    right, bottom = (min(limit, int(edge)) for limit, edge in zip(size, high + grown, strict=True))
    return left, top, right, bottom


def middle(landmarks: np.ndarray) -> np.ndarray:
    """Give the middle of the box around landmarks, (N, 2) or (N, 3) in pixels, as (2,)."""
    return (landmarks[:, :2].min(axis=0) + landmarks[:, :2].max(axis=0)) / 2


def crop_level(frame: np.ndarray, landmarks: np.ndarray, margin: float, size_px: int) -> np.ndarray:
    """Cut a face out of a frame turned so that the eyes are level.

    Args:
        frame: (H, W, 3) uint8 RGB.
        landmarks: (468, 3), x, y and z in pixels.
        margin: as in `face_box`.
        size_px: height and width of the crop.

    Returns:
        (size_px, size_px) uint8 gray; beyond the frame its edge goes on.
    """
    landmarks = landmarks[:, :2]
    left_eye, right_eye = eye_centers(landmarks)
    across = right_eye - left_eye
    roll_deg = float(np.degrees(np.arctan2(across[1], across[0])))
    turn = cv2.getRotationMatrix2D(middle(landmarks), roll_deg, 1.0)  # (2, 3)
    turned = landmarks @ turn[:, :2].T + turn[:, 2]
    low, high = turned.min(axis=0), turned.max(axis=0)
    grown = margin * (high - low)
    turn[:, 2] -= low - grown
    width, height = (max(1, int(side)) for side in high - low + 2 * grown)
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    # First turned at its own size, then made smaller by areas: a warp alone would skip pixels.
    level = cv2.warpAffine(gray, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(level, (size_px, size_px), interpolation=cv2.INTER_AREA)


def crop_features(
    frame: np.ndarray, landmarks: np.ndarray, margin: float, size_px: int
) -> np.ndarray:
    """Cut a face out of a frame so that its eyes and mouth come to fixed places.

    By the turn, the scale and the shift of least squares, so that the face keeps its proportions.

    Args:
        frame: (H, W, 3) uint8 RGB.
        landmarks: (468, 3), x, y and z in pixels.
        margin: added on each side of the square in which `PLACES` lie, as a fraction of its side.
        size_px: height and width of the crop.

    Returns:
        (size_px, size_px) uint8 gray; beyond the frame its edge goes on.
    """
    features = np.stack([*eye_centers(landmarks), landmarks[list(MOUTH)].mean(axis=0)])
    points = features[:, 0] + 1j * features[:, 1]  # turning and scaling is multiplying
    places = (PLACES - 0.5) / (1 + 2 * margin) @ (1, 1j)  # from the middle of the crop
    centered = points - points.mean()
    factor = np.vdot(centered, places - places.mean()) / np.vdot(centered, centered).real
    # Drawn at the face's own size first if that is larger, then made smaller by areas.
    drawn_px = max(size_px, round(1 / abs(factor)))
    factor *= drawn_px
    shift = (0.5 + 0.5j + places.mean()) * drawn_px - factor * points.mean()
    matrix = np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    drawn = cv2.warpAffine(gray, matrix, (drawn_px, drawn_px), borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(drawn, (size_px, size_px), interpolation=cv2.INTER_AREA)
