"""Runs whose subjects are known write the features of their clips and a model of persons."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from emotion.commands.train import train
from emotion.errors import UserError
from emotion.evaluation.learning_curve import FEATURES_FILE, ClipFeatures, fit_calibrated
from emotion.evaluation.person_file import PERSON_FILE
from emotion.inference.backends import load_model
from emotion.inference.export import main as export
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
