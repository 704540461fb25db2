"""Tables: what an entry shows, folds pooled, seeds averaged, and nothing mixed that differs."""

import csv
import os
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as independent

from emotion.errors import UserError
from emotion.evaluation.metrics import bootstrap
from emotion.evaluation.predictions import Predictions, Sample
from emotion.reports.page import headline
from emotion.reports.results import Entry, Results, read_runs
from emotion.reports.tables import (
    basis,
    command_of_best,
    csv_rows,
    grid,
    markdown,
    notes,
    summary_table,
    table_names,
)
from emotion.training.record import RECORD_FILE, SplitSettings
from tests.reports.runs import KFOLD, LABELS, calibration, fail_run, plan, predict, write_run

BIG = {"model": "big", "backbone": "resnet18"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two models at two intervals, listed in the sweep's plan; one cell failed."""
    write_run(tmp_path / "net10", predict(7, 3), interval=10, num_images=9)
    write_run(tmp_path / "net5", predict(2, 6))
    write_run(tmp_path / "big10", predict(1, 7), **BIG, interval=10, num_images=9)
    fail_run(tmp_path / "big5", **BIG)
    plan(tmp_path, net10={"interval": 10}, net5={}, big10=BIG | {"interval": 10}, big5=BIG)
    return tmp_path


def results_of(folder: Path) -> Results:
    return Results(*read_runs(folder))


def only_entry(folder: Path) -> Entry:
    (entry,) = results_of(folder).entries
    return entry


def kfold(fold: int, **settings: int) -> SplitSettings:
    return SplitSettings(name="kfold", fold=fold, settings=KFOLD | settings)


# Which runs


def test_runs_that_the_sweep_no_longer_lists_are_left_out(sweep: Path):
    plan(sweep, net5={}, net10={"interval": 10})
    assert [run.head.interval for run in read_runs(sweep)[0]] == [5, 10]
    write_run(sweep / "alone" / "run", predict(1, 1))  # a run of no sweep, in a folder above
    assert len(read_runs(sweep)[0]) == 3 and len(read_runs(sweep / "alone")[0]) == 1


@pytest.mark.parametrize("begun", [True, False])
def test_cell_without_a_record_is_unfinished(sweep: Path, begun: bool):
    (sweep / "net10" / RECORD_FILE).unlink()
    if begun:
        (sweep / "net10" / ".hydra").mkdir()
    plan(sweep, net10={"interval": 10})
    results = results_of(sweep)
    assert results.entries[0].text() == "unfinished" and not results.finished
    assert any(note.startswith("unfinished: ") and "interval 10" in note for note in notes(results))


def test_damaged_plan_is_named_and_the_runs_are_shown(sweep: Path):
    plan_file = sweep / "sweep.json"
    plan_file.write_bytes(plan_file.read_bytes().replace(b"net10", b"net50"))
    results = results_of(sweep)
    assert len(results.finished) == 3
    assert any(note.startswith(f"damaged: {plan_file}") for note in notes(results))


@pytest.mark.parametrize("name", [RECORD_FILE, "predictions.csv"])
def test_damaged_run_is_named_and_the_others_are_shown(sweep: Path, name: str):
    (sweep / "net5" / name).write_text('{"status": "finished", "model"')
    results = results_of(sweep)
    assert [entry.text()[:5] for entry in results.entries] == ["damag", "faile", "70.00", "12.50"]
    assert any(
        note.startswith("damaged: ") and str(sweep / "net5" / name) in note
        for note in notes(results)
    )
    (sweep / "sweep.json").unlink()  # then the damaged record leaves nothing but its folder
    results = results_of(sweep)
    assert len(results.runs) + len(results.damaged) == 4
    assert any(str(sweep / "net5" / name) in note for note in notes(results))


def test_only_damaged_or_no_runs_are_an_error(tmp_path: Path):
    with pytest.raises(UserError, match=RECORD_FILE):
        read_runs(tmp_path)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / RECORD_FILE).write_text("{}")
    with pytest.raises(UserError, match=str(tmp_path / "0" / RECORD_FILE)):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    "text", ["epoch,val/loss\n0,half\n", "val/loss\n1\n", "\0\xff", "a,b\n1\n"]
)
def test_damaged_curves_are_named_and_cost_no_score(sweep: Path, text: str):
    curves = sweep / "net5" / "curves" / "metrics.csv"
    curves.parent.mkdir()
    curves.write_text(text)
    results = results_of(sweep)
    assert results.entries[0].text().startswith("25.00")
    assert any(note.startswith("damaged: ") and str(curves) in note for note in notes(results))


def test_damaged_file_without_scores_is_named(tmp_path: Path):
    (tmp_path / "0").mkdir()
    weights = tmp_path / "0" / "best.ckpt"
    weights.write_bytes(b"weights")
    write_run(tmp_path / "0", predict(7, 3), more_files=("best.ckpt",))
    assert not any(note.startswith("damaged") for note in notes(results_of(tmp_path)))
    weights.write_bytes(b"weightz")
    results = results_of(tmp_path)
    assert results.entries[0].text().startswith("70.00")
    assert any(note.startswith("damaged: ") and str(weights) in note for note in notes(results))


def test_loops_of_links_and_pipes_do_not_hang(sweep: Path):
    (sweep / "loop").symlink_to(sweep)
    (sweep / "alone" / "pipe").mkdir(parents=True)
    os.mkfifo(sweep / "alone" / "pipe" / RECORD_FILE)
    results = results_of(sweep)
    assert len(results.runs) == 4
    assert any(note.startswith(f"damaged: {sweep / 'alone'}") for note in notes(results))


def test_record_of_another_cell_is_damaged(sweep: Path):
    for name in (RECORD_FILE, "predictions.csv"):
        (sweep / "net5" / name).write_bytes((sweep / "net10" / name).read_bytes())
    plan(sweep, net5={"cell": "other"}, net10={"interval": 10})
    assert [entry.text()[:5] for entry in results_of(sweep).entries] == ["damag", "70.00"]


def test_a_sweep_with_damaged_and_no_finished_runs_is_an_error(sweep: Path):
    for name in ("net5", "net10", "big10"):
        (sweep / name / RECORD_FILE).write_text("{}")
    with pytest.raises(UserError, match=str(sweep / "net10" / RECORD_FILE)):
        read_runs(sweep)


# One run for each entry


def test_rows_are_intervals_and_columns_models_in_the_sweeps_order(sweep: Path):
    results = results_of(sweep)
    headings, rows = grid(results, results.protocols[0])
    assert headings == ["interval", "images", "ResNet-10-T (3.47 M)", "resnet18 (3.47 M)"]
    assert [[entry.split(" ")[0] for entry in row] for row in rows] == [
        ["5", "18", "25.00", "failed"],
        ["10", "9", "70.00", "12.50"],
    ]


def test_two_backbones_of_one_model_config_are_two_columns(tmp_path: Path):
    for seed, backbone in enumerate(("resnet18", "convnext_atto", "mobilenetv3_large_100")):
        override = f"model.backbone={backbone}"
        write_run(
            tmp_path / backbone, predict(5 + seed, 5 - seed), model="mobilenetv3",
            backbone=backbone, overrides=(override,),
        )  # fmt: skip
    results = results_of(tmp_path)
    headings, rows = grid(results, results.protocols[0])
    assert {heading.split(" ")[0] for heading in headings} == {
        "interval", "images", "resnet18", "convnext_atto", "MobileNetV3-Large"
    }  # fmt: skip
    assert len(rows) == 1
    assert {text[:5] for text in rows[0][2:]} == {"50.00", "60.00", "70.00"}


def test_two_model_configs_of_one_backbone_are_told_apart(tmp_path: Path):
    write_run(tmp_path / "0", predict(5, 5), model="a")
    write_run(tmp_path / "1", predict(6, 4), model="b")
    results = results_of(tmp_path)
    assert [results.title(m) for m in results.models] == ["ResNet-10-T (a)", "ResNet-10-T (b)"]


def test_entry_shows_score_and_interval(tmp_path: Path):
    predictions = predict(7, 3)
    write_run(tmp_path / "0", predictions)
    entry = only_entry(tmp_path)
    low, high = bootstrap([predictions]).bounds["accuracy"]
    assert entry.text() == f"70.00 [{100 * low:.1f}, {100 * high:.1f}]"
    assert 0.3 < low < 0.7 < high < 1
    predicted = predictions.probabilities.argmax(axis=1)
    for score, expected in {
        "uar": independent.balanced_accuracy_score(predictions.targets, predicted),
        "macro_f1": independent.f1_score(predictions.targets, predicted, average="macro"),
    }.items():
        assert entry.estimate(score).mean == pytest.approx(expected)
        assert entry.text(score).startswith(f"{100 * expected:.2f} [")
    assert entry.levels["stacks"].confusion.tolist() == [[4, 1], [2, 3]]


def test_clips_average_calibrated_probabilities(tmp_path: Path):
    # One stack is nearly sure of class 0, two lean to class 1: their plain mean is class 0. Divided
    # by a temperature of 8 the sure stack counts less, and the mean is class 1.
    probabilities = np.array([[0.999, 0.001], [0.3, 0.7], [0.3, 0.7]], np.float32)
    assert probabilities.mean(axis=0).argmax() == 0
    logits = np.log(probabilities.astype(np.float64)) / 8
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = shares.mean(axis=0)
    samples = [Sample("test", "clip", segment, "", LABELS[1]) for segment in (1, 2, 3)]
    one = Predictions(LABELS, samples, probabilities)
    write_run(tmp_path / "0", one, calibration=calibration(8.0))
    entry = only_entry(tmp_path)
    assert entry.levels["clips"].predictions[0].probabilities[0] == pytest.approx(
        expected, abs=1e-6
    )
    assert entry.estimate(level="clips").mean == float(expected.argmax() == 1)


# Seeds


def test_seeds_of_an_entry_become_mean_and_deviation(tmp_path: Path):
    write_run(tmp_path / "0", predict(6, 4), seed=0)
    write_run(tmp_path / "1", predict(8, 2), seed=1)
    entry = only_entry(tmp_path)
    assert entry.text().startswith("70.00 ± 14.14 [")  # |80 - 60| / sqrt(2)
    low, high = bootstrap([predict(6, 4), predict(8, 2)]).bounds["accuracy"]
    assert (entry.estimate().low, entry.estimate().high) == (low, high)
    assert entry.levels["stacks"].confusion.sum() == 20
    assert "seeds 0, 1" in basis(entry)


def test_seeds_evaluated_on_other_clips_have_no_common_interval(tmp_path: Path):
    write_run(tmp_path / "0", predict(6, 4), seed=0)
    write_run(tmp_path / "1", predict(8, 2, start=4), seed=1)
    entry = only_entry(tmp_path)
    assert entry.text() == "70.00 ± 14.14" and entry.levels["stacks"].confidence is None
    assert "bootstrap" not in basis(entry)


def test_a_repeated_run_counts_once_and_the_last_time(tmp_path: Path):
    write_run(tmp_path / "2026-01-01" / "1", predict(2, 8))
    write_run(tmp_path / "2026-01-02" / "0", predict(9, 1))
    assert only_entry(tmp_path).text().startswith("90.00 [")


# Folds


def write_folds(folder: Path, seed: int, rights: list[int]) -> None:
    """Write a run for each fold; unequal in size, so that their mean is not the pooled score."""
    start = 0
    for fold, right in enumerate(rights):
        wrong = 2 + 3 * fold
        write_run(
            folder / f"{len(rights) * seed + fold}_cell",
            predict(right, wrong, start),
            seed=seed,
            split=kfold(fold),
            stacks={"train": 30 - fold, "val": 4, "test": right + wrong},
        )
        start += right + wrong


def test_folds_are_scored_together(tmp_path: Path):
    write_folds(tmp_path, 0, [8, 5, 6])
    entry = only_entry(tmp_path)
    assert entry.folds == [0, 1, 2]
    parts = [Predictions.read(path) for path in sorted(tmp_path.glob("*/predictions.csv"))]
    true = np.concatenate([p.targets for p in parts])
    predicted = np.concatenate([p.probabilities.argmax(axis=1) for p in parts])
    assert len(true) == 34
    for score, expected in {
        "accuracy": independent.accuracy_score(true, predicted),
        "uar": independent.balanced_accuracy_score(true, predicted),
        "macro_f1": independent.f1_score(true, predicted, average="macro"),
    }.items():
        assert entry.estimate(score).mean == pytest.approx(expected)
    assert entry.estimate().mean == pytest.approx(19 / 34)
    assert entry.estimate().std is None and entry.levels["stacks"].confidence.num_units == 34
    expected = independent.confusion_matrix(true, predicted)
    assert entry.levels["stacks"].confusion.tolist() == expected.tolist()
    assert "folds 0, 1, 2" in basis(entry) and "28 to 30 stacks" in basis(entry)


def test_each_seed_pools_its_folds(tmp_path: Path):
    write_folds(tmp_path, 0, [8, 5])
    write_folds(tmp_path, 1, [8, 5])
    write_run(tmp_path / "9", predict(0, 10, 100), seed=2, split=kfold(0))
    entry = only_entry(tmp_path)
    each = [13 / 20, 13 / 20, 0]
    assert [s.accuracy for s in entry.levels["stacks"].scores.values()] == pytest.approx(each)
    assert entry.estimate().mean == pytest.approx(statistics.mean(each))
    assert entry.estimate().std == pytest.approx(statistics.stdev(each))


def test_one_failed_fold_leaves_no_number(tmp_path: Path):
    write_folds(tmp_path, 0, [8, 5])
    fail_run(tmp_path / "3", split=kfold(2))
    results = results_of(tmp_path)
    (entry,) = results.entries
    assert entry.text() == "1 of 3 failed" and not entry.is_finished
    assert any("seed 0, fold 2: oom" in note for note in notes(results))


def test_folds_that_overlap_are_refused(tmp_path: Path):
    for fold in (0, 1):
        write_run(tmp_path / str(fold), predict(2, 2), split=kfold(fold))
    with pytest.raises(UserError, match="clip0"):
        only_entry(tmp_path).text()


# Units


def test_unit_of_the_confidence_interval_is_named(tmp_path: Path):
    write_run(tmp_path / "a" / "0", predict(7, 3, stacks=3))
    write_run(tmp_path / "b" / "0", predict(7, 3, stacks=3, subject="s"))
    write_run(tmp_path / "c" / "0", predict(4, 3, stacks=3, subject="s"))
    of_clips, of_subjects, of_few = (basis(only_entry(tmp_path / name)) for name in "abc")
    assert "30 test stacks of 10 clips, trained" in of_clips
    assert of_clips.endswith("bootstrap over 10 clips")
    assert "30 test stacks of 10 clips and 10 subjects" in of_subjects
    assert of_subjects.endswith("bootstrap over 10 subjects")
    assert "bootstrap over 7 clips, " in of_few


# What must not be mixed


def test_splits_and_data_sets_make_tables_of_their_own(tmp_path: Path):
    write_run(tmp_path / "0", predict(7, 3))
    write_run(tmp_path / "1", predict(6, 4), data="other")
    write_run(tmp_path / "2", predict(5, 5), split=kfold(0))
    write_run(tmp_path / "3", predict(4, 6), split=kfold(0, seed=1))
    write_run(tmp_path / "4", predict(3, 7), split=kfold(0, folds=4))
    results = results_of(tmp_path)
    assert [str(protocol) for protocol in results.protocols] == [
        "demo, split data",
        "other, split data",
        "demo, split kfold (folds=5, seed=0)",
        "demo, split kfold (folds=5, seed=1)",
        "demo, split kfold (folds=4, seed=0)",
    ]
    assert [entry.text()[:5] for entry in results.entries] == [
        "70.00", "60.00", "50.00", "40.00", "30.00"
    ]  # fmt: skip
    assert all(len(grid(results, protocol)[1]) == 1 for protocol in results.protocols)
    assert "demo, split kfold (folds=4, seed=0): accuracy of stacks, %" in markdown(results)


def test_other_settings_are_rows_and_no_seeds(tmp_path: Path):
    common = ("model=net", "experiment=smoke", "paths.output=/here")
    write_run(tmp_path / "0", predict(7, 3), overrides=(*common, "augmentation=none"))
    resumed = (*common, "augmentation=none", "ckpt_path=last", "loader.num_workers=0")
    write_run(tmp_path / "1", predict(6, 4), overrides=resumed, seed=1)
    write_run(tmp_path / "2", predict(4, 6), overrides=(*common, "augmentation=original", "seed=2"))
    results = results_of(tmp_path)
    headings, rows = grid(results, results.protocols[0])
    assert headings == ["settings", "interval", "images", "ResNet-10-T (3.47 M)"]
    assert [row[:3] for row in rows] == [
        ["augmentation=none", "5", "18"],
        ["augmentation=original", "5", "18"],
    ]
    assert rows[0][3].startswith("65.00 ± 7.07") and rows[1][3].startswith("40.00 [")


# Text


def test_notes_name_what_the_numbers_are_based_on(sweep: Path):
    text = "\n".join(notes(results_of(sweep)))
    assert "(ResNet-10-T 10): scores in % on 10 test stacks of 10 clips" in text
    assert "(ResNet-10-T 5, resnet18 10): scores in % on 8 test stacks" in text
    assert "4 val stacks" in text
    assert "synthetic <faces>" in text and "random weights" in text
    assert "failed: resnet18, interval 5, seed 0: oom" in text


def test_selection_on_the_reported_clips_is_admitted(tmp_path: Path):
    predictions = predict(7, 3)
    predictions.samples[:] = [replace(each, split="val") for each in predictions.samples]
    write_run(tmp_path / "0", predictions, reported_on="val")
    results = results_of(tmp_path)
    assert "selected and reported on the same clips" in markdown(results)
    assert {row["reported_on"] for row in csv_rows(results)} == {"val"}


def test_clips_have_tables_if_they_have_several_stacks(tmp_path: Path):
    levels = {}
    for name, stacks in (("one", 1), ("three", 3)):
        write_run(tmp_path / name / "0", predict(7, 3, stacks=stacks))
        results = results_of(tmp_path / name)
        levels[name] = [level for _, _, level in table_names(results, results.protocols[0])]
    assert levels["one"] == ["stacks"] * 3
    assert levels["three"] == ["stacks"] * 3 + ["clips"] * 3


def test_every_number_has_a_row_of_its_own(tmp_path: Path):
    from emotion.reports.report import write_report

    for seed, right in ((0, 7), (1, 9)):
        write_run(tmp_path / str(seed), predict(right, 10 - right, stacks=2), seed=seed)
    fail_run(tmp_path / "2", interval=10)
    write_report(tmp_path)
    with open(tmp_path / "results.csv") as file:
        rows = list(csv.DictReader(file))
    value = {(r["level"], r["seed"], r["score"], r["class"]): r["value"] for r in rows}
    assert float(value["stacks", "0", "accuracy", ""]) == 0.7
    assert float(value["clips", "1", "accuracy", ""]) == 0.9
    assert float(value["stacks", "mean", "accuracy", ""]) == pytest.approx(0.8)
    assert float(value["stacks", "0", "recall", "Anger"]) == pytest.approx(4 / 5)
    assert {key[2:] for key in value if key[1] == "0"} == {
        ("accuracy", ""), ("uar", ""), ("macro_f1", ""),
        *((score, label) for score in ("precision", "recall", "f1") for label in LABELS),
    }  # fmt: skip
    (mean,) = (r for r in rows if (r["seed"], r["score"], r["level"]) == ("mean", "uar", "clips"))
    assert float(mean["low"]) < float(mean["value"]) < float(mean["high"])
    assert (mean["unit"], mean["num_units"]) == ("clips", "10") and float(mean["std"]) > 0
    assert [(r["status"], r["value"]) for r in rows if r["interval"] == "10"] == [("failed", "")]


def test_dashboard_has_a_row_for_each_entry(sweep: Path):
    columns, rows = summary_table(results_of(sweep))
    assert all(len(row) == len(columns) for row in rows) and len(rows) == 4
    assert [row[columns.index("accuracy")] for row in rows] == [0.25, None, 0.7, 0.125]


def test_unknown_subjects_are_noted_and_known_ones_are_not(tmp_path: Path):
    for subject, is_noted in (("", True), ("ann", False)):
        sweep = tmp_path / (subject or "unknown")
        write_run(sweep / "0", predict(7, 3, subject=subject))
        told = any("subjects are not known" in note for note in notes(results_of(sweep)))
        assert told == is_noted


def test_the_run_of_the_highest_validation_accuracy_predicts(tmp_path: Path):
    fail_run(tmp_path / "failed", model="other")
    for number, val_accuracy in enumerate((0.5, 0.75, 0.25)):
        write_run(tmp_path / str(number), predict(7, 3), seed=number, val_accuracy=val_accuracy)
    assert command_of_best(results_of(tmp_path)) == (
        f"python predict.py model_path={tmp_path}/1 clips=CLIPS"
    )


def test_the_headline_names_ties_and_chance(tmp_path: Path):
    for number, right in enumerate((7, 7, 5)):
        write_run(tmp_path / str(number), predict(right, 10 - right), interval=5 + 5 * number)
    results = results_of(tmp_path)
    (protocol,) = results.protocols
    assert headline(results, results.finished_entries(protocol)) == (
        "2 of 3 entries have the highest accuracy, 70.00 %: ResNet-10-T, interval 5; "
        "ResNet-10-T, interval 10. Chance is 50.0 %."
    )
