"""Tables: what an entry shows, folds joined, seeds averaged, and nothing mixed that differs."""

import csv
import json
import statistics
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn import metrics as independent

from emotion.errors import UserError
from emotion.evaluation.metrics import bootstrap
from emotion.evaluation.predictions import Predictions
from emotion.reports.__main__ import main
from emotion.reports.callback import SweepReport
from emotion.reports.report import terminal_tables, write_report
from emotion.reports.results import Entry, Results, read_runs

LABELS = ["Anger", "Happy"]
KFOLD = {"_target_": "emotion.data.split.KFold", "name": "kfold", "folds": 5, "seed": 0}


def predict(right: int, wrong: int, start: int = 0, stacks: int = 1, subject: str = ""):
    """Make predictions for `right` + `wrong` clips of alternating class, numbered from `start`."""
    numbers = [n for n in range(start, start + right + wrong) for _ in range(stacks)]
    targets = np.array([n % 2 for n in numbers])
    is_right = np.array([n - start < right for n in numbers])
    probabilities = np.where(is_right == (targets == 1), 0.75, 0.25)
    return Predictions(
        LABELS,
        ["test"] * len(numbers),
        [f"clip{n}" for n in numbers],
        [segment + 1 for _ in range(right + wrong) for segment in range(stacks)],
        [subject and f"{subject}{n}" for n in numbers],
        targets,
        np.stack([1 - probabilities, probabilities], axis=1).astype(np.float32),
    )


def write_run(folder: Path, predictions: Predictions | None, **others) -> dict:
    """Write what a run leaves behind; no predictions for one that failed."""
    folder.mkdir(parents=True)
    run = {
        "status": "finished", "model": "net", "model_title": "NET", "interval": 5, "seed": 0,
        "num_images": 18, "parameters": 3_468_709, "labels": LABELS, "data": "demo",
        "split": {"name": "data"}, "overrides": [], "notice": "drawn",
        "stacks": {"train": 8, "val": 4, "test": 10}, "reported_on": "test", "selected_on": "val",
        "pretrained": {"loaded": False, "source": "random weights: no hub"}, **others,
    }  # fmt: skip
    if predictions is None:
        for key in ("num_images", "parameters", "notice", "stacks", "reported_on", "pretrained"):
            del run[key]
        run |= {"status": "failed", "error": "oom"}
    else:
        predictions.write(folder / "predictions.csv")
    (folder / "metrics.json").write_text(json.dumps(run))
    return run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two models at two intervals, listed in the sweep's plan; one cell failed."""
    write_run(tmp_path / "net10", predict(7, 3), interval=10, num_images=9)
    write_run(tmp_path / "net5", predict(2, 6))
    big = {"model": "big", "model_title": "BIG"}
    write_run(tmp_path / "big10", predict(1, 7), **big, interval=10, num_images=9)
    write_run(tmp_path / "big5", None, **big)
    write_plan(tmp_path, "net10", "net5", "big10", "big5")
    return tmp_path


def write_plan(folder: Path, *cells: str, **others) -> None:
    """Write which cells the last start of a sweep asked for."""
    plan = [{"folder": cell, "overrides": []} | others for cell in cells]
    (folder / "sweep.json").write_text(json.dumps(plan))


def test_runs_that_the_sweep_does_not_ask_for_any_more_are_left_out(sweep: Path):
    write_plan(sweep, "net5", "net10")
    assert [run["interval"] for run in read_runs(sweep)] == [5, 10]
    write_run(sweep / "alone" / "run", predict(1, 1))  # a run of no sweep, in a folder above
    assert len(read_runs(sweep)) == 3 and len(read_runs(sweep / "alone")) == 1


@pytest.mark.parametrize("begun, state", [(True, "cut off, or running now"), (False, "not begun")])
def test_cell_with_no_result_is_unfinished(sweep: Path, begun: bool, state: str):
    (sweep / "net10" / "metrics.json").unlink()
    if begun:
        (sweep / "net10" / ".hydra").mkdir()
    head = {"model": "net", "model_title": "NET", "interval": 10, "seed": 0, "data": "demo"}
    write_plan(sweep, "net10", **head, labels=LABELS, split={"name": "data"})
    results = Results(read_runs(sweep))
    assert results.entries[0].text() == "unfinished" and not results.finished
    assert f"unfinished: net, interval 10, seed 0: {state}" in results.notes()


def only_entry(folder: Path) -> Entry:
    (entry,) = Results(read_runs(folder)).entries
    return entry


# One run an entry


def test_rows_are_intervals_and_columns_models_in_the_sweeps_order(sweep: Path):
    results = Results(read_runs(sweep))
    (protocol,) = results.protocols
    headings, rows = results.grid(protocol)
    assert headings == ["interval", "images", "NET (3.47 M)", "BIG (3.47 M)"]
    assert [[entry.split(" ")[0] for entry in row] for row in rows] == [
        ["5", "18", "25.00", "failed"],
        ["10", "9", "70.00", "12.50"],
    ]


def test_entry_shows_score_and_interval(tmp_path: Path):
    predictions = predict(7, 3)
    write_run(tmp_path / "0", predictions)
    entry = only_entry(tmp_path)
    low, high = bootstrap([predictions]).bounds["accuracy"]
    assert entry.text() == f"70.00 [{100 * low:.1f}, {100 * high:.1f}]"
    assert 0.3 < low < 0.7 < high < 1
    said = predictions.probabilities.argmax(axis=1)
    for score, expected in {
        "uar": independent.balanced_accuracy_score(predictions.targets, said),
        "macro_f1": independent.f1_score(predictions.targets, said, average="macro"),
    }.items():
        assert entry.estimate(score).mean == pytest.approx(expected)
        assert entry.text(score).startswith(f"{100 * expected:.2f} [")
    assert entry.confusion["stacks"].tolist() == [[4, 1], [2, 3]]


# Seeds


def test_seeds_of_an_entry_become_mean_and_deviation(tmp_path: Path):
    write_run(tmp_path / "0", predict(6, 4), seed=0)
    write_run(tmp_path / "1", predict(8, 2), seed=1)
    entry = only_entry(tmp_path)
    assert entry.text().startswith("70.00 ± 14.14 [")  # |80 - 60| / sqrt(2)
    low, high = bootstrap([predict(6, 4), predict(8, 2)]).bounds["accuracy"]
    assert (entry.estimate().low, entry.estimate().high) == (low, high)
    assert entry.confusion["stacks"].sum() == 20
    assert "±: standard deviation over seeds 0, 1" in entry.basis()


def test_seeds_judged_on_other_clips_have_no_common_interval(tmp_path: Path):
    write_run(tmp_path / "0", predict(6, 4), seed=0)
    write_run(tmp_path / "1", predict(8, 2, start=4), seed=1)
    entry = only_entry(tmp_path)
    assert entry.text() == "70.00 ± 14.14"
    assert "no confidence interval, for the seeds were judged on different clips" in entry.basis()


def test_a_run_made_again_counts_once_and_the_last_time(tmp_path: Path):
    write_run(tmp_path / "2026-01-01" / "1", predict(2, 8))
    write_run(tmp_path / "2026-01-02" / "0", predict(9, 1))
    assert only_entry(tmp_path).text().startswith("90.00 [")


# Folds


def write_folds(folder: Path, seed: int, rights: list[int], **others) -> None:
    """Write a run for each fold of ten clips; unlike in size, so that a mean is not the pool."""
    start = 0
    for fold, right in enumerate(rights):
        wrong = 2 + 3 * fold
        write_run(
            folder / f"{len(rights) * seed + fold}_cell",
            predict(right, wrong, start, **others),
            seed=seed,
            split={**KFOLD, "fold": fold, "parts": {}},
            stacks={"train": 30 - fold, "val": 4, "test": right + wrong},
        )
        start += right + wrong


def test_folds_are_judged_together(tmp_path: Path):
    write_folds(tmp_path, 0, [8, 5, 6])
    entry = only_entry(tmp_path)
    assert entry.folds == [0, 1, 2]
    parts = [Predictions.read(path) for path in sorted(tmp_path.glob("*/predictions.csv"))]
    true = np.concatenate([p.targets for p in parts])
    said = np.concatenate([p.probabilities.argmax(axis=1) for p in parts])
    assert len(true) == 34
    for score, expected in {
        "accuracy": independent.accuracy_score(true, said),
        "uar": independent.balanced_accuracy_score(true, said),
        "macro_f1": independent.f1_score(true, said, average="macro"),
    }.items():
        assert entry.estimate(score).mean == pytest.approx(expected)
    assert entry.estimate().mean == pytest.approx(19 / 34)
    assert entry.estimate().std is None and entry.confidence["stacks"].num_units == 34
    assert entry.confusion["stacks"].tolist() == independent.confusion_matrix(true, said).tolist()
    assert "34 test stacks of 34 clips (folds 0, 1, 2, pooled)" in entry.basis()
    assert "trained on 28 to 30 stacks" in entry.basis()


def test_each_seed_pools_its_folds(tmp_path: Path):
    write_folds(tmp_path, 0, [8, 5])
    write_folds(tmp_path, 1, [8, 5])
    write_run(tmp_path / "9", predict(0, 10, 100), seed=2, split={**KFOLD, "fold": 0, "parts": {}})
    entry = only_entry(tmp_path)
    each = [13 / 20, 13 / 20, 0]
    assert [s.accuracy for s in entry.scores["stacks"].values()] == pytest.approx(each)
    assert entry.estimate().mean == pytest.approx(statistics.mean(each))
    assert entry.estimate().std == pytest.approx(statistics.stdev(each))


def test_one_failed_fold_leaves_no_number(tmp_path: Path):
    write_folds(tmp_path, 0, [8, 5])
    write_run(tmp_path / "3", None, split={**KFOLD, "fold": 2})
    results = Results(read_runs(tmp_path))
    (entry,) = results.entries
    assert entry.text() == "1 of 3 failed" and not entry.is_finished
    assert "failed: net, interval 5, seed 0, fold 2: oom" in results.notes()


def test_folds_that_overlap_are_refused(tmp_path: Path):
    for fold in (0, 1):
        write_run(tmp_path / str(fold), predict(2, 2), split={**KFOLD, "fold": fold})
    with pytest.raises(UserError, match="segment 1 of clip clip0 is predicted in two"):
        only_entry(tmp_path).text()


# Units


def test_unit_of_the_confidence_interval_is_told(tmp_path: Path):
    write_run(tmp_path / "a" / "0", predict(7, 3, stacks=3))
    write_run(tmp_path / "b" / "0", predict(7, 3, stacks=3, subject="s"))
    write_run(tmp_path / "c" / "0", predict(4, 3, stacks=3, subject="s"))
    of_clips, of_subjects, of_few = (only_entry(tmp_path / name).basis() for name in "abc")
    assert "30 test stacks of 10 clips, trained" in of_clips
    assert of_clips.endswith("bootstrap over 10 clips")
    assert "30 test stacks of 10 clips and 10 subjects" in of_subjects
    assert of_subjects.endswith("bootstrap over 10 subjects")
    assert "bootstrap over 7 clips, for subjects are too few to draw from" in of_few


# What must not be mixed


def test_splits_and_data_sets_make_tables_of_their_own(tmp_path: Path):
    write_run(tmp_path / "0", predict(7, 3))
    write_run(tmp_path / "1", predict(6, 4), data="other")
    write_run(tmp_path / "2", predict(5, 5), split={**KFOLD, "fold": 0})
    write_run(tmp_path / "3", predict(4, 6), split={**KFOLD, "fold": 0, "seed": 1})
    write_run(tmp_path / "4", predict(3, 7), split={**KFOLD, "fold": 0, "folds": 4})
    results = Results(read_runs(tmp_path))
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
    assert all(len(results.grid(protocol)[1]) == 1 for protocol in results.protocols)
    assert "demo, split kfold (folds=4, seed=0): accuracy of stacks, %" in results.markdown()
    assert len(terminal_tables(results)) == 5


def test_other_settings_are_rows_and_no_seeds(tmp_path: Path):
    common = ["model=net", "experiment=smoke", "paths.output=/here"]
    write_run(tmp_path / "0", predict(7, 3), overrides=[*common, "augmentation=none"])
    gone_on = [*common, "augmentation=none", "ckpt_path=last", "loader.num_workers=0"]
    write_run(tmp_path / "1", predict(6, 4), overrides=gone_on, seed=1)
    write_run(tmp_path / "2", predict(4, 6), overrides=[*common, "augmentation=seed", "seed=2"])
    results = Results(read_runs(tmp_path))
    headings, rows = results.grid(results.protocols[0])
    assert headings == ["settings", "interval", "images", "NET (3.47 M)"]
    assert [row[:3] for row in rows] == [
        ["augmentation=none", "5", "18"],
        ["augmentation=seed", "5", "18"],
    ]
    assert rows[0][3].startswith("65.00 ± 7.07") and rows[1][3].startswith("40.00 [")


# Words and files


def test_notes_tell_what_the_numbers_rest_on(sweep: Path):
    notes = "\n".join(Results(read_runs(sweep)).notes())
    assert "demo, split data (net 10): scores in % on 10 test stacks of 10 clips" in notes
    assert "(net 5, big 10): scores in % on 8 test stacks" in notes
    assert "the best epoch was selected on 4 val stacks" in notes
    assert "demo: drawn" in notes and "random weights: no hub" in notes
    assert "failed: big, interval 5, seed 0: oom" in notes


def test_selection_on_the_reported_clips_is_admitted(tmp_path: Path):
    predictions = predict(7, 3)
    predictions.splits[:] = ["val"] * 10
    write_run(tmp_path / "0", predictions, reported_on="val")
    results = Results(read_runs(tmp_path))
    assert "selected and reported on the same clips" in results.notes()[0]
    assert "selected and reported on the same clips" in results.markdown()
    assert {row["reported_on"] for row in results.long_rows()} == {"val"}


def test_clips_have_tables_where_they_have_several_stacks(tmp_path: Path):
    titles = {}
    for name, stacks in (("one", 1), ("three", 3)):
        write_run(tmp_path / name / "0", predict(7, 3, stacks=stacks))
        results = Results(read_runs(tmp_path / name))
        titles[name] = [title for title, *_ in results.table_names(results.protocols[0])]
    assert titles["one"] == ["accuracy of stacks, %", "UAR of stacks, %", "macro-F1 of stacks, %"]
    assert titles["three"] == titles["one"] + [t.replace("stacks", "clips") for t in titles["one"]]


def test_files_hold_the_table(sweep: Path, capsys: pytest.CaptureFixture):
    write_report(sweep)
    markdown = (sweep / "results.md").read_text()
    assert "| 10 | 9 | 70.00 [" in markdown and "| 12.50 [" in markdown
    assert markdown.index("accuracy of stacks") < markdown.index("- demo") < markdown.index("UAR")
    picture = cv2.imread(str(sweep / "confusion.png"))
    assert min(picture.shape[:2]) > 300 and picture.std() > 10
    assert "70.00" in capsys.readouterr().out


def test_every_number_has_a_row_of_its_own(tmp_path: Path):
    for seed, right in ((0, 7), (1, 9)):
        write_run(tmp_path / str(seed), predict(right, 10 - right, stacks=2), seed=seed)
    write_run(tmp_path / "2", None, interval=10)
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
    (mean,) = (r for r in rows if r["seed"] == "mean" and r["score"] == "uar" and r["num"] == ""
               and r["level"] == "clips")  # fmt: skip
    assert float(mean["low"]) < float(mean["value"]) < float(mean["high"])
    assert (mean["unit"], mean["num_units"]) == ("clips", "10") and float(mean["std"]) > 0
    assert [(r["status"], r["value"]) for r in rows if r["interval"] == "10"] == [("failed", "")]


def test_sweep_without_a_report_ends_with_an_error(tmp_path: Path):
    write_run(tmp_path / "0", predict(1, 1))
    (tmp_path / "0" / "predictions.csv").unlink()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    with pytest.raises(SystemExit, match=r"error: no report on .*: no predictions\.csv in"):
        SweepReport().on_multirun_end(config)


def test_command_line_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: no metrics\.json in"):
        main()
    write_run(tmp_path / "0", predict(1, 1))
    (tmp_path / "0" / "predictions.csv").unlink()
    with pytest.raises(SystemExit, match=r"error: no predictions\.csv in .*run it again"):
        main()
    (tmp_path / "0" / "metrics.json").write_text('{"status": "finished"}')
    with pytest.raises(SystemExit, match=r"error: .*older version.*run it again"):
        main()
