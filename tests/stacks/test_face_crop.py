"""Faces: the box by hand, the crop's form, what tracking sees, and no chatter."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion import REPOSITORY
from emotion.stacks.cache import Cache
from emotion.stacks.face_crop import MOUTH, PLACES, FaceCropper, crop_features, face_box
from emotion.stacks.face_mesh import LOOK_EVERY, MeshFace, quiet_mediapipe
from emotion.stacks.landmarks import eye_centers, normalize_landmarks
from tests.plain_mesh import PlainMesh
from tests.stacks.standard import STANDARD

NOISE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
TRACKING = ("every_frame", "sampled", "none")


class ImageCropper(FaceCropper):
    """Gives the image of a face alone, and keeps its landmarks."""

    landmarks = None

    def crop(self, frame: np.ndarray) -> np.ndarray | None:
        face = super().crop(frame)
        self.landmarks = face and face.landmarks
        return face and face.crop


def cropper_of(tracking: str, size_px: int, **settings: object) -> ImageCropper:
    return ImageCropper(replace(STANDARD, tracking=tracking, size_px=size_px, **settings))


def mesh_of(landmarks: np.ndarray) -> MeshFace:
    return MeshFace(landmarks, np.zeros(52, np.float32))


def turned(frame: np.ndarray, deg: float) -> np.ndarray:
    """Turn a frame counter-clockwise about its middle, at its size."""
    height, width = frame.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), deg, 1)
    return cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)


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
    xs, ys = (256 * PlainMesh().find(frame)[:, :2]).T
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
        monkeypatch.setattr(cropper, "find", lambda frame, found=landmarks: mesh_of(found))
        assert cropper.crop(NOISE) is None


def test_landmarks_are_pixels_of_the_frame(searching: FaceCropper, frames: list[np.ndarray]):
    small = searching.observe(frames[0]).landmarks
    assert small.shape == (468, 3)
    wide = cv2.copyMakeBorder(frames[0], 0, 0, 128, 0, cv2.BORDER_REPLICATE)  # (256, 384, 3)
    moved = searching.observe(wide).landmarks - small
    assert np.median(moved, axis=0) == pytest.approx((128, 0, 0), abs=6)


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


@pytest.mark.slow
def test_signals_that_python_restores_do_not_kill_a_process_with_a_mesh():
    """Lightning sets the handler of every signal to what Python knew of it before a run."""
    code = """
import signal
import numpy as np
from emotion.stacks.face_mesh import FaceMesh
from tests.stacks.standard import STANDARD
mesh = FaceMesh(STANDARD)
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    if signal.getsignal(number) is not None:
        signal.signal(number, signal.getsignal(number))
for _ in range(300):
    mesh.observe(np.zeros((300, 300, 3), np.uint8))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.slow
def test_faces_are_found_on_real_clips(shared_data: Path, searching: FaceCropper):
    frames = frames_of(shared_data / "javanese" / "06-02-06_01.mp4", 60)[::10]
    assert sum(searching.crop(frame) is not None for frame in frames) >= 3


def plain_crop(frame: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cut a face out as the seed does, with nothing of ours."""
    height, width = frame.shape[:2]
    xs, ys = (landmarks[:, :2] * (width, height)).T
    wide, high = max(xs) - min(xs), max(ys) - min(ys)
    left, right = max(0, int(min(xs) - 0.1 * wide)), min(width, int(max(xs) + 0.1 * wide))
    top, bottom = max(0, int(min(ys) - 0.1 * high)), min(height, int(max(ys) + 0.1 * high))
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[top:bottom, left:right]
    return cv2.resize(gray, (224, 224), interpolation=cv2.INTER_AREA)


def test_one_face_gives_the_crops_of_a_mesh_for_one_to_the_last_bit(frames: list[np.ndarray]):
    cropper = cropper_of("sampled", 224)
    cropper.start_clip()
    mesh = PlainMesh(step_ms=167)
    for frame in frames * 3:  # 27 frames: it is looked for a second face within
        np.testing.assert_array_equal(cropper.crop(frame), plain_crop(frame, mesh.find(frame)))
        assert cropper.num_seen == 1


@pytest.mark.slow
def test_real_face_gives_the_crops_of_a_mesh_for_one_to_the_last_bit(shared_data: Path):
    cropper = cropper_of("sampled", 224)
    cropper.start_clip()
    compared = 0
    mesh = PlainMesh(step_ms=167)
    for frame in frames_of(shared_data / "javanese" / "06-02-06_01.mp4", 130)[::5]:
        landmarks, crop = mesh.find(frame), cropper.crop(frame)
        assert (crop is None) == (landmarks is None)
        if crop is not None:
            np.testing.assert_array_equal(crop, plain_crop(frame, landmarks))
            compared += 1
    assert compared > 15


# Several faces


@pytest.fixture(scope="module")
def pair(demo_cache: Cache) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Give every third frame of two people's clips, 30 of each."""
    first, second = (
        frames_of(demo_cache.root / f"{clip}_0001.mp4", 90)[::3] for clip in ("Happy", "Sad")
    )
    return first, second


def scene(*faces: tuple[np.ndarray, int, int]) -> np.ndarray:
    """Paste pictures of faces, each from a column on and of so many pixels, into (320, 640, 3)."""
    canvas = np.full((320, 640, 3), 90, np.uint8)
    for picture, left, size_px in faces:
        resized = cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_AREA)
        canvas[:size_px, left : left + size_px] = resized[:, : 640 - left]
    return canvas


class Scenes:
    """Crops scenes of two people, one after the other, and tells whose face each crop shows."""

    def __init__(self, cropper: FaceCropper) -> None:
        self.cropper = cropper
        self.searching = cropper_of("none", 64)
        self.whose: list[int | None] = []  # 0 and 1, or None where there is no crop
        self.num_seen: list[int] = []
        cropper.start_clip()
        self.searching.start_clip()

    def show(self, *faces: tuple[np.ndarray, int, int] | None) -> None:
        """Show a scene of both people, or of one, the other being None."""
        crop = self.cropper.crop(scene(*filter(None, faces)))
        self.num_seen.append(self.cropper.num_seen)
        if crop is None:
            self.whose.append(None)
            return
        alone = [face and self.searching.crop(scene(face)) for face in faces]
        away = [np.inf if c is None else np.abs(crop.astype(float) - c).mean() for c in alone]
        assert min(away) < 13 and max(away) > 2 * min(away), away
        self.whose.append(int(np.argmin(away)))


@pytest.mark.parametrize("tracking", TRACKING)
@pytest.mark.parametrize(("follow", "person"), [("largest", 0), ("central", 1)])
def test_of_several_faces_the_config_says_whose(
    pair: tuple, tracking: str, follow: str, person: int
):
    scenes = Scenes(cropper_of(tracking, 64, follow=follow))
    for first, second in list(zip(*pair, strict=True))[:8]:
        scenes.show((first, 0, 300), (second, 260, 180))  # middles at 150 and 350 of 640
    assert scenes.whose == [person] * 8
    assert scenes.num_seen == [2] * 8


@pytest.mark.slow
@pytest.mark.parametrize("tracking", ["every_frame", "sampled"])
@pytest.mark.parametrize("follow", ["largest", "central"])
def test_a_person_is_followed_when_the_other_grows_and_comes_to_the_middle(
    pair: tuple, tracking: str, follow: str
):
    scenes = Scenes(cropper_of(tracking, 64, follow=follow))
    for number, (first, second) in enumerate(zip(*pair, strict=True)):
        grown = 5 * number
        scenes.show((first, 110 - grown // 2, 210), (second, 400 - grown, 160 + grown))
    assert scenes.whose == [0] * 30


def test_without_tracking_each_frame_shows_its_own_largest_face(pair: tuple):
    scenes = Scenes(cropper_of("none", 64))
    for first, second in list(zip(*pair, strict=True))[:4]:
        scenes.show((first, 0, 250), (second, 330, 150))
        scenes.show((first, 0, 150), (second, 330, 250))
    assert scenes.whose == [0, 1] * 4


@pytest.mark.parametrize("tracking", ["sampled"])
def test_when_the_person_leaves_the_other_one_is_not_taken(pair: tuple, tracking: str):
    scenes = Scenes(cropper_of(tracking, 64))
    for number, (first, second) in enumerate(zip(*pair, strict=True)):
        scenes.show((first, 0, 250) if not 10 <= number < 20 else None, (second, 360, 200))
    assert scenes.whose[:10] == [0] * 10
    assert scenes.whose[10:20] == [None] * 10
    assert scenes.whose[22:] == [0] * 8  # and is found again


@pytest.mark.slow
@pytest.mark.parametrize("comes", [1, 7])
def test_a_second_face_that_comes_later_is_seen_in_time_and_not_taken(pair: tuple, comes: int):
    scenes = Scenes(cropper_of("sampled", 64))
    clip = 2 * list(zip(*pair, strict=True))
    for number, (first, second) in enumerate(clip[:40]):
        away = number >= 30
        scenes.show(
            None if away else (first, 0, 200), (second, 340, 280) if number >= comes else None
        )
    assert scenes.num_seen[:comes] == [1] * comes
    assert scenes.num_seen[comes + LOOK_EVERY : 30] == [2] * (30 - comes - LOOK_EVERY)
    assert scenes.whose == [0] * 30 + [None] * 10


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [6, 12])
def test_the_other_is_not_taken_though_nobody_has_looked_since_they_came(pair: tuple, leaves: int):
    scenes = Scenes(cropper_of("sampled", 64))
    assert leaves < LOOK_EVERY
    for number, (first, second) in enumerate(zip(*pair, strict=True)):
        scenes.show(
            (first, 0, 200) if number < leaves else None,
            (second, 360, 250) if number >= 4 else None,
        )
    assert scenes.whose == [0] * leaves + [None] * (30 - leaves)


class ShuffledMesh:
    """Stands in for a landmarker: gives the same two faces in one order, then in the other."""

    def __init__(self) -> None:
        self.calls = 0

    def find(self, frame: np.ndarray) -> list[MeshFace]:
        if frame.shape == (8, 8, 3):  # the end of a clip
            return []
        self.calls += 1
        faces = [self.face(10 + 0.5 * self.calls, 30), self.face(60, 30 + self.calls)]
        return faces[:: (-1) ** self.calls]

    @staticmethod
    def face(left: float, size: float) -> MeshFace:
        return mesh_of(np.array([(left, 20.0, 0), (left + size, 20 + size, 0)]))


@pytest.mark.parametrize(("follow", "left"), [("largest", 0.6), ("central", 0.105)])
def test_the_order_in_which_the_mesh_gives_faces_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, follow: str, left: float
):
    """The face at 0.6 grows and is larger from the start; the one at 0.1 moves to the right."""
    cropper = cropper_of("sampled", 64, follow=follow)
    monkeypatch.setattr(cropper, "_several", ShuffledMesh())
    cropper.start_clip()
    cropper._crowded = True
    lefts = [cropper.observe(np.zeros((100, 100, 3), np.uint8)).landmarks[0, 0] for _ in range(20)]
    moves = 0.5 if follow == "central" else 0
    assert lefts == pytest.approx([100 * left + moves * number for number in range(20)])


# Landmarks


def four_corners(left: tuple, right: tuple, point: tuple) -> np.ndarray:
    """Give landmarks whose corners of both eyes lie around these centres, and all others there."""
    landmarks = np.tile(np.array(point, float), (468, 1))
    aside = np.array([2.0, 1.0, 3.0])
    landmarks[33], landmarks[133] = left - aside, left + aside
    landmarks[362], landmarks[263] = right - aside, right + aside
    return landmarks


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        # Eyes 3 apart in x, 4 in y, 12 in z, 13 in space. (3, 4) / 5 points along them.
        ((2.5 + 3, 4 + 4, 9), (5 / 13, 0, 0)),
        ((2.5 - 4, 4 + 3, 9 + 26), (0, 5 / 13, 2)),
        ((2.5, 4, 9), (0, 0, 0)),
    ],
)
def test_normalised_landmarks_by_hand(point: tuple, expected: tuple):
    landmarks = normalize_landmarks(four_corners((1, 2, 3), (4, 6, 15), point))
    assert landmarks.shape == (468, 3) and landmarks.dtype == np.float32
    assert landmarks[0] == pytest.approx(expected, abs=1e-6)
    left_eye, right_eye = eye_centers(landmarks)
    assert left_eye == pytest.approx((-2.5 / 13, 0, -6 / 13), abs=1e-6)
    assert right_eye == pytest.approx((2.5 / 13, 0, 6 / 13), abs=1e-6)


@pytest.mark.parametrize("deg", [-170, -90, -20, 0, 45, 180])
def test_normalised_landmarks_know_no_place_size_or_roll(deg: float):
    landmarks = np.random.default_rng(0).uniform(0, 300, (468, 3))
    cosine, sine = np.cos(np.deg2rad(deg)), np.sin(np.deg2rad(deg))
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    moved = 0.3 * landmarks @ turn.T + (700, -40, 11)
    expected = normalize_landmarks(landmarks)
    np.testing.assert_allclose(normalize_landmarks(moved), expected, atol=1e-5)
    other = landmarks.copy()
    other[4] += 30  # but anything else they know
    assert not np.allclose(normalize_landmarks(other), expected, atol=1e-3)


@pytest.mark.parametrize("align", [False, True])
def test_a_crop_leaves_the_landmarks_of_its_face(frames: list[np.ndarray], align: bool):
    cropper = cropper_of("none", 64, align=align)
    cropper.start_clip()
    cropper.crop(frames[2])
    found = cropper.landmarks
    np.testing.assert_array_equal(found, normalize_landmarks(cropper.observe(frames[2]).landmarks))
    chin, nose, left_ear, right_ear = found[[152, 4, 234, 454]]
    assert chin[1] > 1 and abs(chin[0]) < 0.3  # y goes down
    assert left_ear[0] < -0.5 and right_ear[0] > 0.5  # x goes to the right
    assert nose[2] < -0.2 < left_ear[2]  # and z away
    cropper.crop(turned(frames[2], 20))
    assert np.abs(cropper.landmarks - found)[:, :2].mean() < 0.05  # where the box moves by 0.3
    assert cropper.crop(NOISE) is None and cropper.landmarks is None


# Eyes level


def eyes_deg(picture: np.ndarray) -> float:
    """Measure by how much the line through the outer corners of the eyes is turned."""
    height, width = picture.shape[:2]
    x, y = (PlainMesh().find(picture)[[33, 263], :2] * (width, height)).T
    return float(np.degrees(np.arctan2(y[1] - y[0], x[1] - x[0])))


def with_border(crop: np.ndarray) -> np.ndarray:
    """Give a crop as RGB with room around it, in which a mesh finds the face."""
    roomy = cv2.copyMakeBorder(crop, 60, 60, 60, 60, cv2.BORDER_REPLICATE)
    return cv2.cvtColor(roomy, cv2.COLOR_GRAY2RGB)


@pytest.mark.slow
@pytest.mark.parametrize("deg", [-30, -20, -8, 8, 20, 30])
def test_aligned_crop_of_a_turned_frame_is_that_of_the_upright_one(
    frames: list[np.ndarray], deg: float
):
    upright, tilted = frames[2], turned(frames[2], deg)
    assert eyes_deg(tilted) == pytest.approx(eyes_deg(upright) - deg, abs=4)
    level, plain = (cropper_of("none", 224, align=align) for align in (True, False))
    expected = level.crop(upright).astype(float)
    assert np.abs(level.crop(tilted) - expected).mean() < 8
    if abs(deg) >= 20:
        assert np.abs(plain.crop(tilted) - expected).mean() > 16
    assert abs(eyes_deg(with_border(level.crop(tilted)))) < 4
    assert eyes_deg(with_border(plain.crop(tilted))) == pytest.approx(-deg, abs=8)


def test_eyes_are_levelled_only_if_asked_for(compose: Callable):
    assert compose("preprocess").face.align is False


@pytest.mark.slow
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.1, 0.3])
def test_margin_is_the_room_beside_the_face(frames: list[np.ndarray], align: bool, margin: float):
    crop = cropper_of("none", 300, align=align, margin=margin).crop(turned(frames[2], 15))
    for places in (420 * PlainMesh().find(with_border(crop))[:, :2] - 60).T:
        room = 300 * margin / (1 + 2 * margin)
        assert places.min() == pytest.approx(room, abs=15)
        assert places.max() == pytest.approx(300 - room, abs=15)


def test_aligned_face_at_the_edge_is_whole_beyond_it_the_edge_goes_on(frames: list[np.ndarray]):
    """Of the box, a fifth lies outside the frame: the crop's columns there repeat the edge's."""
    cropper = cropper_of("none", 224, align=True)
    landmarks = cropper.observe(frames[2]).landmarks
    left, width = landmarks[:, 0].min(), np.ptp(landmarks[:, 0])
    cut = frames[2][:, int(left + 0.1 * width) :]
    crop = cropper.crop(cut)
    assert crop.shape == (224, 224)
    assert abs(eyes_deg(with_border(crop))) < 5


def test_aligned_face_beside_the_frame_gives_no_crop(monkeypatch: pytest.MonkeyPatch):
    cropper = cropper_of("sampled", 64, align=True)
    for offset in [(-600, 0), (800, 0), (0, -600), (0, 800)]:
        landmarks = np.random.default_rng(0).uniform(10, 90, (468, 2)) + offset
        monkeypatch.setattr(cropper, "find", lambda frame, found=landmarks: mesh_of(found))
        assert cropper.crop(NOISE) is None


def test_without_tracking_the_sampled_frames_need_not_begin_with_the_clip(
    frames: list[np.ndarray],
):
    for align in (False, True):
        cropper = cropper_of("none", 64, align=align)
        cropper.start_clip()
        every = [cropper.crop(frame) for frame in frames]
        for start, step in [(0, 2), (1, 2), (2, 3), (5, 1)]:
            cropper.start_clip()
            some = [cropper.crop(frame) for frame in frames[start::step]]
            np.testing.assert_array_equal(some, every[start::step])


# Eyes and mouth at fixed places


def features_of(crop: np.ndarray) -> np.ndarray:
    """Find both eyes and the mouth in a crop, as (3, 2) fractions of its side."""
    points = PlainMesh().find(with_border(crop))[:, :2]
    points = (points * (len(crop) + 120) - 60) / len(crop)
    return np.stack([*eye_centers(points), points[list(MOUTH)].mean(axis=0)])


@pytest.mark.slow
@pytest.mark.parametrize("deg", [0, 20])
@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_eyes_and_mouth_come_to_their_places(frames: list[np.ndarray], deg: float, margin: float):
    cropper = cropper_of("none", 224, fit="features", margin=margin)
    crop = cropper.crop(turned(frames[2], deg))
    assert crop.shape == (224, 224) and crop.dtype == np.uint8
    expected = 0.5 + (PLACES - 0.5) / (1 + 2 * margin)
    assert np.abs(features_of(crop) - expected).max() < 0.05


def test_the_map_is_the_similarity_of_least_squares(monkeypatch: pytest.MonkeyPatch):
    """Two numbers for turn and scale, two for the shift: a linear problem."""
    landmarks = np.random.default_rng(0).uniform(40, 200, (468, 3))
    drawn = {}
    monkeypatch.setattr(
        cv2, "warpAffine", lambda gray, matrix, size, **_: drawn.update(m=matrix) or gray
    )
    crop_features(NOISE, landmarks, 0.1, 300)
    features = np.stack([*eye_centers(landmarks), landmarks[list(MOUTH)].mean(axis=0)])[:, :2]
    x, y, one, zero = *features.T, np.ones(3), np.zeros(3)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    places = 300 * (0.5 + (PLACES - 0.5) / 1.2)
    (a, b, right, down), *_ = np.linalg.lstsq(system, places.T.ravel(), rcond=None)
    np.testing.assert_allclose(drawn["m"], [[a, -b, right], [b, a, down]], atol=1e-9)


def test_a_large_face_is_made_smaller_by_areas(frames: list[np.ndarray]):
    """Of a face in fine stripes, a warp alone would take some and skip others."""
    cropper = cropper_of("none", 24, fit="features", margin=0.0)
    found = cropper.observe(frames[2])
    cropper.find = lambda _: found
    stripes = np.zeros_like(frames[2])
    stripes[:, ::2] = 255
    crop = cropper.crop(stripes)
    assert np.abs(crop[4:-4, 4:-4].astype(float) - 127.5).max() < 40


def test_an_open_mouth_moves_no_eye(frames: list[np.ndarray]):
    """The box around the face grows by the chin, and squeezes everything above it."""
    landmarks = cropper_of("none", 224).observe(frames[2]).landmarks
    low = landmarks.copy()
    low[152, 1] += 60  # the chin
    for fit, same in (("features", True), ("box", False)):
        crops = []
        for points in (landmarks, low):
            cropper = cropper_of("none", 224, fit=fit)
            cropper.find = lambda frame, points=points: mesh_of(points)
            crops.append(cropper.crop(frames[2]))
        assert np.array_equal(*crops) == same
