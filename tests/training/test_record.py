"""The record of a run: written and read back, and refused if damaged."""

import json
from pathlib import Path

import pytest

from emotion.errors import UserError
from emotion.training.record import (
    RECORD_FILE,
    FailedRun,
    FinishedRun,
    SplitSettings,
    read_record,
    write_record,
)

FAILED = FailedRun(
    cell="0123abcd",
    model="net",
    backbone=None,
    model_title="Net",
    interval=5,
    seed=1,
    data="demo",
    labels=("a", "b"),
    split=SplitSettings(name="kfold", fold=2, settings={"folds": 3}),
    overrides=("seed=1",),
    error="ValueError: broken",
)


def test_a_folder_without_a_record_has_none(tmp_path: Path):
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "missing") is None


@pytest.mark.parametrize("num", [0, 101])
def test_a_record_without_labels_or_with_too_many_is_refused(tmp_path: Path, num: int):
    labels = tuple(map(str, range(num)))
    write_record(tmp_path, FAILED.model_copy(update={"labels": labels}))
    with pytest.raises(UserError, match="labels"):
        read_record(tmp_path)


def test_a_failed_run_is_read_back(tmp_path: Path):
    write_record(tmp_path, FAILED)
    assert read_record(tmp_path) == FAILED
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_FILE]


def test_a_finished_run_is_read_back_exactly(finished_run: Path, tmp_path: Path):
    record = read_record(finished_run)
    assert isinstance(record, FinishedRun)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert (tmp_path / RECORD_FILE).read_text() == (finished_run / RECORD_FILE).read_text()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 1),
        ("status", "running"),
        ("seed", "many"),
        ("unknown", 0),
        ("split", {"fold": 1}),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, key: str, value: object):
    values = FAILED.model_dump(mode="json") | {key: value}
    (tmp_path / RECORD_FILE).write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"{RECORD_FILE}: .*{key}"):
        read_record(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"accuracy": 1}', "nul\0"])
def test_a_damaged_record_is_named(tmp_path: Path, text: str):
    (tmp_path / RECORD_FILE).write_text(text)
    with pytest.raises(UserError, match=RECORD_FILE):
        read_record(tmp_path)
