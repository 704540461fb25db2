"""Crop one person's face from the frames of a clip, as gray squares."""

from dataclasses import dataclass

import cv2
import numpy as np

from emotion.stacks.face_mesh import FaceMesh, middle
from emotion.stacks.landmarks import eye_centers, normalize_landmarks

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive
MOUTH = (61, 291)  # its corners, by their indices in the mesh
# Where both eyes and the mouth are in a crop with fit=features, x and y as fractions of its side.
PLACES = np.array([[0.31, 0.38], [0.69, 0.38], [0.5, 0.76]])


@dataclass(frozen=True)
class Face:
    """The person's face in a frame: what the cache and the models take of it."""

    crop: np.ndarray  # (size_px, size_px) uint8 gray
    box: Box  # where it was cut out
    landmarks: np.ndarray  # (468, 3) float32 of `normalize_landmarks`
    blendshapes: np.ndarray  # (52,) float32, 0 to 1


class FaceCropper(FaceMesh):
    """Follows one person's face and crops it."""

    def crop(self, frame: np.ndarray) -> Face | None:
        """Crop the person's face from (H, W, 3) uint8 RGB; return None if there is no face."""
        found = self.find(frame)
        if found is None:
            return None
        landmarks = found.landmarks
        margin, size_px = self.settings.margin, self.settings.size_px
        left, top, right, bottom = face_box(landmarks, margin, frame.shape)
        if left >= right or top >= bottom:  # the track has left the frame
            return None
        if self.settings.fit == "features":
            crop = crop_features(frame, landmarks, margin, size_px)
        elif self.settings.align:
            crop = crop_level(frame, landmarks, margin)
        else:
            crop = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
        # Shrunk by areas: a warp to the final size would skip pixels.
        crop = cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_AREA)
        box = left, top, right, bottom
        return Face(crop, box, normalize_landmarks(landmarks), found.blendshapes)


def face_box(landmarks: np.ndarray, margin: float, frame_shape: tuple[int, ...]) -> Box:
    """Return the box around landmarks, grown and clipped to the frame, as the notebook does.

    Args:
        landmarks: (N, 2) or (N, 3), x and y in pixels.
        margin: added on each side, as a fraction of the box's width and height.
        frame_shape: (H, W, ...).

    >>> face_box(np.array([[10.0, 20.0], [30.0, 60.0]]), 0.1, (100, 31, 3))
    (8, 16, 31, 64)
    """
    low, high = landmarks[:, :2].min(axis=0), landmarks[:, :2].max(axis=0)
    grown = margin * (high - low)
    size = (frame_shape[1], frame_shape[0])
    left, top = (max(0, int(edge)) for edge in low - grown)
    right, bottom = (min(limit, int(edge)) for limit, edge in zip(size, high + grown, strict=True))
    return left, top, right, bottom


def crop_level(frame: np.ndarray, landmarks: np.ndarray, margin: float) -> np.ndarray:
    """Crop a face at its own size, gray, from a frame that is rotated until the eyes are level.

    Args:
        frame: (H, W, 3) uint8 RGB; beyond it, its edge is repeated.
        landmarks: (468, 3) float, in pixels.
        margin: as in `face_box`.
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
    size = tuple(max(1, int(side)) for side in high - low + 2 * grown)
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.warpAffine(gray, turn, size, borderMode=cv2.BORDER_REPLICATE)


def crop_features(
    frame: np.ndarray, landmarks: np.ndarray, margin: float, size_px: int
) -> np.ndarray:
    """Crop a face so that its eyes and mouth are at `PLACES`, with its proportions kept.

    The map is the similarity transform (rotation, scale, shift) of least squares. Arguments are as
    in `crop_level`, but `margin` is a fraction of the side of the square of `PLACES`. The result
    has the face's own size, at least `size_px`.
    """
    features = np.stack([*eye_centers(landmarks), landmarks[list(MOUTH)].mean(axis=0)])
    points = features[:, 0] + 1j * features[:, 1]  # rotating and scaling is multiplying
    places = (PLACES - 0.5) / (1 + 2 * margin) @ (1, 1j)  # from the middle of the crop
    centered = points - points.mean()
    factor = np.vdot(centered, places - places.mean()) / np.vdot(centered, centered).real
    drawn_px = max(size_px, round(1 / abs(factor)))
    factor *= drawn_px
    shift = (0.5 + 0.5j + places.mean()) * drawn_px - factor * points.mean()
    matrix = np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.warpAffine(gray, matrix, (drawn_px, drawn_px), borderMode=cv2.BORDER_REPLICATE)
