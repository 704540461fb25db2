"""Model cards: every number in them is in the run's files; nothing is said that is not so."""

import copy
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from emotion.reports.model_card import ExportedFile, model_card
from emotion.training.finished_run import Run


@pytest.fixture
def run(finished_run: Path) -> Run:
    return Run.read(finished_run)


@pytest.fixture
def file(tmp_path: Path) -> ExportedFile:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights" * 300_000)
    return ExportedFile(path, "float32", "it was compared")


def changed(run: Run, **values) -> Run:
    return replace(run, metrics=copy.deepcopy(run.metrics) | values)


def tables(card: str) -> list[list[list[str]]]:
    """Read the tables as a Markdown renderer does: table -> row -> cell."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt().enable("table").parse(card):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level > 3:
            found[-1][-1].append(token.content)
    return found


def table_of(card: str, *headings: str) -> list[list[str]]:
    (rows,) = (rows for rows in tables(card) if rows[0][: len(headings)] == list(headings))
    return rows[1:]


def test_scores_and_bounds_are_those_of_the_run(run: Run, file: ExportedFile):
    rows = table_of(model_card(run, [file]), "test", "number", "accuracy")
    for row, level in zip(rows, ("stacks", "clips"), strict=True):
        scores = run.metrics["scores"]["test"][level]
        expected = [
            100 * number
            for key in ("accuracy", "uar", "macro_f1")
            for number in (scores[key], *scores["confidence"]["bounds"][key])
        ]
        numbers = [float(n) for n in re.findall(r"[\d.]+", " ".join(row[2:]))]
        assert row[:2] == [level, str(scores["num"])]
        assert numbers == pytest.approx(expected, abs=0.05)


def test_confusion_and_classes_are_those_of_the_run(run: Run, file: ExportedFile):
    card = model_card(run, [file])
    scores, labels = run.metrics["scores"]["test"]["clips"], run.metrics["labels"]
    confusion = table_of(card, "", *labels)
    assert [[int(n) for n in row[1:]] for row in confusion] == scores["confusion"]
    assert [row[0] for row in confusion] == labels
    for i, row in enumerate(table_of(card, "class", "precision")):
        for cell, key in zip(row[1:], ("precision", "recall", "f1"), strict=True):
            value = scores[key][i]
            assert (
                cell == "-"
                if value is None
                else float(cell[:-2]) == pytest.approx(100 * value, abs=0.05)
            )


def test_data_is_that_of_the_run(run: Run, file: ExportedFile):
    rows = table_of(model_card(run, [file]), "split", "people", "clips")
    assert [row[:4] for row in rows] == [
        [split, "unknown", "10", "10"] for split in ("train", "val", "test")
    ]
    assert all(cell == "2 / 2" for row in rows for cell in row[4:])
    parts = copy.deepcopy(run.metrics["split"])
    parts["parts"]["val"]["subjects"] = ["03", "08"]
    card = model_card(changed(run, split=parts), [file])
    assert table_of(card, "split", "people")[1][1] == "2"
    assert "not told apart" not in card


def test_calibration_is_that_of_the_run(run: Run, file: ExportedFile):
    facts = run.metrics["calibration"] | {"temperature": 1.625, "unsure_below": 0.437}
    facts["test"]["clips"]["ece"]["after"] = 0.123
    card = model_card(changed(run, calibration=facts), [file])
    assert "temperature of 1.625, fitted on val" in card
    assert "below a top probability of 43.7 %" in card
    rows = table_of(card, "on", "number", "ECE")
    assert [row[0] for row in rows] == [
        "val, stacks", "val, clips", "test, stacks", "test, clips"
    ]  # fmt: skip
    assert rows[3][3] == "12.3 %"
    assert f"{facts['test']['clips']['nll']['before']:.3f}" == rows[3][4]


@pytest.mark.parametrize(
    ("threshold", "told"),
    [(0.0, "No clip is called `unsure`"), (1.0, "Every clip is called `unsure`")],
)
def test_thresholds_that_are_none_are_told(run: Run, file, threshold: float, told: str):
    facts = run.metrics["calibration"] | {"unsure_below": threshold}
    assert told in model_card(changed(run, calibration=facts), [file])


def test_files_can_be_known_again(run: Run, file: ExportedFile):
    card = model_card(run, [file])
    digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert table_of(card, "file", "precision") == [
        ["model.onnx", "float32", "2.1 MB", f"`{digest}`"]
    ]
    assert "`model.onnx`: it was compared." in card


def test_it_says_who_was_in_the_data_and_what_it_is_not_for(run: Run, file: ExportedFile):
    card = model_card(run, [file])
    assert card.count("rendered faces") == 2
    assert "**Not for decisions about people**" in card and "MIT License" in card
    assert "its config does not say" not in card
    silent = model_card(changed(run, notice=None), [file])
    assert "its config does not say (`conf/data/demo.yaml`)" in silent


def test_it_says_what_weakens_the_numbers(run: Run, file: ExportedFile):
    card = model_card(run, [file])
    assert "selected on the clips" not in card and "There was no test split" not in card
    same = model_card(changed(run, reported_on="val"), [file])
    assert "selected on the clips that it is reported on" in same
    assert "There was no test split" in same
    assert "not shown to be better than that" in card  # two epochs on ten stacks
    good = copy.deepcopy(run.metrics["scores"])
    good["test"]["clips"]["confidence"]["bounds"]["accuracy"] = [0.8, 0.9]
    assert "not shown to be better" not in model_card(changed(run, scores=good), [file])


def test_the_command_makes_it_again(run: Run, file: ExportedFile):
    card = model_card(run, [file])
    assert "python train.py data=demo experiment=smoke interval=15 logger=none\n" in card
    assert f"git checkout {run.metrics['commit']}" in card
    unknown = model_card(changed(run, commit=None, overrides=["data=x", "a=b c"]), [file])
    assert "git checkout" not in unknown and "The commit is not known" in unknown
    assert "python train.py data=x 'a=b c'\n" in unknown


def test_it_is_all_from_the_run(run: Run, file: ExportedFile):
    """Every number with a decimal point is in the run's files, but for sums, sizes and versions."""
    card = model_card(run, [file])
    numbers = re.findall(r"(?<![\w.])(\d+\.\d+) %", card)
    told = json.dumps([run.metrics, run.recipe.to_json()])
    known = {f"{100 * float(n):.1f}" for n in re.findall(r"\d+\.\d+(?:e-\d+)?", told)}
    most = max(map(sum, run.metrics["scores"]["test"]["clips"]["confusion"])) / 10
    assert len(numbers) > 30 and set(numbers) <= known | {f"{100 * most:.1f}"}
