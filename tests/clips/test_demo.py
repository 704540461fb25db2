"""Demo clips: reproducible, complete, and with the expression of their label for FaceMesh."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion.clips.demo import render as demo
from emotion.clips.demo.identity import Identity
from emotion.clips.demo.motion import ACTION_UNITS, Pose, action_unit_curves
from emotion.clips.demo.portrait import Portrait
from emotion.clips.demo.render import Format
from emotion.errors import UserError
from tests.plain_mesh import PlainMesh

SMALL = Format(num_frames=12, size_px=128, fps=25.0)
# EMFACS prototypes, with the parted lips (25) of a dropped jaw.
PROTOTYPES = {
    "Anger": {4, 5, 7, 23},
    "Happy": {6, 12},
    "Neutral": set(),
    "Sad": {1, 4, 15},
    "Shock": {1, 2, 5, 25, 26},
}

Measure = Callable[[np.ndarray], float]


def find_landmarks(mesh: PlainMesh, frame: np.ndarray) -> np.ndarray | None:
    """Return upright (468, 2) landmarks in units of the distance of the outer eye corners."""
    found = mesh.find(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    if found is None:
        return None
    points = found[:, :2]
    across = points[263] - points[33]
    turn = np.array([across, (-across[1], across[0])]).T / (across @ across)
    return points @ turn


def opening(points: np.ndarray) -> float:
    """Return the distance of the lips."""
    return points[14, 1] - points[13, 1]


def mouth_width(points: np.ndarray) -> float:
    """Return the distance of the corners of the mouth."""
    return points[291, 0] - points[61, 0]


def corner_rise(points: np.ndarray) -> float:
    """Return the height of the corners of the mouth above the bottom of the upper lip."""
    return points[13, 1] - points[[61, 291], 1].mean()


def chin_drop(points: np.ndarray) -> float:
    """Return the distance from the tip of the nose to the chin."""
    return points[152, 1] - points[1, 1]


def eye_opening(points: np.ndarray) -> float:
    """Return the distance of the lids."""
    return (points[[145, 374], 1] - points[[159, 386], 1]).mean()


def inner_brow(points: np.ndarray) -> float:
    """Return the height of the inner ends of the brows above the corners of the eyes."""
    return points[[33, 133, 263, 362], 1].mean() - points[[107, 336], 1].mean()


def outer_brow(points: np.ndarray) -> float:
    """Return the height of the outer ends of the brows above the corners of the eyes."""
    return points[[33, 133, 263, 362], 1].mean() - points[[70, 300], 1].mean()


def brow_gap(points: np.ndarray) -> float:
    """Return the distance of the inner ends of the brows."""
    return points[336, 0] - points[107, 0]


@pytest.fixture(scope="module")
def mesh() -> PlainMesh:
    return PlainMesh()


GRAY = np.full((256, 256, 3), 128, np.uint8)
REST = np.zeros((len(ACTION_UNITS), 2))


@pytest.fixture(scope="module")
def people(mesh) -> list[tuple[Portrait, np.ndarray]]:
    """Give people, each with the landmarks of the resting face."""
    portraits = []
    for number in range(5):
        rng = np.random.default_rng([3, number])
        person = Identity(rng)
        person.glasses = False  # FaceMesh mistakes a rim for brow and lid
        portraits.append(Portrait(person, rng, 256))
    return [(each, find_landmarks(mesh, each.draw(REST, Pose(), GRAY))) for each in portraits]


@pytest.mark.parametrize(
    ("unit", "measure", "sign"),
    [
        (1, inner_brow, 1),
        (1, lambda points: inner_brow(points) - outer_brow(points), 1),
        (2, outer_brow, 1),
        (4, inner_brow, -1),
        (4, brow_gap, -1),
        (5, eye_opening, 1),
        (6, eye_opening, -1),
        (7, eye_opening, -1),
        (12, mouth_width, 1),
        (12, corner_rise, 1),
        (15, corner_rise, -1),
        (23, mouth_width, -1),
        (25, opening, 1),
        (26, opening, 1),
        (26, chin_drop, 1),
        (45, eye_opening, -1),
    ],
)
def test_action_unit_moves_its_feature(mesh, people, unit: int, measure: Measure, sign: int):
    moved = REST.copy()
    moved[ACTION_UNITS.index(unit)] = 1
    changes = []
    for portrait, before in people:
        after = find_landmarks(mesh, portrait.draw(moved, Pose(), GRAY))
        changes.append(measure(after) - measure(before))
    # FaceMesh's shape prior damps brows and lids of some faces: only the mean must move.
    assert sign * np.mean(changes) > 0.005


def test_one_sided_smile_lifts_one_corner(mesh, people):
    smirk = REST.copy()
    smirk[ACTION_UNITS.index(12)] = (0, 1)  # right in the image
    for portrait, _ in people:
        points = find_landmarks(mesh, portrait.draw(smirk, Pose(), GRAY))
        assert points[291, 1] < points[61, 1]


@pytest.mark.parametrize("clip_id", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("label", "measure", "sign"),
    [
        ("Anger", inner_brow, -1),
        ("Happy", corner_rise, 1),
        ("Neutral", None, 0),
        ("Sad", corner_rise, -1),
        ("Shock", opening, 1),
    ],
)
def test_face_is_tracked_and_shows_its_label(
    label: str, measure: Measure | None, sign: int, clip_id: int
):
    tracker = PlainMesh(step_ms=167)
    frames = islice(demo.render_frames(label, 0, clip_id), 0, None, 5)
    found = [find_landmarks(tracker, frame) for frame in frames]
    assert len(found) == 18 and not any(points is None for points in found)
    if measure:  # every expression is at its peak at 1.8 s, and absent at 0 s
        assert sign * (measure(found[11]) - measure(found[0])) > 0


@pytest.mark.parametrize(("label", "units"), PROTOTYPES.items())
def test_only_the_units_of_the_prototype_become_strong(label: str, units: set[int]):
    for clip_id in range(20):
        rng = np.random.default_rng(clip_id)
        curves = action_unit_curves(label, rng, num_frames=90, fps=30.0)
        assert curves.shape == (90, 12, 2)
        assert curves.min() >= 0 and curves.max() <= 1
        peaks = dict(zip(ACTION_UNITS, curves.max(axis=(0, 2)), strict=True))
        for unit in set(ACTION_UNITS) - {25, 26, 45}:  # speech and blinks also move these
            assert peaks[unit] > 0.4 if unit in units else peaks[unit] < 0.15


def test_seed_label_and_number_determine_every_pixel():
    first = list(demo.render_frames("Sad", 4, 9, SMALL))
    again = list(demo.render_frames("Sad", 4, 9, SMALL))
    np.testing.assert_array_equal(first, again)
    assert np.shape(first) == (12, 128, 128, 3)
    for other in (("Sad", 4, 10), ("Sad", 5, 9), ("Happy", 4, 9)):  # another person each
        difference = np.subtract(next(demo.render_frames(*other, SMALL)), first[0], dtype=float)
        assert np.abs(difference).mean() > 10


def test_file_holds_every_frame(tmp_path: Path):
    path = tmp_path / "Shock_0001.mp4"
    demo.write_clip(path, "Shock", 0, 1, SMALL)
    assert list(tmp_path.iterdir()) == [path]
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == 25
    decoded = []
    while (read := video.read())[0]:
        decoded.append(read[1])
    rendered = list(demo.render_frames("Shock", 0, 1, SMALL))
    assert np.shape(decoded) == np.shape(rendered)
    assert np.abs(np.subtract(decoded, rendered, dtype=float)).mean() < 5


def test_interrupted_clip_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop_early(*_) -> Iterator[np.ndarray]:
        yield np.zeros((128, 128, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "render_frames", stop_early)
    with pytest.raises(KeyboardInterrupt):
        demo.write_clip(tmp_path / "Sad_0001.mp4", "Sad", 0, 1, SMALL)
    assert not list(tmp_path.iterdir())


def test_unwritable_path_is_named(tmp_path: Path):
    (tmp_path / "no_folder").write_text("a file")
    with pytest.raises(OSError, match="no_folder"):
        demo.write_clip(tmp_path / "no_folder" / "Sad_0001.mp4", "Sad", 0, 1, SMALL)


@pytest.mark.parametrize("name", ["Bored_0001.mp4", "Happy.mp4"])
def test_invalid_name_is_refused_before_anything_is_written(tmp_path: Path, name: str):
    paths = [tmp_path / "Happy_0001.mp4", tmp_path / name]
    with pytest.raises(UserError, match=name):
        demo.render_clips(paths, 0, 1, video=SMALL)
    assert not list(tmp_path.iterdir())


def test_only_missing_clips_are_rendered_and_equal_in_any_process(tmp_path: Path):
    paths = [tmp_path / "set" / f"{label}_0002.mp4" for label in PROTOTYPES]
    paths[0].parent.mkdir()
    paths[0].write_bytes(b"kept")
    done = []
    demo.render_clips(paths, 6, 2, lambda: done.append(1), SMALL)
    assert len(done) == 4
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)
    assert paths[0].read_bytes() == b"kept"
    alone = tmp_path / "Sad_0002.mp4"
    demo.write_clip(alone, "Sad", 6, 2, SMALL)
    assert alone.read_bytes() == paths[3].read_bytes()
    demo.render_clips(paths, 6, 2, lambda: done.append(1), SMALL)
    assert len(done) == 4
