"""The learning curve in the page of a sweep: computed once, and only where subjects are known."""

from pathlib import Path

import numpy as np
import pytest

from emotion.data.split import PartCounts
from emotion.evaluation.learning_curve import FEATURES_FILE, ClipFeatures, learning_curve
from emotion.evaluation.predictions import Predictions, Sample
from emotion.reports import person_curves
from emotion.reports.report import page_path, write_report
from emotion.training.record import SplitSettings
from tests.evaluation.people import LABELS, synthetic_people
from tests.reports.runs import write_run
from tests.reports.test_page import PHONE_PX, Page, look

PEOPLE = ("p0", "p1", "p2")


def write_people(folder: Path) -> list[ClipFeatures]:
    """Write a sweep over three folds with the features of synthetic people; return them."""
    folds = [synthetic_people(0, num_people=3, test=person) for person in PEOPLE]
    for number, fold in enumerate(folds):
        test = fold.take(fold.splits == "test")
        samples = [
            Sample("test", f"{number}{clip}", 1, subject, LABELS[target])
            for clip, subject, target in zip(test.clips, test.subjects, test.targets, strict=True)
        ]
        predictions = Predictions(LABELS, samples, np.eye(3, dtype=np.float32)[test.targets])
        run = folder / str(number)
        run.mkdir(parents=True)
        fold.write(run / FEATURES_FILE)
        tested = (PEOPLE[number],)
        subjects = {"train": tuple(set(PEOPLE) - {*tested}), "val": (), "test": tested}
        parts = {
            split: PartCounts(subjects=own, clips={}, stacks={}) for split, own in subjects.items()
        }
        split = SplitSettings(name="leave_one_subject_out", fold=number)
        write_run(
            run, predictions, more_files=[FEATURES_FILE], labels=LABELS, split=split, parts=parts
        )
    return folds


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_people(tmp_path)
    return tmp_path


def test_the_page_has_the_curve(sweep: Path):
    write_report(sweep)
    page = Page(page_path(sweep).read_text())
    folds = [ClipFeatures.read(sweep / str(number) / FEATURES_FILE) for number in range(3)]
    points = {(point.kind, point.num): point for point in learning_curve(folds)}
    expected = [
        f"{100 * points[kind, num].scores['accuracy']:.1f}"
        for kind, nums in person_curves.SUMMARY
        for num in nums
        if (kind, num) in points
    ]
    (row,) = (row for row in page.rows if row[1:] == expected)
    assert row[0] == "ResNet-10-T, interval 5"
    assert len([row for row in page.rows if row[0] == "corrected, random order"]) == 7
    assert any("accuracy by known clips" in label for label in page.labels)


def test_the_curve_is_kept_until_the_features_change(sweep: Path, monkeypatch):
    write_report(sweep)
    kept = (sweep / person_curves.KEPT_FILE).read_bytes()
    with monkeypatch.context() as without:
        without.delattr(person_curves, "learning_curve")
        write_report(sweep)
    page_path(sweep).unlink()
    (sweep / person_curves.KEPT_FILE).write_text("damaged")
    write_report(sweep)
    assert (sweep / person_curves.KEPT_FILE).read_bytes() == kept
    assert "Knowing the person" in page_path(sweep).read_text()


def test_damaged_features_leave_the_rest_of_the_page(sweep: Path):
    (sweep / "1" / FEATURES_FILE).write_bytes(b"")
    write_report(sweep)
    page = Page(page_path(sweep).read_text())
    assert f"{FEATURES_FILE} is missing, damaged" in page.text
    assert not any("accuracy by known clips" in label for label in page.labels)


def test_a_curve_of_many_people_is_left_to_its_command(sweep: Path, monkeypatch):
    monkeypatch.setattr(person_curves, "MAX_FITS", 5)
    write_report(sweep)
    assert "6 models to fit: python -m emotion.reports.personal" in page_path(sweep).read_text()


@pytest.mark.slow
def test_browser_shows_the_curve_whole(sweep: Path, browser: str, tmp_path_factory):
    write_report(sweep)
    folder = tmp_path_factory.mktemp("browser")
    for width in (PHONE_PX, 1280):
        seen, console = look(browser, page_path(sweep).read_text(), width, folder)
        assert console == [] and seen["scroll"] <= width
        assert seen["wide"] == [] and seen["small"] == 0 and seen["out"] == [], seen
