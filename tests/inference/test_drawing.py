"""Pictures of answers: a clip that plays, a timeline, and a cover frame that shows a face."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from emotion import EmotionRecognizer
from emotion.clips.video import Video
from emotion.inference.answer import Answer, SampledFace, Window
from emotion.inference.drawing import (
    annotate,
    box_at,
    cover_frame,
    probabilities_at,
    render,
    write_clip,
)
from emotion.stacks.face_crop import FaceCropper
from tests.stacks.standard import STANDARD


def happy(share: float) -> dict[str, float]:
    return {"Happy": share, "Sad": 1 - share}


def faces(*found: tuple[int, float]) -> list[SampledFace]:
    still = (0.0,) * 52
    return [SampledFace(frame, (0, 0, 10, 10), sharpness, still) for frame, sharpness in found]


# The cover frame


def test_the_cover_is_the_sharpest_face_near_the_peak():
    answer = Answer(
        "x.mp4",
        label="Happy",
        windows=[Window(0, 90, happy(0.5)), Window(90, 90, happy(0.9)), Window(180, 90, None)],
        faces=faces((45, 99.0), (100, 50.0), (120, 7.0), (135, 9.0), (150, 8.0), (220, 99.0)),
    )  # the peak's middle is 134.5; a quarter of 90 frames on each side is 112 to 157
    assert cover_frame(answer) == 135
    assert cover_frame(replace(answer, label="Sad")) == 45  # near 44.5, the peak of Sad


def test_without_a_face_near_the_peak_one_in_its_window_does():
    answer = Answer(
        "x.mp4",
        label="Happy",
        windows=[Window(0, 90, happy(1.0))],
        faces=faces((5, 1.0), (10, 2.0)),
    )
    assert cover_frame(answer) == 10
    assert cover_frame(replace(answer, label=None, windows=[])) is None


# What is said of a frame


@pytest.mark.parametrize(
    ("frame", "expected"), [(0, 0.2), (44.5, 0.2), (59.5, 0.4), (67, 0.5), (74.5, 0.6), (119, 0.6)]
)
def test_between_two_windows_probabilities_move_in_proportion(frame: float, expected: float):
    windows = [Window(0, 90, happy(0.2)), Window(30, 90, happy(0.6))]
    result = probabilities_at(windows, frame)
    assert result == {"Happy": pytest.approx(expected), "Sad": pytest.approx(1 - expected)}


def test_where_the_nearest_window_has_no_answer_there_is_none():
    windows = [Window(0, 90, happy(0.2)), Window(30, 90, None)]
    assert probabilities_at(windows, 59) == happy(0.2)
    assert probabilities_at(windows, 60) is None and probabilities_at(windows, 200) is None
    assert probabilities_at([], 5) is None


def test_a_box_moves_evenly_between_sampled_frames():
    boxes = {0: (0, 0, 10, 10), 5: (10, 5, 20, 15), 20: (0, 0, 10, 10)}
    assert box_at(boxes, 0, 5) == (0, 0, 10, 10) and box_at(boxes, 5, 5) == (10, 5, 20, 15)
    assert box_at(boxes, 2, 5) == (4, 2, 14, 12)
    assert box_at(boxes, 9, 5) == (10, 5, 20, 15)  # the sampled frame 10 shows no face
    assert [box_at(boxes, frame, 5) for frame in (10, 19)] == [None, None]
    assert box_at(boxes, 24, 5) == (0, 0, 10, 10) and box_at(boxes, 25, 5) is None


# Drawing


@pytest.mark.parametrize(
    ("shape", "picture"),
    [((270, 360), (480, 640)), ((720, 1280), (720, 1280)), ((2160, 3840), (1080, 1920)),
     ((1281, 721), (1280, 720)), ((64, 64), (480, 480))],
)  # fmt: skip
def test_annotated_frames_can_be_read_and_encoded(shape: tuple, picture: tuple):
    frame = np.full((*shape, 3), 90, np.uint8)
    drawn = annotate(frame, (2, 3, 40, 50), {"Fröhlich": 0.7, "Sad": 0.3}, 0.5)
    assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    assert drawn.shape[1] == picture[1] and drawn.shape[0] > picture[0]
    assert (drawn[picture[0] - 2, picture[1] - 2] == 90).all()  # the frame itself is untouched


def test_a_frame_shows_box_and_label_only_where_there_is_one():
    frame = np.full((480, 640, 3), 90, np.uint8)

    def changed(*what) -> np.ndarray:
        return (annotate(frame, *what)[:480] != 90).any(axis=2)

    box = (100, 200, 300, 400)
    assert not changed(None, happy(0.9), 0.5).any()
    rows, columns = np.nonzero(changed(box, None, 0.5))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == box
    tagged = changed(box, happy(0.9), 0.5)
    assert tagged[185, 110] and not tagged[300, 200]  # above the box, not in the face
    unsure = annotate(frame, box, happy(0.6), 0.7)
    assert (unsure[300, 100] == 240).all()  # no emotion's colour


def test_reasons_have_a_line_of_their_own():
    frame = np.full((480, 640, 3), 90, np.uint8)
    plain = annotate(frame, None, happy(0.9), 0.5)
    for why in ("Happy: mouth corners up", "Happy: " + "lips closed over an open jaw, " * 5):
        drawn = annotate(frame, None, happy(0.9), 0.5, why=why)
        assert (drawn[: len(plain)] == plain).all() and len(drawn) % 2 == 0
        line = (drawn[len(plain) :] > 200).any(axis=2)
        columns = np.flatnonzero(line.any(axis=0))
        assert columns[0] > 0 and columns[-1] < 639  # no letter is cut
        assert not line[-1].any()


def test_a_clip_of_any_rate_plays_as_h264(tmp_path: Path):
    with write_clip(tmp_path / "new" / "x.mp4", 29.97) as write:
        for level in range(30):
            write(np.full((66, 128, 3), 8 * level, np.uint8))
    levels = [p.rgb().mean() for p in Video(tmp_path / "new" / "x.mp4").pictures()]
    np.testing.assert_allclose(levels, np.arange(30) * 8, atol=3)
    with av.open(str(tmp_path / "new" / "x.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == pytest.approx(29.97, abs=0.01)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.mp4"]


@pytest.fixture
def late_face(demo_cache, write_video: Callable[..., Path], tmp_path: Path) -> Path:
    """A clip whose first 30 frames are black; of its face, every other frame is blurred."""
    frames = [np.zeros((240, 240, 3), np.uint8)] * 30
    for number, picture in enumerate(Video(demo_cache.root / "Happy_0001.mp4").pictures()):
        frame = cv2.cvtColor(picture.rgb(), cv2.COLOR_RGB2BGR)
        frame = cv2.resize(frame, (240, 240))
        frames.append(cv2.GaussianBlur(frame, (0, 0), 3) if number % 10 else frame)
    return write_video(tmp_path / "late.mp4", frames)


def test_pictures_of_a_clip(run_dir: Path, late_face: Path, tmp_path: Path):
    recognizer = EmotionRecognizer.load(run_dir)
    answer = recognizer.predict(late_face, stride=15)
    render(answer, recognizer.settings, 0.0, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["annotated.mp4", "blendshapes.png", "cover.jpg", "timeline.png"]

    cover = cover_frame(answer)
    assert 30 <= cover < answer.num_frames == 120
    assert (cover - 30) % 10 == 0  # one of the sharp ones
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "out" / "cover.jpg")), cv2.COLOR_BGR2RGB)
    searcher = FaceCropper(replace(STANDARD, tracking="none", size_px=64))
    searcher.start_clip()
    assert searcher.crop(picture) is not None
    shown = list(Video(late_face).pictures())[cover].rgb()
    assert np.abs(picture.astype(int) - shown).mean() < 3

    annotated = [picture.rgb() for picture in Video(tmp_path / "out" / "annotated.mp4").pictures()]
    assert len(annotated) == 120 and annotated[0].shape[1] == 480
    assert cv2.imread(str(tmp_path / "out" / "timeline.png")).shape[1] > 900
    assert cv2.imread(str(tmp_path / "out" / "blendshapes.png")).shape[1] > 900


def test_a_clip_without_an_answer_has_no_cover(
    run_dir: Path, write_video: Callable[..., Path], tmp_path: Path
):
    clip = write_video(tmp_path / "gray.mp4", [np.full((90, 120, 3), 99, np.uint8)] * 80)
    recognizer = EmotionRecognizer.load(run_dir)
    render(recognizer.predict(clip, stride=15), recognizer.settings, 0.5, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["annotated.mp4", "timeline.png"]
