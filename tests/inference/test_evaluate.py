"""evaluate.py: scores of a model on another data set, from the command line to the page."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from emotion.commands.evaluate import evaluate
from emotion.evaluation.predictions import Predictions
from emotion.files import read_sealed
from emotion.reports.evaluation import _RECORD, SCORES_FILE
from emotion.tables import read_table
from emotion.training.record import read_record
from tests.reports.test_page import Page

pytestmark = pytest.mark.slow


@pytest.fixture
def run_evaluate(monkeypatch, tmp_path: Path, finished_run: Path) -> Callable[..., Path]:
    """Call evaluate.py's entry in this process; returns the folder of what it has written."""

    def run(*arguments: str) -> Path:
        paths = [f"paths.output={tmp_path}/out", f"paths.cache={tmp_path}/cache"]
        model = [f"model_path={finished_run}", "num_workers=1"]
        monkeypatch.setattr("sys.argv", ["evaluate.py", *model, *arguments, *paths])
        evaluate()
        (folder,) = (tmp_path / "out" / "evaluate").iterdir()
        return folder

    return run


@pytest.fixture
def write_list(tmp_path: Path, demo_cache) -> Callable[..., list[str]]:
    """Write a list of the test clips of the demo; returns the overrides that name it."""

    def write(rename: dict[str, str], subjects: tuple[str, str] = ("", "")) -> list[str]:
        rows = [
            (path.name, rename.get(label, label), subject)
            for label in demo_cache.scheme.labels
            for path, subject in zip(
                sorted(demo_cache.root.glob(f"{label}_*.mp4"))[2:4], subjects, strict=True
            )
        ]
        path = tmp_path / "list.csv"
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "subject"), *rows])
        labels = ",".join(sorted({label for _, label, _ in rows}))
        return [
            "data=csv",
            f"data.list={path}",
            f"data.root={demo_cache.root}",
            f"data.labels=[{labels}]",
        ]

    return write


def test_scores_are_those_of_the_run_and_of_scikit_learn(run_evaluate, write_list, finished_run):
    folder = run_evaluate(*write_list({}))
    clips = Predictions.read(folder / "predictions.csv")
    record = read_record(finished_run)
    own = record.predictions(finished_run).of_clips()
    by_clip = dict(zip(own.clips, own.probabilities, strict=True))
    assert len(clips) == 10 and set(clips.clips) <= set(by_clip)
    expected = np.array([by_clip[clip] for clip in clips.clips])
    np.testing.assert_allclose(clips.probabilities, expected, atol=1e-5)

    scores = json.loads((folder / SCORES_FILE).read_text())["scores"]
    truth = [sample.label for sample in clips.samples]
    predicted = [clips.labels[place] for place in clips.probabilities.argmax(axis=1)]
    assert scores["accuracy"] == accuracy_score(truth, predicted)
    assert scores["uar"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert scores["macro_f1"] == pytest.approx(
        f1_score(truth, predicted, average="macro", labels=sorted({*truth, *predicted}))
    )
    assert scores["confusion"] == confusion_matrix(truth, predicted, labels=clips.labels).tolist()

    page = Page((folder / "index.html").read_text())
    assert page.loads == []
    low, high = scores["confidence"]["bounds"]["accuracy"]
    shown = f"{100 * scores['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    assert any(row and " ".join(row[0].split()) == shown for row in page.rows)
    assert any("confusion matrix" in label for label in page.labels)
    assert (folder / "confusion.png").stat().st_size > 1000


def test_classes_are_mapped_by_name(run_evaluate, write_list, capsys):
    overrides = write_list({"Sad": "Fear", "Shock": "Surprise"})
    changes = "+data.label_map.Surprise=Shock", "data.labels=[Happy,Fear,Anger,Neutral,Shock]"
    folder = run_evaluate(*overrides, *changes)
    clips = Predictions.read(folder / "predictions.csv")
    names = {sample.clip.partition("_")[0]: sample.label for sample in clips.samples}
    assert names == {name: name for name in ("Anger", "Happy", "Neutral", "Shock")}
    record = read_sealed(folder / SCORES_FILE, _RECORD)
    assert record.foreign == {"Fear": 2} and record.scores.num == 8
    printed = capsys.readouterr().out
    assert printed.count("Fear") == 1 and "2 of Fear" in printed
    assert "no clip is of class Sad" in printed


def test_no_common_class_is_an_error_of_one_line(run_evaluate, write_list):
    renamed = {name: f"{name}2" for name in ("Anger", "Happy", "Neutral", "Sad", "Shock")}
    with pytest.raises(SystemExit) as exit_:
        run_evaluate(*write_list(renamed))
    assert "data.label_map" in exit_.value.code and "\n" not in exit_.value.code


def test_a_clip_without_an_answer_is_named(run_evaluate, write_list, tmp_path, write_video):
    overrides = write_list({})
    gray = write_video(tmp_path / "gray.mp4", [np.full((90, 120, 3), 99, np.uint8)] * 80)
    with open(tmp_path / "list.csv", "a") as file:
        file.write(f"{gray},Happy,\n")
    folder = run_evaluate(*overrides)
    (row,) = read_table(folder / "unanswered.csv")
    assert row["clip"].endswith("gray") and "no face" in row["reason"]
    assert read_sealed(folder / SCORES_FILE, _RECORD).scores.num == 10
    assert "gray: no face" in Page((folder / "index.html").read_text()).text


def test_the_learning_curve_of_the_starter(run_evaluate, write_list):
    folder = run_evaluate(
        *write_list({}, ("ann", "bob")), "model_path=starter", "person=true",
    )  # fmt: skip
    record = read_sealed(folder / SCORES_FILE, _RECORD)
    first, *others = record.curve
    assert (first.kind, first.num) == ("corrected", 0)
    assert first.scores["accuracy"] == record.scores.accuracy  # of the same clips
    assert {(point.kind, point.num) for point in others} >= {("corrected", 3), ("skewed", 3)}
    assert (folder / "person.png").stat().st_size > 1000
    assert "| corrected, random order | 3 |" in (folder / "person.md").read_text()
    page = Page((folder / "index.html").read_text())
    assert any("accuracy by known clips" in label for label in page.labels)


def test_a_learning_curve_needs_subjects(run_evaluate, write_list):
    with pytest.raises(SystemExit, match="3 known subjects in training"):
        run_evaluate(*write_list({}, ("ann", "bob")), "person=true")
    with pytest.raises(SystemExit, match="the subject of 10 clips is unknown"):
        run_evaluate(*write_list({}), "model_path=starter", "person=true")
