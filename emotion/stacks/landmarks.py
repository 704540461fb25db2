"""The landmarks of faces: normalize, mirror, write and read them."""

import io
from pathlib import Path

import numpy as np

from emotion.files import unfinished

# Corners of the eyes on the left and on the right of the picture, by their indices in the mesh.
LEFT_EYE, RIGHT_EYE = (33, 133), (362, 263)
# Which point of the face mesh is the mirror image of point 0, 1, 2, ... Found in two ways with the
# same result: by matching the mean of 296 real faces, normalized, with its mirror image
# (scipy.optimize.linear_sum_assignment), and from the triangles of the mesh, in which all edges
# but six have a mirror image. tests/stacks/test_landmarks.py repeats both.
PARTNERS = np.array([
    0, 1, 2, 248, 4, 5, 6, 249, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 250, 251, 252,
    253, 254, 255, 256, 257, 258, 259, 260, 261, 262, 263, 264, 265, 266, 267, 268, 269, 270,
    271, 272, 273, 274, 275, 276, 277, 278, 279, 280, 281, 282, 283, 284, 285, 286, 287, 288,
    289, 290, 291, 292, 293, 294, 295, 296, 297, 298, 299, 300, 301, 302, 303, 304, 305, 306,
    307, 308, 309, 310, 311, 312, 313, 314, 315, 316, 317, 318, 319, 320, 321, 322, 323, 94,
    324, 325, 326, 327, 328, 329, 330, 331, 332, 333, 334, 335, 336, 337, 338, 339, 340, 341,
    342, 343, 344, 345, 346, 347, 348, 349, 350, 351, 352, 353, 354, 355, 356, 357, 358, 359,
    360, 361, 362, 363, 364, 365, 366, 367, 368, 369, 370, 371, 372, 373, 374, 375, 376, 377,
    378, 379, 151, 152, 380, 381, 382, 383, 384, 385, 386, 387, 388, 389, 390, 164, 391, 392,
    393, 168, 394, 395, 396, 397, 398, 399, 175, 400, 401, 402, 403, 404, 405, 406, 407, 408,
    409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 195, 419, 197, 420, 199, 200, 421, 422,
    423, 424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 435, 436, 437, 438, 439, 440,
    441, 442, 443, 444, 445, 446, 447, 448, 449, 450, 451, 452, 453, 454, 455, 456, 457, 458,
    459, 460, 461, 462, 463, 464, 465, 466, 467, 3, 7, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
    30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52,
    53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75,
    76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 95, 96, 97, 98, 99,
    100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117,
    118, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135,
    136, 137, 138, 139, 140, 141, 142, 143, 144, 145, 146, 147, 148, 149, 150, 153, 154, 155,
    156, 157, 158, 159, 160, 161, 162, 163, 165, 166, 167, 169, 170, 171, 172, 173, 174, 176,
    177, 178, 179, 180, 181, 182, 183, 184, 185, 186, 187, 188, 189, 190, 191, 192, 193, 194,
    196, 198, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 211, 212, 213, 214, 215, 216,
    217, 218, 219, 220, 221, 222, 223, 224, 225, 226, 227, 228, 229, 230, 231, 232, 233, 234,
    235, 236, 237, 238, 239, 240, 241, 242, 243, 244, 245, 246, 247,
])  # fmt: skip
NUM_POINTS = len(PARTNERS)  # of the mesh; a refined one has ten more, of the irises


def normalize_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Remove position, size and roll of a face from its landmarks.

    They are rotated in the picture plane until the eyes are level. Yaw and pitch remain, which is
    why z is kept; the unit is measured in space, so that a face does not grow when it turns aside.

    Args:
        landmarks: (468, 3) float, x to the right, y down, z away from the viewer, on one scale.

    Returns:
        (468, 3) float32, the same axes. The origin is midway between the centers of the eyes, the
        unit is their distance.
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


def mirror_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Mirror landmarks as a horizontal flip mirrors the picture.

    Args:
        landmarks: (..., 468, 3) float of `normalize_landmarks`: x is 0 in the middle of the face.

    Returns:
        The same shape and type: x negated, and the points of the left and the right swapped, so
        that each index again denotes the same place in the picture.
    """
    return landmarks[..., PARTNERS, :] * np.array([-1, 1, 1], landmarks.dtype)


def write_landmarks(path: Path, landmarks: np.ndarray) -> None:
    """Write the landmarks of a stack's images as a NumPy file, atomically.

    Args:
        path: the file; its folder is made.
        landmarks: (T, 468, 3) float32.
    """
    assert landmarks.ndim == 3 and landmarks.dtype == np.float32
    content = io.BytesIO()  # in memory first: NumPy's own writer ignores a full disk
    np.save(content, landmarks, allow_pickle=False)
    with unfinished(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_landmarks(path: Path) -> np.ndarray:
    """Read the landmarks of a stack's images, (T, 468, 3) float32."""
    return np.load(path, allow_pickle=False)
