"""The landmarks of faces, free of position, size and roll."""

import numpy as np

# Corners of the eyes on the left and on the right of the picture, by their indices in the mesh.
LEFT_EYE, RIGHT_EYE = (33, 133), (362, 263)
NUM_POINTS = 468  # of the mesh; the landmarker gives ten more, of the irises


def normalize_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Remove position, size and roll, but not yaw and pitch, of a face from its landmarks.

    Args:
        landmarks: (468, 3) float, x to the right, y down, z away from the viewer, on one scale.

    Returns:
        (468, 3) float32; the origin is midway between the eyes' centers, the unit their distance in
        space, so that a face does not grow when it turns aside.
    """
    left_eye, right_eye = eye_centers(landmarks)
    across = right_eye - left_eye  # (3,)
    cosine, sine = across[:2] / np.hypot(*across[:2])
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    centered = landmarks - (left_eye + right_eye) / 2
    return (centered @ turn.T / np.linalg.norm(across)).astype(np.float32)


def eye_centers(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the center of the eye on the left of the picture, and of the other, (2,) or (3,)."""
    return tuple(landmarks[list(eye)].mean(axis=0) for eye in (LEFT_EYE, RIGHT_EYE))
