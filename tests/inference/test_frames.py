"""Frames that a program has decoded give the answer of their clip."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from emotion import EmotionRecognizer
from emotion.clips.video import Video
from emotion.errors import UserError
from emotion.models.recipe import Recipe
from tests.inference.test_backends import write_onnx


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("model", ["starter", "run", "onnx"])
def test_frames_give_the_answer_of_their_clip(
    run_dir: Path, happy: Path, tmp_path: Path, model: str
):
    path = run_dir if model == "run" else Path(model)
    if model == "onnx":
        path = tmp_path / "model.onnx"
        write_onnx(path, recipe=Recipe.read(run_dir / "recipe.json").to_json())
    recognizer = EmotionRecognizer.load(path)
    of_clip = recognizer.predict(happy, stride=30)
    fps = Fraction(Video(happy).fps)  # PyAV gives a Fraction
    of_frames = recognizer.predict(iter(frames_of(happy)), stride=30, fps=fps)
    assert of_clip.probabilities and of_clip.windows and of_clip.faces
    assert of_frames == replace(of_clip, clip="frames")
    assert of_frames.to_json() == replace(of_clip, clip="frames").to_json()


def test_the_frame_rate_counts_for_a_model_that_samples_by_time(happy: Path):
    recognizer = EmotionRecognizer.load("starter")
    slow = recognizer.predict(frames_of(happy)[::3], fps=10)
    assert slow.num_frames == pytest.approx(recognizer.predict(happy).num_frames, abs=3)
    fast = recognizer.predict(frames_of(happy)[:40], fps=60)  # 0.7 s are too short for an answer
    assert fast.label is None and fast.num_frames == 20


GRAY = np.zeros((64, 64), np.uint8)
RGB = np.zeros((64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("frames", "fps", "named"),
    [
        ([RGB, GRAY], 30, r"frame 1 must be an \(H, W, 3\) uint8 RGB array, got \(64, 64\) uint8"),
        ([RGB / 255], 30, r"frame 0 .* got \(64, 64, 3\) float64"),
        ([np.zeros((64, 64, 4), np.uint8)], 30, r"got \(64, 64, 4\)"),
        ([np.zeros((0, 64, 3), np.uint8)], 30, r"got \(0, 64, 3\)"),
        ([RGB, RGB[:, 1:]], 30, r"frame 1 has the shape \(64, 63, 3\), frame 0 has \(64, 64, 3\)"),
        (["a.mp4"], 30, "frame 0 .*str"),
        ([], 30, "no frames"),
        ([RGB], None, "frame rate"),
        ([RGB], 0, "fps must be more than 0"),
        ([RGB], float("nan"), "fps must be more than 0"),
        ([RGB], "fast", "fps must be a number"),
        ("clip.mp4", 30, "a file has its own"),
    ],
)
def test_what_is_no_frame_or_rate_is_named(frames, fps, named: str):
    recognizer = EmotionRecognizer.load("starter")
    with pytest.raises(UserError, match=named):
        recognizer.predict(frames, fps=fps)
