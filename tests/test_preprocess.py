import csv
import shutil

import pytest

from preprocess import preprocess


@pytest.fixture
def run_preprocess(monkeypatch, tmp_path):
    """Call preprocess.py's entry in this process; returns the rows of manifest and dropped list."""

    def run(*arguments):
        paths = [f"paths.cache={tmp_path}/cache", f"paths.output={tmp_path}/out", "num_workers=1"]
        monkeypatch.setattr("sys.argv", ["preprocess.py", *arguments, *paths])
        preprocess()
        tables = []
        for name in ("manifest.csv", "dropped.csv"):
            (path,) = tmp_path.glob(f"cache/*/*/{name}")
            with open(path) as file:
                tables.append(list(csv.DictReader(file)))
        return tables

    return run


@pytest.fixture
def clips(tmp_path, demo_cache):
    """A folder with two good clips, in the seed's naming."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("Happy_0001.mp4", "Sad_0016.mp4"):
        source = name if name.startswith("Happy") else "Sad_0001.mp4"
        shutil.copy(demo_cache.root / source, folder / name)
    return folder


def test_the_seeds_data_set_is_split_by_its_ids(run_preprocess, clips):
    rows, dropped = run_preprocess("data=scrapping", f"data.root={clips}")
    assert [(r["clip"], r["label"], r["split"]) for r in rows] == [
        ("Happy_0001", "Happy", "train"), ("Sad_0016", "Sad", "val"),
    ]  # fmt: skip
    assert dropped == []


def test_a_class_with_no_clips_is_told(run_preprocess, clips, capsys):
    run_preprocess("data=scrapping", f"data.root={clips}")
    out = capsys.readouterr().out
    assert "class Anger has no stacks" in out and "class Happy has no stacks" not in out


def test_a_broken_clip_and_a_stray_name_cost_themselves_alone(run_preprocess, clips, capsys):
    (clips / "Happy_0002.mp4").write_text("this is no video")
    shutil.copy(clips / "Happy_0001.mp4", clips / "holiday.mp4")
    rows, dropped = run_preprocess("data=scrapping", f"data.root={clips}")
    assert len(rows) == 2
    assert {d["clip"] for d in dropped} == {"Happy_0002", "holiday"}
    out = capsys.readouterr().out
    assert "Happy_0002" in out and "no video, or damaged beyond reading" in out
    assert "holiday" in out and "outside the scheme" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=scrapping", "data.root=/nowhere"], "no folder /nowhere"),
        (["data=scrapping", "data.root={empty}"], "no video files in"),
        (["data=javanese"], "set data.root=DIR"),
        (["data=affectnet"], "no such option, data has: cremad, csv, demo, folders"),
        (["data=javanese", "data.root={clips}"], "none of the 2 video files"),
        (["data=scrapping", "data.root={clips}", "sampling.interval=7"], "does not divide"),
        (["data=scrapping", "data.root={clips}", "face.tracking=often"], "every_frame, sampled"),
        (["data=scrapping", "data.root={clips}", "face.margn=1"], "margn"),
    ],
)
def test_where_nothing_can_be_done_one_line_says_why(
    run_preprocess, clips, tmp_path, arguments, message
):
    (tmp_path / "empty").mkdir()
    arguments = [a.format(empty=tmp_path / "empty", clips=clips) for a in arguments]
    with pytest.raises(SystemExit) as caught:
        run_preprocess(*arguments)
    text = str(caught.value.code)
    assert text.startswith("error: ") and message in text and "\n" not in text


def test_nothing_but_broken_clips_is_an_error(run_preprocess, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "Happy_0001.mp4").write_text("this is no video")
    with pytest.raises(SystemExit, match="not one stack"):
        run_preprocess("data=scrapping", f"data.root={folder}")
