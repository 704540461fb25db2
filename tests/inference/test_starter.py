"""The starter answers real files with nothing trained, and learns from corrections."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emotion import REPOSITORY, EmotionRecognizer
from emotion.clips.video import Video
from emotion.errors import UserError
from emotion.evaluation.reasons import reasons
from emotion.evaluation.starter import LABELS, starter_model
from emotion.files import file_digest
from emotion.inference.backends import StarterBackend
from emotion.inference.correct import correct
from emotion.inference.profile import Profile


@pytest.fixture(scope="module")
def recognizer() -> EmotionRecognizer:
    return EmotionRecognizer.load("starter")


@pytest.mark.parametrize(("fps", "seconds"), [(10, 1.5), (10, 3), (15, 3), (30, 1.5), (60, 3)])
def test_clips_of_10_to_60_frames_a_second_are_answered(
    recognizer: EmotionRecognizer,
    happy: Path,
    write_video: Callable[..., Path],
    tmp_path: Path,
    fps: int,
    seconds: float,
):
    pictures = [picture.rgb()[..., ::-1] for picture in Video(happy).pictures()]  # 30 per second
    frames = [pictures[int(number * 30 / fps)] for number in range(int(seconds * fps))]
    answer = recognizer.predict(write_video(tmp_path / "clip.mp4", frames, fps=fps))
    assert answer.label in LABELS and answer.label != answer.runner_up
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert 1 <= len(answer.why) <= 3


def test_the_reasons_add_up_to_the_difference_of_the_logits(
    recognizer: EmotionRecognizer, happy: Path
):
    answer = recognizer.predict(happy)
    person = starter_model().unknown_person()
    label, other = (LABELS.index(each) for each in (answer.label, answer.runner_up))
    features = np.array(answer.features)
    logits = person.logits(features[None])[0]
    every = reasons(person, features, label, other)
    total = sum(reason.contribution for reason in every)
    assert total == pytest.approx(logits[label] - logits[other])
    assert list(answer.why) == every[: len(answer.why)]


def test_it_learns_a_clip_and_forgets_it(happy: Path, sad: Path, tmp_path: Path):
    path = tmp_path / "me.json"
    recognizer = EmotionRecognizer.load("starter", person=path)
    before = recognizer.predict(happy)
    recognizer.observe(happy, "Anger")
    recognizer.observe(sad)
    after = EmotionRecognizer.load("starter", person=path).predict(happy)
    assert after.probabilities["Anger"] > before.probabilities["Anger"]
    assert after.probabilities == recognizer.predict(happy).probabilities
    assert recognizer.judge(before.features).probabilities == after.probabilities
    recognizer.forget(happy)
    recognizer.forget(sad)
    assert recognizer.predict(happy).probabilities == before.probabilities
    assert Profile.read(path).clips == {}


def test_the_profile_of_another_model_is_refused(tmp_path: Path):
    Profile(model="0" * 64, labels=LABELS).write(tmp_path / "me.json")
    with pytest.raises(UserError, match="another model") as caught:
        EmotionRecognizer.load("starter", person=tmp_path / "me.json")
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_learn_says_so(tmp_path: Path):
    backend = StarterBackend()
    backend.person_model = None
    with pytest.raises(UserError, match="cannot learn"):
        EmotionRecognizer(backend, backend.recipe, person=tmp_path / "me.json")


def test_a_correction_needs_no_model_for_a_known_clip(happy: Path, sad: Path, tmp_path: Path):
    path = tmp_path / "me.json"
    assert correct(path, happy, "Sad", "starter").clips[file_digest(happy)].label == "Sad"
    assert correct(path, happy, "Happy", "nowhere").clips[file_digest(happy)].label == "Happy"
    with pytest.raises(UserError, match="nowhere"):
        correct(path, sad, "Sad", "nowhere")
    with pytest.raises(UserError, match="Glad"):
        correct(path, happy, "Glad", "starter")
    assert correct(path, happy, None, "starter").clips == {}
    with pytest.raises(UserError, match="does not have"):
        correct(path, happy, None, "starter")


@pytest.mark.slow
def test_the_commands_answer_learn_and_correct(happy: Path, sad: Path, tmp_path: Path):
    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    me = tmp_path / "me.json"
    common = ["predict.py", f"person={me}", f"paths.output={tmp_path}"]
    shown = run(*common, f"clips=[{happy},{sad}]", "learn=true", "num_workers=1")
    assert "starter" in shown and "2 of unknown emotion" in shown
    shown = run("-m", "emotion.inference.correct", str(me), str(sad), "Sad")
    assert "1 corrected clip, 1 of unknown emotion" in shown
    run(*common, f"clips={sad}", f"hydra.run.dir={tmp_path}/last")
    (line,) = (tmp_path / "last" / "predictions.jsonl").read_text().splitlines()
    answer = json.loads(line)
    assert answer["label"] in LABELS and 1 <= len(answer["why"]) <= 3
    assert set(answer["why"][0]) == {"movement", "contribution"}
