import csv
import json

import cv2
import pytest

from emotion.report import Results, main, read_runs, write_report

LABELS = ["Anger", "Happy"]


def run_of(model, interval, accuracy=0.5, **others):
    return {
        "status": "finished", "model": model, "model_title": model.upper(), "interval": interval,
        "num_images": 90 // interval, "parameters": 3_468_709, "accuracy": accuracy,
        "confusion": [[3, 1], [2, 4]], "labels": LABELS, "data": "demo", "notice": "drawn",
        "stacks": {"train": 8, "val": 4, "test": 10}, "clips": {"train": 8, "val": 4, "test": 9},
        "reported_on": "test", "selected_on": "val",
        "pretrained": {"loaded": False, "source": "random weights: no hub"}, **others,
    }  # fmt: skip


@pytest.fixture
def sweep(tmp_path):
    """Two models at two intervals; one cell failed. Ten jobs on, names sort by number."""
    runs = [
        run_of("net", 10, 0.7), run_of("net", 5, 0.25), run_of("big", 10, 0.123456),
        {"status": "failed", "model": "big", "model_title": "BIG", "interval": 5, "error": "oom"},
    ]  # fmt: skip
    for number, run in zip((2, 9, 10, 11), runs, strict=True):
        folder = tmp_path / f"{number}_cell"
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(run))
    return tmp_path


def test_rows_are_intervals_and_columns_models_in_the_sweeps_order(sweep):
    headings, rows = Results(read_runs(sweep)).grid()
    assert headings == ["interval", "images", "NET (3.47 M)", "BIG (3.47 M)"]
    assert rows == [["5", "18", "25.00", "failed"], ["10", "9", "70.00", "12.35"]]


def test_seeds_of_a_cell_become_mean_and_deviation():
    results = Results([run_of("net", 5, 0.6), run_of("net", 5, 0.8)])
    assert results.cell_text(5, "net") == "70.00 ± 14.14"  # |80 - 60| / sqrt(2)


def test_notes_tell_what_the_numbers_rest_on(sweep):
    notes = "\n".join(Results(read_runs(sweep)).notes())
    assert "10 test stacks of 9 clips" in notes and "selected on 4 val stacks" in notes
    assert "drawn" in notes and "random weights: no hub" in notes
    assert "failed: big, interval 5: oom" in notes


def test_selection_on_the_reported_clips_is_admitted():
    notes = Results([run_of("net", 5, reported_on="val")]).notes()
    assert "selected, and is reported, on the same clips" in notes[0]


def test_files_hold_the_table(sweep, capsys):
    write_report(sweep)
    markdown = (sweep / "results.md").read_text()
    assert "| 10 | 9 | 70.00 | 12.35 |" in markdown
    with open(sweep / "results.csv") as file:
        table = list(csv.DictReader(file))
    assert table[1]["NET (3.47 M)"] == "70.00"
    picture = cv2.imread(str(sweep / "confusion.png"))
    assert min(picture.shape[:2]) > 300 and picture.std() > 10
    assert "70.00" in capsys.readouterr().out


def test_command_line_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["report", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: no metrics\.json in"):
        main()
