"""Watching a clip in place of a camera gives the predictions of the clip's windows."""

import json
from itertools import islice
from pathlib import Path
from threading import Thread

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


def test_predictions_are_those_of_the_clips_windows(recognizer: EmotionRecognizer, two: Path):
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


def test_a_played_clip_waits_until_each_frame_is_due(two: Path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("emotion.inference.live.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(
        "emotion.inference.live.time.sleep", lambda s: clock.__setitem__(0, clock[0] + s)
    )
    due_s = [clock[0] - 100 for _ in islice(PlayedClip(two).pictures(), 16)]
    np.testing.assert_allclose(due_s, np.arange(16) / 30, atol=1e-3)


def test_predict_can_be_called_between_two_frames(recognizer: EmotionRecognizer, two: Path):
    expected = [(f.number, f.box) for f in watch(recognizer, Video(two), stride=15)][:80]
    seen = []

    def watch_and_predict() -> None:
        for frame in watch(recognizer, Video(two), stride=15):
            seen.append((frame.number, frame.box))
            if frame.number in (20, 75):
                assert recognizer.predict(two).label is not None
            if len(seen) == 80:
                return

    thread = Thread(target=watch_and_predict, daemon=True)  # a deadlock must not stop pytest
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert seen == expected  # the other clip does not disturb the tracked face


def test_a_stride_between_the_crops_is_an_error(recognizer: EmotionRecognizer, two: Path):
    with pytest.raises(UserError, match="stride"):
        next(watch(recognizer, Video(two), stride=4))


def test_a_missing_camera_is_an_error(capfd):
    with pytest.raises(UserError, match="source=99"):
        Camera(99)
    assert capfd.readouterr().err == ""


def test_without_a_display_the_error_names_the_key(monkeypatch: pytest.MonkeyPatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="window=true"), open_window():
        pass
