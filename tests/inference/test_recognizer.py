"""Recognizing: a clip's stacks are those of training, and its probabilities the model's own."""

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
from emotion.errors import UserError
from emotion.models.lightning_module import EmotionModule
from emotion.models.recipe import RECIPE_FILE, Recipe
from emotion.stacks.cache import Cache
from emotion.stacks.cutter import Cutter
from emotion.stacks.stack import read_stack


class Recorder:
    """Stands in for a runtime: keeps the stacks that it is given, answers with set logits."""

    name = "a recorder"

    def __init__(self, *logits: list[float]) -> None:
        self.logits = list(logits)
        self.stacks: list[np.ndarray] = []

    def classify(self, stacks: np.ndarray) -> np.ndarray:
        assert stacks.dtype == np.uint8
        self.stacks.append(stacks[0].copy())
        return np.array([self.logits.pop(0) if self.logits else [0.0] * 5], np.float32)


@pytest.fixture
def recipe(run_dir: Path) -> Recipe:
    return Recipe.read(run_dir / "recipe.json")


@pytest.fixture
def happy(demo_cache: Cache) -> Path:
    return demo_cache.root / "Happy_0001.mp4"


@pytest.fixture
def sad(demo_cache: Cache) -> Path:
    return demo_cache.root / "Sad_0001.mp4"


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


@pytest.mark.parametrize("read_ahead", [False, True])
def test_a_training_clips_stacks_are_those_of_training_bit_for_bit(
    demo_cache: Cache, recipe: Recipe, read_ahead: bool
):
    data = StackDataModule(
        demo_cache,
        recipe.interval,
        None,
        labels=recipe.labels,
        batch_size=1,
        image_px=recipe.image_px,
    )
    data.setup()
    dataset = data.evaluation_dataloader("train").dataset
    for index, row in enumerate(dataset.rows[:4]):
        runtime = Recorder()
        recognizer = EmotionRecognizer(runtime, recipe, read_ahead=read_ahead)
        recognizer.predict(demo_cache.root / f"{row.clip}.mp4")
        expected, _ = dataset[index, 0]
        assert expected.shape == (9, 64, 64)
        np.testing.assert_array_equal(runtime.stacks[row.segment - 1], expected.numpy())


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
        runtime = Recorder()
        at_full_size = recipe.model_copy(
            update={"interval": interval, "image_px": recipe.settings.size_px}
        )
        EmotionRecognizer(runtime, at_full_size).predict(path)
        assert len(runtime.stacks) == len(record.segments) > 0
        for stack, segment in zip(runtime.stacks, record.segments, strict=True):
            assert "0" not in segment.has_face.rstrip("0")  # else others stand in
            cached = read_stack(cutter.cache.stack_path(name, segment.number))
            sampled = len(segment.has_face.rstrip("0")[::step])  # the rest pads a tail
            np.testing.assert_array_equal(stack[:sampled], cached[::step][:sampled])


class Listener(EmotionRecognizer):
    """Keeps the landmarks of every stretch of a clip that the model is asked about."""

    def probabilities(self, crops: list, points: list) -> dict[str, float] | None:
        self.__dict__.setdefault("heard", []).append(self.landmarks(points))
        return super().probabilities(crops, points)


@pytest.mark.parametrize("read_ahead", [False, True])
def test_a_training_clips_landmarks_are_those_of_training_bit_for_bit(
    demo_cache: Cache, recipe: Recipe, read_ahead: bool
):
    data = StackDataModule(
        demo_cache, recipe.interval, None, labels=recipe.labels, batch_size=1, inputs="landmarks"
    )
    data.setup()
    dataset = data.evaluation_dataloader("train").dataset
    for index, row in enumerate(dataset.rows[:4]):
        listener = Listener(Recorder(), recipe, read_ahead=read_ahead)
        listener.predict(demo_cache.root / f"{row.clip}.mp4")
        expected, _ = dataset[index, 0]
        assert expected.shape == (9, 468, 3)
        np.testing.assert_array_equal(listener.heard[row.segment - 1], expected.numpy())


def test_a_still_is_answered_as_in_training(cache_of: Callable, stills: Path, recipe: Recipe):
    cache = cache_of(stills, data="stills")
    cache.build()
    trained_on_stills = recipe.model_copy(
        update={"settings": cache.settings, "interval": 10, "image_px": 224}
    )
    for row in cache.manifest()[:3]:
        listener = Listener(Recorder(), trained_on_stills)
        answer = listener.predict(stills / f"{row.clip}.png")
        assert answer.label is not None and (answer.num_frames, answer.reasons) == (1, [])
        (stack,) = listener.runtime.stacks
        assert stack.shape == (9, 224, 224)
        cached = read_stack(cache.directory / row.stack)
        np.testing.assert_array_equal(stack, np.broadcast_to(cached, stack.shape))
        (landmarks,) = listener.heard
        cached = np.load(cache.directory / row.landmarks)
        np.testing.assert_array_equal(landmarks, np.broadcast_to(cached, landmarks.shape))


def test_a_model_of_clips_says_how_it_answers_a_still(recipe: Recipe, stills: Path):
    path = next(stills.glob("Sad/*.png"))
    answer = EmotionRecognizer(Recorder(), recipe).predict(path)
    assert answer.label is None
    assert answer.reasons == ["1 frames, fewer than 75 (min_frames=1 answers all the same)"]
    answer = EmotionRecognizer(Recorder(), recipe, min_frames=1).predict(path, stride=15)
    assert answer.label is not None and not answer.reasons
    assert [(w.first_frame, w.num_frames) for w in answer.windows] == [(0, 1)]


def test_windows_have_the_landmarks_of_their_own_crops(
    recipe: Recipe, happy: Path, sad: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    clip = join_clips(tmp_path / "two.mp4", (happy, 0, 90), (sad, 0, 75))
    listener = Listener(Recorder(), recipe.model_copy(update={"interval": 5}))
    listener.predict(clip)
    first, tail = listener.heard
    assert (tail[15:] == tail[14]).all()  # 75 frames are 15 crops; the last one pads
    every = np.concatenate([first, tail[:15]])
    again = Listener(Recorder(), recipe.model_copy(update={"interval": 5}))
    again.predict(clip, stride=30)
    # asked in the order of time: segment 1 and the window in it, segment 2 and the others
    starts = [0, 0, None, 6, 12]
    assert len(again.heard) == len(starts)
    for landmarks, start in zip(again.heard, starts, strict=True):
        expected = tail if start is None else every[start : start + 18]
        np.testing.assert_array_equal(landmarks, expected)


def test_probabilities_are_the_lightning_modules(demo_cache: Cache, run_dir: Path):
    module = EmotionModule.load_from_checkpoint(run_dir / "best.ckpt", map_location="cpu")
    data = StackDataModule(demo_cache, 10, None, labels=recipe.labels, batch_size=4, image_px=64)
    data.setup()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    expected = torch.cat(trainer.predict(module, data.evaluation_dataloader("val"))).numpy()
    recognizer = EmotionRecognizer.load(run_dir)
    recognizer.recipe = recognizer.recipe.model_copy(update={"temperature": 1.0})
    for row, probabilities in list(zip(data.rows["val"], expected, strict=True))[:5]:
        answer = recognizer.predict(demo_cache.root / f"{row.clip}.mp4")
        assert list(answer.probabilities) == data.labels
        told = answer.segments[row.segment - 1].probabilities
        np.testing.assert_allclose(list(told.values()), probabilities, atol=1e-6)
        assert answer.label == data.labels[probabilities.argmax()]


# From logits to an answer


def test_probabilities_are_calibrated_and_averaged_over_the_segments(
    recipe: Recipe, happy: Path, sad: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    clip = join_clips(tmp_path / "two.mp4", (happy, 0, 90), (sad, 0, 80))
    logits = [[2.0, 0.0, 1.0, 0.0, 0.0], [0.0, 3.0, 1.0, 0.5, 0.0]]
    runtime = Recorder(*logits)
    answer = EmotionRecognizer(runtime, recipe.model_copy(update={"temperature": 2.5})).predict(
        clip
    )
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


@pytest.mark.parametrize(("threshold", "unsure"), [(0.0, False), (0.4, False), (0.5, True)])
def test_unsure_is_whose_top_probability_is_below_the_threshold(
    recipe: Recipe, happy: Path, threshold: float, unsure: bool
):
    logits = np.log([0.45, 0.25, 0.1, 0.1, 0.1]).tolist()
    recipe = recipe.model_copy(update={"temperature": 1.0, "unsure_below": threshold})
    answer = EmotionRecognizer(Recorder(logits), recipe).predict(happy)
    assert (answer.label, answer.unsure) == ("Anger", unsure)
    assert answer.probabilities["Anger"] == pytest.approx(0.45)
    told = EmotionRecognizer(Recorder(logits), recipe, unsure_below=0.3).predict(happy)
    assert not told.unsure


def test_windows_are_what_cutting_the_clip_there_gives(
    recipe: Recipe, happy: Path, sad: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    clip = join_clips(tmp_path / "two.mp4", (happy, 0, 90), (sad, 0, 90))
    every_crop = recipe.model_copy(update={"interval": 5, "image_px": 224})
    whole = Recorder()
    answer = EmotionRecognizer(whole, every_crop).predict(clip)
    assert answer.windows == []
    crops = np.concatenate(whole.stacks)  # (36, 224, 224), one every 5 frames of the clip
    assert crops.shape == (36, 224, 224) and len(answer.faces) == 36

    runtime = Recorder()
    answer = EmotionRecognizer(runtime, every_crop).predict(clip, stride=30)
    assert [w.first_frame for w in answer.windows] == [0, 30, 60, 90]
    assert [w.middle for w in answer.windows] == [44.5, 74.5, 104.5, 134.5]
    # asked in the order of time: segment 1 and the window in it, segment 2 and the other windows
    for place, first_crop in enumerate((0, 0, 18, 6, 12, 18)):
        np.testing.assert_array_equal(runtime.stacks[place], crops[first_crop : first_crop + 18])
    assert len(runtime.stacks) == 6


@pytest.mark.parametrize("stride", [0, 7, 95, -5])
def test_a_stride_between_the_crops_is_refused(recipe: Recipe, happy: Path, stride: int):
    with pytest.raises(UserError, match=f"stride={stride}: it is a multiple of 5"):
        EmotionRecognizer(Recorder(), recipe).predict(happy, stride=stride)


# Clips that are not as they should be


def test_a_short_clip_is_padded_as_in_training(
    recipe: Recipe, happy: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    runtime = Recorder()
    answer = EmotionRecognizer(runtime, recipe).predict(
        join_clips(tmp_path / "80.mp4", (happy, 0, 80)), stride=15
    )
    assert answer.label is not None and answer.num_frames == 80
    (stack, *_) = runtime.stacks
    np.testing.assert_array_equal(stack[8], stack[7])  # frame 80 is not there; 70 is the last
    assert (stack[7] != stack[6]).any()
    assert [(w.first_frame, w.num_frames) for w in answer.windows] == [(0, 80)]


def test_a_clip_that_training_would_drop_says_how_to_be_answered(
    recipe: Recipe, happy: Path, join_clips: Callable[..., Path], tmp_path: Path
):
    clip = join_clips(tmp_path / "40.mp4", (happy, 0, 40))
    answer = EmotionRecognizer(Recorder(), recipe).predict(clip)
    assert (answer.label, answer.probabilities, answer.failed) == (None, None, False)
    assert answer.reasons == ["40 frames, fewer than 75 (min_frames=40 answers all the same)"]
    answer = EmotionRecognizer(Recorder(), recipe, min_frames=40).predict(clip)
    assert answer.label is not None and not answer.reasons


def test_a_clip_without_a_face_says_so(
    recipe: Recipe, write_video: Callable[..., Path], tmp_path: Path
):
    clip = write_video(tmp_path / "gray.mp4", [np.full((120, 160, 3), 127, np.uint8)] * 90)
    runtime = Recorder()
    answer = EmotionRecognizer(runtime, recipe).predict(clip, stride=15)
    assert (answer.label, answer.probabilities, answer.num_faces) == (None, None, 0)
    assert answer.reasons == ["no face"] and not answer.failed
    assert runtime.stacks == []
    assert [window.label for window in answer.windows] == [None]


def test_segments_without_enough_faces_do_not_count(
    recipe: Recipe, happy: Path, write_video: Callable[..., Path], tmp_path: Path
):
    pictures = [cv2.cvtColor(p.rgb(), cv2.COLOR_RGB2BGR) for p in Video(happy).pictures()]
    clip = write_video(tmp_path / "half.mp4", [*pictures, *[np.zeros_like(pictures[0])] * 90])
    answer = EmotionRecognizer(Recorder([0, 9, 0, 0, 0]), recipe).predict(clip)
    assert answer.label == "Happy"
    assert answer.segments[1].probabilities is None
    assert answer.segments[1].reason == "a face in only 0 of 18 sampled frames"
    assert answer.probabilities == answer.segments[0].probabilities


def test_two_faces_are_told(recipe: Recipe, beside: Path):
    answer = EmotionRecognizer(Recorder(), recipe).predict(beside)
    assert answer.num_faces == answer.segments[0].num_faces == 2
    assert answer.label is not None
    assert answer.reasons == ["2 faces at once, of which one was followed"]
    width = next(Video(beside).pictures()).rgb().shape[1]
    middles = np.array([(face.box[0] + face.box[2]) / 2 for face in answer.faces])
    assert (middles < width / 2).all() or (middles > width / 2).all()  # one person all along


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "the file is empty"), (b"no video" * 99, "no video, or damaged")]
)
def test_a_broken_clip_raises_an_error_that_says_why(
    recipe: Recipe, tmp_path: Path, content: bytes, message: str
):
    (tmp_path / "broken.mp4").write_bytes(content)
    for _ in range(2):  # and the recognizer still works
        with pytest.raises(VideoError, match=message):
            EmotionRecognizer(Recorder(), recipe).predict(tmp_path / "broken.mp4")
    with pytest.raises(VideoError, match="there is no such file"):
        EmotionRecognizer(Recorder(), recipe).predict(tmp_path / "nowhere.mp4")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"min_frames": 0}, "min_frames=0: it is 1 to 90"),
        ({"min_frames": 91}, "min_frames=91: it is 1 to 90"),
        ({"unsure_below": 1.5}, "unsure_below=1.5: it is a probability"),
    ],
)
def test_settings_that_cant_be_are_refused(recipe: Recipe, setting: dict, message: str):
    with pytest.raises(UserError, match=message):
        EmotionRecognizer(Recorder(), recipe, **setting)


def test_other_versions_than_trainings_are_told(run_dir: Path, tmp_path: Path, caplog, recipe):
    (tmp_path / "best.ckpt").symlink_to(run_dir / "best.ckpt")
    recipe.model_copy(update={"versions": {**recipe.versions, "av": "0.1"}}).write(
        tmp_path / "recipe.json"
    )
    EmotionRecognizer.load(tmp_path)
    assert "instead of 0.1, which the model was trained with" in caplog.text


# A person's resting face


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return np.log(softmax(logits, axis=-1))


@pytest.fixture
def knowing(recipe: Recipe) -> Recipe:
    """A recipe that knows what neutral is."""
    return recipe.model_copy(
        update={"neutral": log_softmax(np.array([0.0, 1.0, 3.0, 0.5, 0.0])).tolist()}
    )


@pytest.mark.parametrize("share", [None, 1.0, 0.0])
def test_a_neutral_clip_shifts_logits_by_a_share_of_its_difference(
    knowing: Recipe, happy: Path, sad: Path, join_clips: Callable, tmp_path: Path, share
):
    neutral = join_clips(tmp_path / "two.mp4", (sad, 0, 90), (sad, 0, 80))  # two segments
    of_neutral, of_clip = (
        np.array([[3.0, 0, 1, 0, 0], [1, 1, 0, 0, 2]]),
        np.array([1.0, 2, 0, 0, 1]),
    )
    recognizer = EmotionRecognizer(Recorder(*of_neutral.tolist(), of_clip.tolist()), knowing)
    recognizer.calibrate([neutral], **({} if share is None else {"share": share}))
    answer = recognizer.predict(happy)
    difference = np.array(knowing.neutral) - log_softmax(of_neutral).mean(axis=0)
    shifted = of_clip + (0.25 if share is None else share) * difference
    expected = softmax(shifted / knowing.temperature)
    np.testing.assert_allclose(list(answer.probabilities.values()), expected, rtol=1e-6)


def test_calibrating_again_begins_anew_and_with_no_clips_undoes_it(
    knowing: Recipe, happy: Path, sad: Path
):
    logits = {"first": [3.0, 0, 1, 0, 0], "second": [0, 0, 0, 2.0, 0], "clip": [1.0, 2, 0, 0, 1]}
    runtime = Recorder()
    recognizer = EmotionRecognizer(runtime, knowing)

    def answer(*calibrate_with: str) -> list[float]:
        if calibrate_with:
            runtime.logits += [logits[name] for name in calibrate_with]
            recognizer.calibrate([sad] * len(calibrate_with))
        runtime.logits.append(logits["clip"])
        return list(recognizer.predict(happy).probabilities.values())

    before, second = answer(), answer("second")
    assert answer("first") not in (before, second)
    assert answer("second") == second
    assert answer("first", "second") not in (before, second)
    recognizer.calibrate([])
    assert answer() == before


def test_windows_are_calibrated_too(knowing: Recipe, happy: Path, sad: Path):
    recognizer = EmotionRecognizer(Recorder([9.0, 0, 0, 0, 0]), knowing)
    recognizer.calibrate([sad], share=1.0)
    answer = recognizer.predict(happy, stride=90)
    assert [window.label for window in answer.windows] == [answer.label] == ["Neutral"]


def test_what_cant_be_calibrated_with_is_told_in_a_line(
    knowing: Recipe, recipe: Recipe, happy: Path, write_video: Callable, tmp_path: Path
):
    gray = write_video(tmp_path / "gray.mp4", [np.full((120, 160, 3), 127, np.uint8)] * 90)
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 99)
    mistakes = [
        (knowing, [happy], 1.5, r"calibrate: share=1\.5 is no share, 0 to 1"),
        (knowing, [], -0.1, r"calibrate: share=-0\.1 is no share"),
        (recipe, [happy], 0.5, "trained without neutral stacks, or by an older version"),
        (knowing, [happy, gray], 0.5, r"calibrate=.*gray\.mp4: no face"),
        (knowing, [tmp_path / "broken.mp4"], 0.5, r"broken\.mp4: no video, or damaged"),
        (knowing, [tmp_path / "nowhere.mp4"], 0.5, r"nowhere\.mp4: there is no such file"),
    ]
    for model, clips, share, message in mistakes:
        recognizer = EmotionRecognizer(Recorder(), model)
        with pytest.raises(UserError, match=message) as caught:
            recognizer.calibrate(clips, share=share)
        assert "\n" not in str(caught.value) and type(caught.value) is UserError
        expected = EmotionRecognizer(Recorder(), model).predict(happy).probabilities
        assert recognizer.predict(happy).probabilities == expected  # and it goes on as before


def test_a_model_of_landmarks_is_given_those_of_the_clip(recipe: Recipe, happy: Path):
    class LandmarkRecorder(Recorder):
        def classify(self, inputs: np.ndarray) -> np.ndarray:
            assert inputs.dtype == np.float32 and inputs.shape == (1, 9, 468, 3)
            self.landmarks = inputs[0]
            return super().classify(inputs)

    listener = Listener(LandmarkRecorder(), recipe.model_copy(update={"inputs": "landmarks"}))
    listener.predict(happy)
    np.testing.assert_array_equal(listener.runtime.landmarks, listener.heard[0])


def test_recognizing_needs_no_torch():
    """An exported model starts in the time that importing torch alone would take."""
    code = """
import sys
from emotion import REPOSITORY, EmotionRecognizer
heavy = {"torch", "pytorch_lightning", "torchmetrics", "timm", "omegaconf"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_costs_nothing():
    code = """
import sys
import emotion
heavy = {"torch", "cv2", "mediapipe", "numpy", "pytorch_lightning"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert emotion.__all__ == ["EmotionRecognizer"]
assert not hasattr(emotion, "nonsense")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_readmes_example_runs(run_dir: Path, happy: Path, tmp_path: Path, monkeypatch, capsys):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    mine = shutil.copytree(run_dir, tmp_path / "outputs" / "runs" / "mine")
    recipe = Recipe.read(mine / RECIPE_FILE)
    recipe.model_copy(update={"neutral": [-2.0, -2.0, -0.5, -2.0, -2.0]}).write(mine / RECIPE_FILE)
    (tmp_path / "clip.mp4").symlink_to(happy)
    (tmp_path / "neutral.mp4").symlink_to(happy)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    first, second = capsys.readouterr().out.splitlines()
    recognizer = EmotionRecognizer.load(mine)
    recognizer.calibrate([happy])
    told = recognizer.predict(happy)
    assert first == f"{told.label} {told.probabilities}"
    assert second == f"0 {told.label} {told.probabilities}"
