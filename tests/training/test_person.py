"""Runs whose subjects are known write the features of their clips and a model of persons."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from emotion import EmotionRecognizer
from emotion.commands.train import train
from emotion.errors import UserError
from emotion.evaluation.learning_curve import FEATURES_FILE, ClipFeatures, fit_calibrated
from emotion.evaluation.person_file import PERSON_FILE
from emotion.inference.backends import load_model
from emotion.inference.correct import correct
from emotion.inference.export import main as export
from emotion.models.temperature import calibrate
from emotion.training.finished_run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["mobilenetv3", "face"])
def run(request, demo_cache, tmp_path_factory) -> Run:
    """A run on the demo's clips, whose numbers it takes for subjects."""
    folder = tmp_path_factory.mktemp(request.param)
    arguments = [
        *("train.py", "experiment=smoke", f"model={request.param}", "interval=15", "logger=none"),
        *("data=demo", f"data.root={demo_cache.root}", "data.split.by=subject", "num_workers=1"),
        *("trainer=cpu", r"data.pattern='(?P<label>[A-Z][a-z]+)_(?P<subject>\d+)'"),
        *(f"paths.cache={folder}/cache", f"hydra.run.dir={folder}/run"),
    ]
    if request.param == "mobilenetv3":
        arguments.append("model.backbone=mobilenetv3_small_050")
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", arguments)
        train()
    root.handlers[:], root.level = before  # else the logs of later tests go to this run's file
    return Run.read(folder / "run")


def test_the_features_are_those_that_give_the_logits(run: Run):
    clips = ClipFeatures.read(run.folder / FEATURES_FILE)
    assert set(clips.splits) == {"train", "val", "test"} and len(clips.clips) == 30
    assert set(clips.subjects[clips.splits == "val"]) == {"0001", "0002"}
    backend, _ = load_model(run.checkpoint)
    rows = run.rows("test")
    _, features = backend.describe(run.inputs(rows))
    of_clip = dict(zip(clips.clips, clips.features, strict=True))
    for row, own in zip(rows, features, strict=True):  # one stack per clip
        np.testing.assert_allclose(of_clip[row.clip], own, rtol=1e-3, atol=1e-4)
    assert len(clips.blocks) == (2 if run.recipe.inputs == "face" else 0)


def test_the_person_model_is_fitted_without_the_test_people(run: Run):
    clips = ClipFeatures.read(run.folder / FEATURES_FILE)
    expected = fit_calibrated(clips.take(clips.splits != "test"))
    backend, _ = load_model(run.checkpoint)
    assert backend.person_model.temperature == expected.temperature
    np.testing.assert_array_equal(backend.person_model.means, expected.means)
    assert {FEATURES_FILE, PERSON_FILE} <= run.record.files.keys()


def test_another_person_model_is_refused(run: Run, tmp_path: Path):
    copy = shutil.copytree(run.folder, tmp_path / "run")
    (copy / PERSON_FILE).write_bytes(b"damaged")
    with pytest.raises(UserError, match=PERSON_FILE):
        load_model(copy / run.checkpoint.name)


def test_an_exported_file_carries_the_person_model(run: Run, tmp_path: Path, monkeypatch):
    pytest.importorskip("onnxruntime")
    copy = shutil.copytree(run.folder, tmp_path / "run")
    monkeypatch.setattr("sys.argv", ["export", str(copy)])
    export()
    pytorch, _ = load_model(run.checkpoint)
    onnx, _ = load_model(copy / "model.onnx")
    inputs = run.inputs(run.rows("val"))
    for own, other in zip(pytorch.describe(inputs), onnx.describe(inputs), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-3, atol=1e-3)
    for name in ("projection", "lift", "center", "means", "noise", "person", "person_class"):
        np.testing.assert_array_equal(
            getattr(onnx.person_model, name), getattr(pytorch.person_model, name)
        )


def test_a_run_learns_its_person_and_forgets(run: Run, demo_cache, tmp_path: Path):
    """Without a person a run answers as evaluated, with one as its person model predicts."""
    happy, sad = (demo_cache.root / f"{name}_0001.mp4" for name in ("Happy", "Sad"))
    plain = EmotionRecognizer.load(run.folder)
    logits, _ = plain.backend.describe(
        run.inputs([row for row in run.rows("val") if happy.stem in row.clip])
    )
    expected = calibrate(logits, run.recipe.temperature)[0]
    answer = plain.predict(happy)
    np.testing.assert_allclose(list(answer.probabilities.values()), expected, atol=1e-4)

    person = tmp_path / "me.json"
    recognizer = EmotionRecognizer.load(run.folder, person=person)
    before = recognizer.predict(happy)
    model = recognizer.person_model
    unknown = model.unknown_person().probabilities(np.array([before.features]))[0]
    np.testing.assert_allclose(list(before.probabilities.values()), unknown, rtol=1e-9)
    other = next(label for label in run.recipe.labels if label != before.label)
    recognizer.observe(happy, other)
    recognizer.observe(sad)
    after = EmotionRecognizer.load(run.folder, person=person).predict(happy)
    assert after.probabilities[other] > before.probabilities[other]
    assert recognizer.judge(before.features).probabilities == after.probabilities
    assert bool(after.why) <= (run.recipe.inputs == "face")
    corrected = correct(person, happy, before.label, "nowhere")
    assert corrected.clips.keys() == recognizer.profile.clips.keys()
    for clip in (sad, happy):
        correct(person, clip, None, "nowhere")
    again = EmotionRecognizer.load(run.folder, person=person).predict(happy)
    assert again.probabilities == before.probabilities
    with pytest.raises(UserError, match="another model"):
        EmotionRecognizer.load("starter", person=person)


def test_a_run_without_subjects_learns_nobody(run_dir: Path, tmp_path: Path):
    with pytest.raises(UserError, match="cannot learn") as caught:
        EmotionRecognizer.load(run_dir, person=tmp_path / "me.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("given", "expected"), [(None, 0.5), (0.7, 0.7)])
def test_a_known_person_has_a_threshold_of_its_own(run: Run, tmp_path: Path, given, expected):
    """Training's promise of 90 % right answers would call all answers of a person unsure."""
    backend, recipe = load_model(run.checkpoint)
    recipe = recipe.model_copy(update={"unsure_below": 1.0})
    options = {"unsure_below": given}
    assert EmotionRecognizer(backend, recipe, **options).unsure_below == (given or 1.0)
    recognizer = EmotionRecognizer(backend, recipe, person=tmp_path / "me.json", **options)
    assert recognizer.unsure_below == expected
