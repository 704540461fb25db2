"""Recognizing: the stacks of a clip are those of training, its probabilities the model's."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy.special import softmax

from emotion import REPOSITORY, EmotionRecognizer
from emotion.clips.naming import Clip
from emotion.clips.video import Video, VideoError
from emotion.data.datamodule import StackDataModule
from emotion.data.dataset import StackDataset
from emotion.errors import UserError
from emotion.evaluation.predictions import Predictions, Sample
from emotion.models.lightning_module import EmotionModule
from emotion.models.recipe import RECIPE_FILE, Recipe
from emotion.stacks.cache import Cache
from emotion.stacks.cutter import Cutter
from emotion.stacks.face_values import values_shape
from emotion.stacks.stack import read_stack


def changed(recipe: Recipe, **values) -> Recipe:
    return recipe.model_copy(update=values)


class Recorder:
    """A backend that keeps the stacks it gets, and returns given logits."""

    person_model = None

    def __init__(self, *logits: list[float]) -> None:
        self.logits = list(logits)
        self.stacks: list[np.ndarray] = []

    def classify(self, inputs: np.ndarray) -> np.ndarray:
        self.stacks.append(inputs[0].copy())
        return np.array([self.logits.pop(0) if self.logits else [0.0] * 5], np.float32)


@pytest.fixture
def recipe(run_dir: Path) -> Recipe:
    return Recipe.read(run_dir / "recipe.json")


@pytest.fixture
def beside(happy: Path, sad: Path, write_video: Callable[..., Path], tmp_path: Path) -> Path:
    """Two people side by side."""
    pictures = [list(Video(path).pictures())[:80] for path in (happy, sad)]
    frames = [
        cv2.cvtColor(np.hstack([left.rgb(), right.rgb()]), cv2.COLOR_RGB2BGR)
        for left, right in zip(*pictures, strict=True)
    ]
    return write_video(tmp_path / "beside.mp4", frames)


# The same stacks, the same model


@pytest.mark.parametrize(
    ("inputs", "in_worker"),
    [("stacks", False), ("stacks", True), ("landmarks", True), ("face", True)],
)
def test_the_inputs_of_a_training_clip_are_those_of_training_bit_for_bit(
    demo_cache, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, inputs: str, in_worker: bool
):
    monkeypatch.setattr("emotion.inference.recognizer.parent_process", lambda: in_worker)
    shape = (9, 64, 64) if inputs == "stacks" else (9, *values_shape(inputs))
    recipe = changed(recipe, inputs=inputs)
    rows = demo_cache.manifest()[:4]
    dataset = StackDataset(demo_cache, rows, recipe.labels, recipe.step, recipe.image_px, inputs)
    for index, row in enumerate(rows):
        backend = Recorder()
        recognizer = EmotionRecognizer(backend, recipe)
        recognizer.predict(demo_cache.root / f"{row.clip}.mp4")
        expected, _ = dataset[index, 0]
        assert expected.shape == shape
        np.testing.assert_array_equal(backend.stacks[row.segment - 1], expected.numpy())


@pytest.mark.parametrize(
    ("interval", "step"), [(5, 1), (10, 2), (15, 3)], ids=["every5", "every10", "every15"]
)
def test_a_real_clips_stacks_are_the_cached_files_images(
    shared_data: Path, tmp_path: Path, recipe: Recipe, interval: int, step: int
):
    for name in ("06-02-06_01", "02-04-05_01"):  # a short one, a long one
        path = shared_data / "javanese" / f"{name}.mp4"
        cutter = Cutter(Cache(tmp_path, recipe.settings))
        record = cutter.cut(Clip(path, name, "Anger", "", "train"))
        backend = Recorder()
        at_full_size = changed(recipe, interval=interval, image_px=recipe.settings.size_px)
        EmotionRecognizer(backend, at_full_size).predict(path)
        assert len(backend.stacks) == len(record.segments) > 0
        for stack, segment in zip(backend.stacks, record.segments, strict=True):
            assert "0" not in segment.has_face.rstrip("0")  # else others stand in
            cached = read_stack(cutter.cache.stack_path(name, segment.number))
            sampled = len(segment.has_face.rstrip("0")[::step])  # the rest pads a tail
            np.testing.assert_array_equal(stack[:sampled], cached[::step][:sampled])


@pytest.mark.parametrize("inputs", ["stacks", "landmarks", "blendshapes"])
def test_the_inputs_of_a_still_are_those_of_training(
    cache_of: Callable, stills: Path, recipe: Recipe, inputs: str
):
    cache = cache_of(stills, data="stills")
    cache.build()
    settings = {"settings": cache.settings, "interval": 10, "image_px": 224, "inputs": inputs}
    for row in cache.manifest()[:3]:
        backend = Recorder()
        recognizer = EmotionRecognizer(backend, changed(recipe, **settings))
        answer = recognizer.predict(stills / f"{row.clip}.png")
        assert answer.label is not None and (answer.num_frames, answer.reasons) == (1, [])
        (actual,) = backend.stacks
        read = {"landmarks": cache.landmarks, "blendshapes": cache.blendshapes}
        expected = read.get(inputs, cache.stack)(row)
        np.testing.assert_array_equal(actual, np.broadcast_to(expected, (9, *expected.shape[1:])))


def test_a_model_of_clips_says_how_it_answers_a_still(recipe: Recipe, stills: Path):
    path = next(stills.glob("Sad/*.png"))
    answer = EmotionRecognizer(Recorder(), recipe).predict(path)
    assert answer.label is None
    assert "min_frames=1" in answer.reasons[0]
    answer = EmotionRecognizer(Recorder(), recipe, min_frames=1).predict(path, stride=15)
    assert answer.label is not None and not answer.reasons
    assert [(w.first_frame, w.num_frames) for w in answer.windows] == [(0, 1)]


def test_windows_have_the_landmarks_of_their_own_crops(
    recipe: Recipe, happy: Path, sad: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    clip = join_clips(tmp_path / "two.mp4", (happy, 0, 90), (sad, 0, 75))
    recipe = changed(recipe, interval=5, inputs="landmarks")
    backend = Recorder()
    EmotionRecognizer(backend, recipe).predict(clip)
    first, tail = backend.stacks
    assert (tail[15:] == tail[14]).all()  # 75 frames are 15 crops; the last one pads
    every = np.concatenate([first, tail[:15]])
    backend = Recorder()
    EmotionRecognizer(backend, recipe).predict(clip, stride=30)
    # in the order of time: segment 1 and the window in it, segment 2 and the other windows
    starts = [0, 0, None, 6, 12]
    assert len(backend.stacks) == len(starts)
    for landmarks, start in zip(backend.stacks, starts, strict=True):
        expected = tail if start is None else every[start : start + 18]
        np.testing.assert_array_equal(landmarks, expected)


def test_probabilities_are_the_lightning_modules(demo_cache: Cache, run_dir: Path):
    module = EmotionModule.load_from_checkpoint(run_dir / "best.ckpt", map_location="cpu")
    labels = Recipe.read(run_dir / RECIPE_FILE).labels
    data = StackDataModule(demo_cache, 10, None, labels=labels, batch_size=4, image_px=64)
    data.setup()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    expected = torch.cat(trainer.predict(module, data.evaluation_dataloader("val"))).numpy()
    recognizer = EmotionRecognizer.load(run_dir)
    recognizer.recipe = changed(recognizer.recipe, temperature=1.0)
    for row, probabilities in list(zip(data.rows["val"], expected, strict=True))[:5]:
        answer = recognizer.predict(demo_cache.root / f"{row.clip}.mp4")
        assert list(answer.probabilities) == data.labels
        result = answer.segments[row.segment - 1].probabilities
        np.testing.assert_allclose(list(result.values()), probabilities, atol=1e-6)
        assert answer.label == data.labels[probabilities.argmax()]


# From logits to an answer


def test_probabilities_are_calibrated_and_averaged_over_the_segments(
    recipe: Recipe, happy: Path, sad: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    clip = join_clips(tmp_path / "two.mp4", (happy, 0, 90), (sad, 0, 80))
    logits = [[2.0, 0.0, 1.0, 0.0, 0.0], [0.0, 3.0, 1.0, 0.5, 0.0]]
    backend = Recorder(*logits)
    answer = EmotionRecognizer(backend, changed(recipe, temperature=2.5)).predict(clip)
    expected = softmax(np.array(logits) / 2.5, axis=1)
    for segment, probabilities in zip(answer.segments, expected, strict=True):
        np.testing.assert_allclose(list(segment.probabilities.values()), probabilities, rtol=1e-6)
    of_clip = expected.mean(axis=0)
    np.testing.assert_allclose(list(answer.probabilities.values()), of_clip, rtol=1e-6)
    assert answer.label == recipe.labels[of_clip.argmax()] == "Happy"
    assert [(s.number, s.first_frame, s.num_frames) for s in answer.segments] == [
        (1, 0, 90), (2, 90, 80),
    ]  # fmt: skip
    assert [segment.label for segment in answer.segments] == ["Anger", "Happy"]
    assert (answer.num_frames, answer.fps, answer.num_faces) == (170, 30.0, 1)


def test_the_answer_of_a_clip_of_several_stacks_is_that_of_the_reports(
    recipe: Recipe, happy: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    clip = join_clips(tmp_path / "three.mp4", (happy, 0, 90), (happy, 0, 90), (happy, 0, 80))
    logits = [[4.0, 0, 0, 0, 0], [0, 1.5, 0, 0, 0], [0, 1.5, 0, 0, 0]]
    recipe = changed(recipe, temperature=0.5)
    answer = EmotionRecognizer(Recorder(*logits), recipe).predict(clip)
    samples = [Sample("test", "three", segment, "", recipe.labels[1]) for segment in (1, 2, 3)]
    probabilities = softmax(np.array(logits), axis=1).astype(np.float32)
    written = Predictions(recipe.labels, samples, probabilities)
    written.write(tmp_path / "predictions.csv")
    read = Predictions.read(tmp_path / "predictions.csv")
    (reported,) = read.calibrated(0.5).of_clips().probabilities
    np.testing.assert_allclose(list(answer.probabilities.values()), reported, atol=1e-6)
    # averaging before calibration would predict another class
    assert answer.label == recipe.labels[reported.argmax()] == "Happy"
    assert recipe.labels[read.of_clips().probabilities[0].argmax()] == "Anger"


@pytest.mark.parametrize(("threshold", "unsure"), [(0.0, False), (0.4, False), (0.5, True)])
def test_unsure_is_whose_top_probability_is_below_the_threshold(
    recipe: Recipe, happy: Path, threshold: float, unsure: bool
):
    logits = np.log([0.45, 0.25, 0.1, 0.1, 0.1]).tolist()
    recipe = changed(recipe, temperature=1.0, unsure_below=threshold)
    answer = EmotionRecognizer(Recorder(logits), recipe).predict(happy)
    assert (answer.label, answer.unsure) == ("Anger", unsure)
    assert answer.probabilities["Anger"] == pytest.approx(0.45)
    result = EmotionRecognizer(Recorder(logits), recipe, unsure_below=0.3).predict(happy)
    assert not result.unsure


def test_windows_are_what_cutting_the_clip_there_gives(
    recipe: Recipe, happy: Path, sad: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    clip = join_clips(tmp_path / "two.mp4", (happy, 0, 90), (sad, 0, 90))
    every_crop = changed(recipe, interval=5, image_px=224)
    whole = Recorder()
    answer = EmotionRecognizer(whole, every_crop).predict(clip)
    assert answer.windows == []
    crops = np.concatenate(whole.stacks)  # (36, 224, 224), one every 5 frames of the clip
    assert crops.shape == (36, 224, 224) and len(answer.faces) == 36

    backend = Recorder()
    answer = EmotionRecognizer(backend, every_crop).predict(clip, stride=30)
    assert [w.first_frame for w in answer.windows] == [0, 30, 60, 90]
    assert [w.middle for w in answer.windows] == [44.5, 74.5, 104.5, 134.5]
    # asked in the order of time: segment 1 and the window in it, segment 2 and the other windows
    for place, first_crop in enumerate((0, 0, 18, 6, 12, 18)):
        np.testing.assert_array_equal(backend.stacks[place], crops[first_crop : first_crop + 18])
    assert len(backend.stacks) == 6


@pytest.mark.parametrize("stride", [0, 7, 95, -5])
def test_a_stride_between_the_crops_is_refused(recipe: Recipe, happy: Path, stride: int):
    with pytest.raises(UserError, match="stride"):
        EmotionRecognizer(Recorder(), recipe).predict(happy, stride=stride)


# Clips that are not as they should be


def test_a_short_clip_is_padded_as_in_training(
    recipe: Recipe, happy: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    backend = Recorder()
    answer = EmotionRecognizer(backend, recipe).predict(
        join_clips(tmp_path / "80.mp4", (happy, 0, 80)), stride=15
    )
    assert answer.label is not None and answer.num_frames == 80
    (stack, *_) = backend.stacks
    np.testing.assert_array_equal(stack[8], stack[7])  # frame 80 is not there; 70 is the last
    assert (stack[7] != stack[6]).any()
    assert [(w.first_frame, w.num_frames) for w in answer.windows] == [(0, 80)]


def test_a_clip_that_training_would_drop_says_how_to_be_answered(
    recipe: Recipe, happy: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    clip = join_clips(tmp_path / "40.mp4", (happy, 0, 40))
    answer = EmotionRecognizer(Recorder(), recipe).predict(clip)
    assert (answer.label, answer.probabilities, answer.failed) == (None, None, False)
    assert "min_frames=40" in answer.reasons[0]
    answer = EmotionRecognizer(Recorder(), recipe, min_frames=40).predict(clip)
    assert answer.label is not None and not answer.reasons


def test_a_clip_without_a_face_says_so(
    recipe: Recipe, write_video: Callable[..., Path], tmp_path: Path
):
    clip = write_video(tmp_path / "gray.mp4", [np.full((120, 160, 3), 127, np.uint8)] * 90)
    backend = Recorder()
    answer = EmotionRecognizer(backend, recipe).predict(clip, stride=15)
    assert (answer.label, answer.probabilities, answer.num_faces) == (None, None, 0)
    assert answer.reasons and not answer.failed
    assert backend.stacks == []
    assert [window.label for window in answer.windows] == [None]


def test_segments_without_enough_faces_do_not_count(
    recipe: Recipe, happy: Path, write_video: Callable[..., Path], tmp_path: Path
):
    pictures = [cv2.cvtColor(p.rgb(), cv2.COLOR_RGB2BGR) for p in Video(happy).pictures()]
    clip = write_video(tmp_path / "half.mp4", [*pictures, *[np.zeros_like(pictures[0])] * 90])
    answer = EmotionRecognizer(Recorder([0, 9, 0, 0, 0]), recipe).predict(clip)
    assert answer.label == "Happy"
    assert answer.segments[1].probabilities is None
    assert answer.segments[1].reason and answer.segments[1].face_frames == 0
    assert answer.probabilities == answer.segments[0].probabilities


def test_two_faces_are_counted_and_one_is_followed(recipe: Recipe, beside: Path):
    answer = EmotionRecognizer(Recorder(), recipe).predict(beside)
    assert answer.num_faces == answer.segments[0].num_faces == 2
    assert answer.label is not None
    assert len(answer.reasons) == 1
    width = next(Video(beside).pictures()).rgb().shape[1]
    middles = np.array([(face.box[0] + face.box[2]) / 2 for face in answer.faces])
    assert (middles < width / 2).all() or (middles > width / 2).all()  # one person all along


@pytest.mark.parametrize("content", [b"", b"no video" * 99, None])
def test_a_broken_or_missing_clip_raises_video_error(
    recipe: Recipe, tmp_path: Path, content: bytes | None
):
    if content is not None:
        (tmp_path / "broken.mp4").write_bytes(content)
    recognizer = EmotionRecognizer(Recorder(), recipe)
    for _ in range(2):  # the first error must not break the recognizer
        with pytest.raises(VideoError):
            recognizer.predict(tmp_path / "broken.mp4")


@pytest.mark.parametrize(
    "setting", [{"min_frames": 0}, {"min_frames": 91}, {"unsure_below": 1.5}], ids=str
)
def test_settings_out_of_range_are_an_error(recipe: Recipe, setting: dict):
    with pytest.raises(UserError, match=next(iter(setting))):
        EmotionRecognizer(Recorder(), recipe, **setting)


def test_other_package_versions_than_in_training_are_logged(
    run_dir: Path, tmp_path: Path, caplog, recipe
):
    (tmp_path / "best.ckpt").symlink_to(run_dir / "best.ckpt")
    changed(recipe, versions={**recipe.versions, "av": "0.1"}).write(tmp_path / "recipe.json")
    EmotionRecognizer.load(tmp_path)
    assert "0.1" in caplog.text


def test_inference_loads_neither_torch_nor_what_builds_caches():
    code = """
import sys
from emotion import REPOSITORY, EmotionRecognizer
import emotion.inference.batch
heavy = {"torch", "pytorch_lightning", "torchmetrics", "timm", "emotion.stacks.build"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_costs_nothing():
    code = """
import sys
import emotion
heavy = {"torch", "cv2", "mediapipe", "numpy", "pytorch_lightning"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert {"EmotionRecognizer", "to_dataframe"} < set(emotion.__all__)
assert all(hasattr(emotion, name) for name in emotion.__all__)
assert not hasattr(emotion, "nonsense")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_docs_examples_run(run_dir: Path, happy: Path, tmp_path: Path, monkeypatch, capsys):
    page = (REPOSITORY / "docs" / "prediction.md").read_text(encoding="utf-8")
    first_example, frames_example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    mine = shutil.copytree(run_dir, tmp_path / "outputs" / "runs" / "mine")
    (tmp_path / "clip.mp4").symlink_to(happy)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(first_example, names)
    first, second = capsys.readouterr().out.splitlines()
    recognizer = EmotionRecognizer.load(mine)
    result = recognizer.predict(happy)
    assert first == f"{result.label} {result.probabilities}"
    assert second == f"0 {result.label} {result.probabilities}"
    pandas = pytest.importorskip("pandas")
    exec(frames_example, names)
    table = names["to_dataframe"]([names["answer"]])
    assert isinstance(table, pandas.DataFrame) and table["label"][0] == result.label
