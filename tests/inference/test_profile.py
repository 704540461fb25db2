"""Profiles: what they keep, and files that are damaged, foreign or of another version."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emotion import REPOSITORY
from emotion.errors import DamagedFile, UserError
from emotion.evaluation.starter import LABELS, starter_model
from emotion.files import digest
from emotion.inference.judge import Judge
from emotion.inference.profile import Profile, change_profile
from emotion.models.person_model import UNKNOWN

MODEL = starter_model()
IDS = [digest(bytes([number])) for number in range(6)]
NEW = Profile(model=MODEL.fingerprint, labels=LABELS)


def features_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=len(MODEL.center))


def observed(*numbers: int) -> Profile:
    profile = NEW
    for number in numbers:
        label = LABELS[number % 5] if number % 2 else None
        profile = profile.observe(IDS[number], features_of(number), label)
    return profile


def test_order_and_repetition_do_not_matter():
    assert observed(0, 1, 2, 3) == observed(3, 1, 2, 0, 1, 2)


def test_observing_and_forgetting_returns_to_the_same_bytes(tmp_path: Path):
    observed(0, 1).write(tmp_path / "before.json")
    change_profile(tmp_path / "me.json", NEW, lambda _: observed(0, 1))
    change_profile(
        tmp_path / "me.json", NEW, lambda p: p.observe(IDS[5], features_of(5), LABELS[0])
    )
    assert (tmp_path / "me.json").read_bytes() != (tmp_path / "before.json").read_bytes()
    change_profile(tmp_path / "me.json", NEW, lambda p: p.forget(IDS[5]).forget("never seen"))
    assert (tmp_path / "me.json").read_bytes() == (tmp_path / "before.json").read_bytes()


def test_a_file_is_read_as_it_was_written(tmp_path: Path):
    observed(0, 1, 2).write(tmp_path / "me.json")
    assert Profile.read(tmp_path / "me.json", MODEL.fingerprint) == observed(0, 1, 2)


def test_a_correction_replaces_the_unknown_emotion_and_stays():
    guessed = NEW.observe(IDS[0], features_of(0))
    corrected = guessed.observe(IDS[0], features_of(0), "Sad")
    assert corrected.clips[IDS[0]].label == "Sad" and len(corrected.clips) == 1
    assert corrected.observe(IDS[0], features_of(0)) == corrected
    assert corrected.observe(IDS[0], features_of(0), "Happy").clips[IDS[0]].label == "Happy"


def test_the_person_is_that_of_the_rounded_features():
    judge = Judge(LABELS, MODEL, 0.4, True)
    kept = list(observed(0, 1, 2, 3).clips.values())
    person = judge.person([each.features for each in kept], [each.label for each in kept])
    targets = [UNKNOWN, 1, UNKNOWN, 3]
    exact = MODEL.adapt(np.stack([features_of(number) for number in range(4)]), np.array(targets))
    np.testing.assert_allclose(person.means, exact.means, rtol=1e-5, atol=1e-6)


def test_a_label_of_another_model_is_no_emotion_here():
    with pytest.raises(UserError, match="Bored"):
        NEW.observe(IDS[0], features_of(0), "Bored")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "restore a copy"),
        (lambda text: text.replace("0.", "1.", 1), "digest"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "version 2.*update"),
        (lambda text: text.replace("Sad", "Glad", 1), "digest"),
        (lambda _: "[]", "restore a copy"),
        (lambda _: json.dumps({"version": 1}), "model"),
    ],
)
def test_a_damaged_or_newer_profile_is_refused_in_one_line(tmp_path: Path, change, words: str):
    path = tmp_path / "me.json"
    observed(0, 1, 2).write(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(DamagedFile, match=words) as caught:
        Profile.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_profile_of_another_model_is_refused(tmp_path: Path):
    observed(0).write(tmp_path / "me.json")
    with pytest.raises(DamagedFile, match="another model"):
        Profile.read(tmp_path / "me.json", "0" * 64)


def test_two_processes_lose_no_observation(tmp_path: Path):
    code = """
import sys
from pathlib import Path
from emotion.inference.profile import Profile, change_profile
new = Profile(model="m", labels=("a", "b"))
for number in range(40):
    change_profile(Path(sys.argv[1]), new, lambda p: p.observe(f"{sys.argv[2]}-{number}", [0.5]))
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "me.json"), name], cwd=REPOSITORY
        )
        for name in "ab"
    ]
    assert [process.wait() for process in started] == [0, 0]
    assert len(Profile.read(tmp_path / "me.json").clips) == 80
