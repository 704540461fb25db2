"""The learning curve of runs whose features the test writes."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.errors import UserError
from emotion.evaluation.learning_curve import FEATURES_FILE, KINDS, NUMS, learning_curve
from emotion.reports.personal import main, read_folds
from tests.evaluation.people import synthetic_people


@pytest.fixture
def run_dirs(tmp_path: Path) -> list[Path]:
    """Folders of three folds, each with another tested person."""
    folders = [tmp_path / f"fold{number}" for number in range(3)]
    for number, folder in enumerate(folders):
        fold = synthetic_people(0, num_people=3, test=f"p{number}")
        fold.write(folder / FEATURES_FILE)
    return folders


def test_it_prints_and_draws_the_curve(run_dirs, tmp_path: Path, monkeypatch, capsys):
    picture = tmp_path / "curve.png"
    options = ["--draws", "2", "--picture", str(picture)]
    monkeypatch.setattr(sys, "argv", ["personal", *map(str, run_dirs), *options])
    main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    points = learning_curve(read_folds(run_dirs), draws=2)
    assert len(rows) == 2 + len(points)
    for row, point in zip(rows[2:], points, strict=True):
        assert row[0] == KINDS[point.kind] and int(row[1]) in NUMS
        assert row[2].startswith(f"{100 * point.scores['accuracy']:.1f} [")
        assert row[5] == f"{100 * point.ece:.1f}"
    assert min(Image.open(picture).size) > 300


def test_runs_of_different_cells_are_refused(run_dirs):
    fold = read_folds(run_dirs)[0]
    replace(fold, labels=("A", "B", "C")).write(run_dirs[1] / FEATURES_FILE)
    with pytest.raises(UserError, match="same cell"):
        read_folds(run_dirs)


def test_unknown_subjects_are_refused(run_dirs):
    fold = read_folds(run_dirs)[0]
    replace(fold, subjects=np.full(len(fold.targets), "")).write(run_dirs[0] / FEATURES_FILE)
    with pytest.raises(UserError, match="subjects"):
        read_folds(run_dirs)


def test_a_run_without_features_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="features"):
        read_folds([tmp_path])


@pytest.mark.parametrize("change", ["empty", "half", "noise", "json", "other"])
def test_damaged_features_are_refused_in_one_line(run_dirs, change: str):
    path = run_dirs[1] / FEATURES_FILE
    content = path.read_bytes()
    if change == "other":
        np.savez(path, labels=np.array(["A"]), blocks=np.array([1]))
    else:
        noise = np.random.default_rng(0).bytes(999)
        half = content[: len(content) // 2]
        path.write_bytes({"empty": b"", "half": half, "noise": noise, "json": b"{}"}[change])
    with pytest.raises(UserError, match=FEATURES_FILE) as caught:
        read_folds(run_dirs)
    assert "\n" not in str(caught.value)
