"""Model cards: every number is from the run's files, and each caveat appears when it applies."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from emotion import REPOSITORY
from emotion.reports.model_card import LICENSE, ExportedFile, model_card
from emotion.training.finished_run import Run
from emotion.training.record import FinishedRun


@pytest.fixture(scope="module")
def run(finished_run: Path) -> Run:
    return Run.read(finished_run)


@pytest.fixture
def file(tmp_path: Path) -> ExportedFile:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights" * 300_000)
    return ExportedFile(path, "float32", "it was compared")


def changed(run: Run, **values: Any) -> Run:
    """Change values of the record, given by their paths with __ between the keys."""
    plain = json.loads(run.record.model_dump_json())
    for path, value in values.items():
        *keys, last = path.split("__")
        part = plain
        for key in keys:
            part = part[key]
        part[last] = value
    return replace(run, record=FinishedRun.model_validate(plain))


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
        scores = getattr(run.record.scores["test"], level)
        expected = [
            100 * number
            for key in ("accuracy", "uar", "macro_f1")
            for number in (getattr(scores, key), *scores.confidence.bounds[key])
        ]
        numbers = [float(n) for n in re.findall(r"[\d.]+", " ".join(row[2:]))]
        assert row[:2] == [level, str(scores.num)]
        assert numbers == pytest.approx(expected, abs=0.05)


def test_confusion_and_classes_are_those_of_the_run(run: Run, file: ExportedFile):
    card = model_card(run, [file])
    scores, labels = run.record.scores["test"].clips, list(run.record.labels)
    confusion = table_of(card, "", *labels)
    assert [[int(n) for n in row[1:]] for row in confusion] == scores.confusion
    assert [row[0] for row in confusion] == labels
    for i, row in enumerate(table_of(card, "class", "precision")):
        for cell, column in zip(row[1:], (scores.precision, scores.recall, scores.f1), strict=True):
            if column[i] is None:
                assert cell == "-"
            else:
                assert float(cell[:-2]) == pytest.approx(100 * column[i], abs=0.05)


def test_data_is_that_of_the_run(run: Run, file: ExportedFile):
    rows = table_of(model_card(run, [file]), "split", "subjects", "clips")
    assert [row[:4] for row in rows] == [
        [split, "unknown", "10", "10"] for split in ("train", "val", "test")
    ]
    assert all(cell == "2 / 2" for row in rows for cell in row[4:])
    card = model_card(changed(run, parts__val__subjects=["03", "08"]), [file])
    assert table_of(card, "split", "subjects")[1][1] == "2"


def test_calibration_is_that_of_the_run(run: Run, file: ExportedFile):
    values = {
        "temperature": 1.625,
        "unsure_below": 0.437,
        "threshold_set": True,
        "splits__test__clips__ece_after": 0.123,
    }
    other = changed(run, **{f"calibration__{key}": value for key, value in values.items()})
    card = model_card(other, [file])
    assert "1.625" in card and "43.7 %" in card
    rows = table_of(card, "on", "number", "ECE")
    assert [row[0] for row in rows] == ["val, stacks", "val, clips", "test, stacks", "test, clips"]
    assert rows[3][3] == "12.3 %"
    assert f"{run.record.calibration.splits['test'].clips.nll_before:.3f}" == rows[3][4]


def test_each_kind_of_threshold_has_its_own_sentence(run: Run, file: ExportedFile):
    kinds = [(0.0, False), (0.0, True), (1.0, True), (0.5, True)]
    cards = {
        model_card(
            changed(run, calibration__unsure_below=value, calibration__threshold_set=is_set), [file]
        )
        for value, is_set in kinds
    }
    assert len(cards) == len(kinds)


def test_files_have_their_digests(run: Run, file: ExportedFile):
    card = model_card(run, [file])
    digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
    assert table_of(card, "file", "precision") == [
        ["model.onnx", "float32", "2.1 MB", f"`{digest}`"]
    ]
    assert "`model.onnx`: it was compared." in card


def test_caveats_appear_when_they_apply(run: Run, file: ExportedFile):
    card = model_card(run, [file])
    assert card.count(run.record.notice) >= 2 and LICENSE in card
    assert (REPOSITORY / "LICENSE").read_text("utf-8").startswith(f"{LICENSE}\n")
    assert "conf/data/demo.yaml" not in card
    assert "conf/data/demo.yaml" in model_card(changed(run, notice=None), [file])
    same = model_card(changed(run, reported_on="val"), [file])
    assert "**The best epoch" in same and "**The best epoch" not in card
    chance = "**The model is not shown to be better"
    assert chance in card  # two epochs on ten stacks
    good = changed(run, scores__test__clips__confidence__bounds__accuracy=[0.8, 0.9])
    assert chance not in model_card(good, [file])


def test_the_command_trains_it_again(run: Run, file: ExportedFile):
    known = changed(run, provenance__commit="0123abc", provenance__dirty=False)
    card = model_card(known, [file])
    assert "python train.py data=demo experiment=smoke interval=15 logger=none\n" in card
    assert "git checkout 0123abc" in card
    unknown = changed(run, provenance__commit=None, overrides=["data=x", "a=b c"])
    card = model_card(unknown, [file])
    assert "git checkout" not in card
    assert "python train.py data=x 'a=b c'\n" in card


def test_foreign_text_is_shown_as_it_is(run: Run, file: ExportedFile):
    text = "<b>|`*[x](y) \x1b[31m\n# $y$"
    overrides = ["data=x", f"model.title={text}"]
    hostile = changed(run, notice=text, data=text, overrides=overrides, split__name=text)
    card = model_card(hostile, [file])
    assert "\x1b" not in card and "<b>" not in re.sub(
        r"`[^`\n]*`|^python train.*", "", card, flags=re.M
    )
    tokens = MarkdownIt().enable("table").parse(card)
    inline = [child for token in tokens for child in token.children or ()]
    assert not {token.type for token in inline} & {"html_inline", "link_open", "em_open"}
    headings = [token for token in tokens if token.type == "heading_open"]
    plain = MarkdownIt().parse(model_card(run, [file]))
    assert len(headings) == sum(token.type == "heading_open" for token in plain)


def test_every_percentage_is_from_the_run(run: Run, file: ExportedFile):
    card = model_card(run, [file])
    numbers = re.findall(r"(?<![\w.])(\d+\.\d+) %", card)
    text = json.dumps([run.record.model_dump_json(), run.recipe.to_json()])
    known = {f"{100 * float(n):.1f}" for n in re.findall(r"\d+\.\d+(?:e-\d+)?", text)}
    majority = max(map(sum, run.record.scores["test"].clips.confusion)) / 10
    assert len(numbers) > 30 and set(numbers) <= known | {f"{100 * majority:.1f}"}
