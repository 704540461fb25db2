"""Faces: the box by hand, the crop's form, what tracking sees, and no chatter."""

import os
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np
import pytest

from emotion.cache import Cache
from emotion.face import TRACKING, FaceCropper, face_box, quiet_mediapipe

NOISE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


def cropper_of(tracking: str, size_px: int, **settings: object) -> FaceCropper:
    standard = {"follow": "largest", "margin": 0.1, "align": False, "min_confidence": 0.5}
    return FaceCropper(tracking, size_px=size_px, **standard | settings)


def frames_of(path: Path, number: int) -> list[np.ndarray]:
    """Read the first frames of a clip with OpenCV, as RGB."""
    capture = cv2.VideoCapture(str(path))
    return [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB) for _ in range(number)]


@pytest.fixture(scope="module")
def frames(demo_cache: Cache) -> list[np.ndarray]:
    """Give nine frames of one rendered clip, 10 frames apart."""
    return frames_of(demo_cache.root / "Happy_0001.mp4", 90)[::10]


@pytest.fixture(scope="module")
def searching() -> FaceCropper:
    """Give a cropper that searches every frame anew."""
    cropper = cropper_of("none", 64)
    cropper.start_clip()
    return cropper


@pytest.mark.parametrize(
    ("corners", "margin", "frame_shape", "box"),
    [
        # 20 wide and 40 high, grown by 2 and 4 on each side
        ([(10, 20), (30, 60)], 0.1, (100, 100, 3), (8, 16, 32, 64)),
        # clipped to the frame: from -5 and -10 at the left and top, 55 and 110 at the others
        ([(0, 0), (50, 100)], 0.1, (100, 40, 3), (0, 0, 40, 100)),
        # landmarks outside the frame
        ([(-20, -10), (80, 190)], 0.1, (150, 60, 3), (0, 0, 60, 150)),
        # truncated, not rounded: 10.9 - 1 = 9.9, 20.9 - 1 = 19.9, 20.9 + 1 = 21.9, 30.9 + 1 = 31.9
        ([(10.9, 20.9), (20.9, 30.9)], 0.1, (100, 100), (9, 19, 21, 31)),
        # no margin
        ([(10.2, 20.7), (30.9, 60.1)], 0.0, (100, 100, 3), (10, 20, 30, 60)),
        # half of 20 and of 10
        ([(40, 40), (60, 50)], 0.5, (100, 100, 3), (30, 35, 70, 55)),
    ],
)
def test_box_is_grown_clipped_and_truncated(
    corners: list, margin: float, frame_shape: tuple, box: tuple
):
    landmarks = np.array([*corners, np.mean(corners, axis=0)], dtype=float)
    for order in ([0, 1, 2], [2, 1, 0]):
        assert face_box(landmarks[order], margin, frame_shape) == box


def test_box_takes_each_side_from_another_landmark():
    landmarks = np.array([(10, 50), (50, 20), (90, 55), (45, 80)], dtype=float)
    assert face_box(landmarks, 0.1, (200, 200, 3)) == (2, 14, 98, 86)


def test_crop_is_a_gray_square_of_the_size(searching: FaceCropper, frames: list[np.ndarray]):
    crop = searching.crop(frames[0])
    assert crop.shape == (64, 64)
    assert crop.dtype == np.uint8
    assert crop.std() > 10


def test_crop_is_what_the_mesh_alone_would_cut_out(frames: list[np.ndarray]):
    frame = frames[3]
    with mp.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1) as mesh:
        face = mesh.process(frame).multi_face_landmarks[0]
    xs = [256 * point.x for point in face.landmark]
    ys = [256 * point.y for point in face.landmark]
    wide, high = max(xs) - min(xs), max(ys) - min(ys)
    left, right = int(min(xs) - 0.1 * wide), int(max(xs) + 0.1 * wide)
    top, bottom = int(min(ys) - 0.1 * high), int(max(ys) + 0.1 * high)
    assert 0 < left < right < 256 and 0 < top < bottom < 256  # nothing to clip
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[top:bottom, left:right]
    expected = cv2.resize(gray, (224, 224), interpolation=cv2.INTER_AREA)
    cropper = cropper_of("none", 224)
    np.testing.assert_array_equal(cropper.crop(frame), expected)


def test_no_face_gives_no_crop(searching: FaceCropper, frames: list[np.ndarray]):
    assert searching.crop(NOISE) is None
    assert searching.crop(np.zeros((120, 160, 3), np.uint8)) is None
    assert searching.crop(frames[0]) is not None


def test_face_beside_the_frame_gives_no_crop(monkeypatch: pytest.MonkeyPatch):
    cropper = cropper_of("sampled", 64)
    for offset in [(-200, 0), (400, 0), (0, -200), (0, 400)]:
        landmarks = np.array([(10.0, 10.0), (90.0, 110.0)]) + offset
        monkeypatch.setattr(cropper, "observe", lambda frame, found=landmarks: found)
        assert cropper.crop(NOISE) is None


def test_landmarks_are_pixels_of_the_frame(searching: FaceCropper, frames: list[np.ndarray]):
    small = searching.observe(frames[0])
    assert small.shape == (468, 2)
    wide = cv2.copyMakeBorder(frames[0], 0, 0, 128, 0, cv2.BORDER_REPLICATE)  # (256, 384, 3)
    moved = searching.observe(wide) - small
    assert np.median(moved, axis=0) == pytest.approx((128, 0), abs=6)


def test_without_tracking_a_crop_depends_on_its_frame_alone(
    searching: FaceCropper, frames: list[np.ndarray]
):
    forwards = [searching.crop(frame) for frame in frames]
    searching.crop(NOISE)
    backwards = [searching.crop(frame) for frame in reversed(frames)][::-1]
    np.testing.assert_array_equal(forwards, backwards)


@pytest.mark.parametrize("tracking", ["every_frame", "sampled"])
def test_tracking_forgets_the_clip_before(tracking: str, frames: list[np.ndarray]):
    cropper = cropper_of(tracking, 64)
    cropper.start_clip()
    first = [cropper.crop(frame) for frame in frames]
    cropper.start_clip()
    np.testing.assert_array_equal([cropper.crop(frame) for frame in frames], first)
    tracked = [cropper.crop(frame) for frame in frames]  # the same frames, but no new clip
    assert not np.array_equal(tracked, first)


@pytest.mark.parametrize("tracking", TRACKING)
def test_mediapipe_is_quiet(tracking: str, frames: list[np.ndarray], capfd):
    cropper = cropper_of(tracking, 64)
    for _ in range(2):
        cropper.start_clip()
        for frame in (frames[0], NOISE, frames[1]):
            cropper.crop(frame)
    assert capfd.readouterr() == ("", "")


def test_only_what_mediapipe_says_is_kept_off_the_screen(capfd):
    with quiet_mediapipe():
        os.write(2, b"from C++\n")
    os.write(2, b"afterwards\n")
    with pytest.raises(RuntimeError, match="comes through"), quiet_mediapipe():
        raise RuntimeError("comes through")
    os.write(2, b"after an error\n")
    assert capfd.readouterr().err == "afterwards\nafter an error\n"


def test_faces_are_found_on_real_clips(shared_data: Path, searching: FaceCropper):
    frames = frames_of(shared_data / "javanese" / "06-02-06_01.mp4", 60)[::10]
    assert sum(searching.crop(frame) is not None for frame in frames) >= 3
