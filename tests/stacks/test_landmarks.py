"""The mirror image of landmarks: from real faces, from the mesh alone, and from flipped frames."""

from dataclasses import replace
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from emotion.stacks.cache import Cache
from emotion.stacks.face_crop import FaceCropper
from emotion.stacks.landmarks import LEFT_EYE, PARTNERS, RIGHT_EYE, mirror_landmarks
from tests.stacks.standard import STANDARD


@pytest.fixture(scope="module")
def searching() -> FaceCropper:
    """Give a cropper that searches every frame anew."""
    cropper = FaceCropper(replace(STANDARD, tracking="none", size_px=64))
    cropper.start_clip()
    return cropper


def test_a_mirror_images_mirror_image_is_the_face_itself():
    assert sorted(PARTNERS) == list(range(468))
    np.testing.assert_array_equal(PARTNERS[PARTNERS], np.arange(468))
    assert PARTNERS[list(LEFT_EYE)].tolist() == [RIGHT_EYE[1], RIGHT_EYE[0]]  # outer, inner
    landmarks = np.random.default_rng(0).normal(size=(18, 468, 3)).astype(np.float32)
    mirrored = mirror_landmarks(landmarks)
    assert mirrored.dtype == np.float32 and not np.array_equal(mirrored, landmarks)
    np.testing.assert_array_equal(mirror_landmarks(mirrored), landmarks)


def test_by_hand():
    landmarks = np.zeros((468, 3))
    landmarks[33], landmarks[1] = (-0.7, 0.1, 0.2), (0.1, 0.5, -0.6)
    mirrored = mirror_landmarks(landmarks)
    assert mirrored[263].tolist() == [0.7, 0.1, 0.2] and not mirrored[33].any()
    assert mirrored[1].tolist() == [-0.1, 0.5, -0.6]  # the nose is its own


def test_the_mesh_is_its_own_mirror_image_but_for_six_edges():
    edges = {frozenset(edge) for edge in mp.solutions.face_mesh.FACEMESH_TESSELATION}
    mirrored = {frozenset(PARTNERS[list(edge)].tolist()) for edge in edges}
    assert len(edges) == 1322 and len(edges - mirrored) == 6
    for left, right in (("LEFT_EYE", "RIGHT_EYE"), ("LEFT_EYEBROW", "RIGHT_EYEBROW")):
        ours, theirs = (
            {
                point
                for edge in getattr(mp.solutions.face_mesh, f"FACEMESH_{side}")
                for point in edge
            }
            for side in (left, right)
        )
        assert set(PARTNERS[list(ours)].tolist()) == theirs


@pytest.mark.slow
def test_partners_are_the_nearest_in_the_mean_of_real_faces(
    shared_data: Path, searching: FaceCropper
):
    faces = []
    for folder in sorted((shared_data / "stills").iterdir()):
        for path in sorted(folder.iterdir())[:40]:
            picture = cv2.copyMakeBorder(cv2.imread(str(path)), *[40] * 4, cv2.BORDER_CONSTANT)
            searching.crop(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            if searching.landmarks is not None:
                faces.append(searching.landmarks)
    assert len(faces) > 150
    face = np.mean(faces, axis=0, dtype=float)
    away = np.linalg.norm(face[:, None] - face * [-1, 1, 1], axis=2)  # (468, 468)
    np.testing.assert_array_equal(linear_sum_assignment(away**2)[1], PARTNERS)


def test_landmarks_of_a_flipped_frame_are_the_mirrored_ones(
    demo_cache: Cache, searching: FaceCropper
):
    capture = cv2.VideoCapture(str(demo_cache.root / "Happy_0001.mp4"))
    frame = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
    searching.crop(frame)
    expected = mirror_landmarks(searching.landmarks)
    unlike = searching.landmarks * [-1, 1, 1]  # mirrored, but left for right
    searching.crop(np.ascontiguousarray(frame[:, ::-1]))
    assert np.abs(searching.landmarks - expected).mean() < 0.05
    assert np.abs(searching.landmarks - unlike).mean() > 0.3
