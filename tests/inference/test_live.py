"""Watching: a clip taken for a camera gives what recognizing the clip gives."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from emotion import EmotionRecognizer
from emotion.clips.video import Video
from emotion.errors import UserError
from emotion.inference.live import Camera, PlayedClip, open_window, watch


@pytest.fixture
def recognizer(run_dir: Path) -> EmotionRecognizer:
    return EmotionRecognizer.load(run_dir)


@pytest.fixture
def two(demo_cache, join_clips, tmp_path: Path) -> Path:
    """A clip of 130 frames, 30 a second."""
    first, second = (demo_cache.root / name for name in ("Happy_0001.mp4", "Sad_0001.mp4"))
    return join_clips(tmp_path / "two.mp4", (first, 0, 90), (second, 0, 40))


def test_answers_are_those_of_the_clips_windows(recognizer: EmotionRecognizer, two: Path):
    frames = list(watch(recognizer, Video(two), stride=15))
    assert [frame.number for frame in frames] == list(range(130))
    answers = {frame.number: frame.probabilities for frame in frames if frame.is_answer}
    # From 75 frames on, of which the last sampled one is number 70; then every 15 frames.
    assert list(answers) == [70, 85, 100, 115]
    windows = recognizer.predict(two, stride=15).windows
    assert [window.first_frame for window in windows] == [0, 15, 30]
    for window in windows:
        assert answers[window.first_frame + 85] == window.probabilities
    assert frames[69].probabilities is None and frames[84].probabilities == answers[70]
    assert all(frame.box is not None for frame in frames)
    line = json.loads(frames[85].to_json())
    assert line["time_s"] == pytest.approx(86 / 30, abs=1e-3)
    assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)


def test_a_played_clip_takes_its_time(two: Path):
    start_s = time.monotonic()
    shown_s = []
    for _ in PlayedClip(Video(two)).pictures():
        shown_s.append(time.monotonic() - start_s)
        if len(shown_s) == 16:
            break
    due_s = np.arange(16) / 30
    assert (np.array(shown_s) >= due_s - 0.005).all()


def test_a_stride_between_the_crops_is_refused(recognizer: EmotionRecognizer, two: Path):
    with pytest.raises(UserError, match="stride=4: it is a multiple of 5"):
        next(watch(recognizer, Video(two), stride=4))


def test_a_camera_that_is_not_there_is_told(capfd):
    with pytest.raises(UserError, match="source=99: there is no such camera"):
        Camera(99)
    assert capfd.readouterr().err == ""


def test_without_a_display_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"there is no display .* window=false"), open_window():
        pass
