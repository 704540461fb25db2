"""What a run came to: counts by hand, and every dropped clip named with its reason."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile

from emotion.clips.naming import Clip, Dropped, Scheme
from emotion.stacks.build_report import (
    MAX_NAMES,
    class_counts,
    count_dropped,
    describe_lost,
    report,
)
from emotion.stacks.manifest import StackRow

LABELS = ("Happy", "Sad", "Shock")
SCHEME = Scheme(r"(?P<label>\w+)_(?P<id>\d+)", LABELS, split={"val": ["2-3"], "test": ["4", "7-9"]})


def clip(clip_id: str) -> Clip:
    return Clip(Path(f"/clips/{clip_id}.mp4"), clip_id, clip_id.split("_")[0], "", "train")


def row(clip_id: str, segment: int, faces: int, sampled: int, num_faces: int = 1) -> StackRow:
    return StackRow(
        stack=f"stacks/{clip_id}_{segment:04d}.tiff",
        clip=clip_id,
        segment=segment,
        label=clip_id.split("_")[0],
        subject="",
        split="train",
        num_frames=5 * sampled,
        num_faces=num_faces,
        has_face=("1" * faces).ljust(18, "0"),
        face_frames=faces,
        sampled_frames=sampled,
        fps=30.0,
        stack_digest="",
        landmarks_digest="",
        blendshapes_digest="",
    )


CLIPS = [clip(clip_id) for clip_id in ("Happy_1", "Happy_2", "Happy_3", "Sad_1", "Sad_2")]
ROWS = [row("Happy_1", 1, 18, 18), row("Happy_1", 2, 12, 16, 3), row("Sad_1", 1, 17, 18)]
DROPPED = [
    Dropped("Happy_1", "too short", "40 frames", segment=3),
    Dropped("Happy_2", "the file is empty"),
    Dropped("Happy_3", "no face", "in 0 of 18", segment=1),
    Dropped("Sad_2", "the file is empty"),
    Dropped("holiday", "outside the scheme"),
    Dropped("Sad_1", "a clip of the same name is taken", "Sad_1.mov, not Sad_1.mp4"),
]


def test_classes_are_counted():
    columns = ["clips", "without stack", "segments", "stacks", "several faces"]
    columns += ["sampled frames", "no face", "with face"]
    table = class_counts(LABELS, CLIPS, ROWS, DROPPED)
    assert [counts["class"] for counts in table] == list(LABELS)
    assert [[counts[column] for column in columns] for counts in table] == [
        # segments: two stacks, a short tail, and the one of Happy_3; 18 + 16 frames, 4 without
        [3, 2, 4, 2, 1, 34, 4, "88.2%"],
        [2, 1, 1, 1, 0, 18, 1, "94.4%"],
        [0, 0, 0, 0, 0, 0, 0, "-"],
    ]


def test_a_clip_is_lost_once_and_segments_count_only_beside_stacks():
    counted = count_dropped(
        [
            *DROPPED,
            Dropped("Happy_4", "no face", "in 0 of 18", segment=1),  # lost: its first reason counts
            Dropped("Happy_4", "too short", "40 frames", segment=2),
        ],
        ROWS,
    )
    assert [(lost.reason, lost.names, lost.segments) for lost in counted] == [
        ("too short", [], 1),
        ("the file is empty", ["Happy_2", "Sad_2"], 0),
        ("no face", ["Happy_3 (in 0 of 18)", "Happy_4 (in 0 of 18)"], 0),
        ("outside the scheme", ["holiday"], 0),
        ("a clip of the same name is taken", ["Sad_1 (Sad_1.mov, not Sad_1.mp4)"], 0),
    ]
    assert [lost.clips for lost in counted] == [0, 2, 2, 1, 1]


def test_report_names_and_counts_what_count_dropped_does():
    text = report(class_counts(LABELS, CLIPS, ROWS, DROPPED), ROWS, DROPPED, CLIPS, SCHEME)
    lines = text.splitlines()
    for lost in count_dropped(DROPPED, ROWS):
        if lost.names:
            (line,) = (x for x in lines if lost.reason in x and f" {lost.clips} clip" in x)
            assert all(name in line for name in lost.names)
        if lost.segments:
            assert any(lost.reason in x and f" {lost.segments} segment" in x for x in lines)


def test_class_without_stacks_is_warned_about_and_no_other():
    text = report(class_counts(LABELS, CLIPS, ROWS, DROPPED), ROWS, DROPPED, CLIPS, SCHEME)
    assert "warning: class Shock has no stacks" in text
    for label in ("Happy", "Sad"):
        assert f"class {label} has no stacks" not in text


def test_a_name_in_the_split_that_no_clip_has_is_warned_about_and_no_other():
    text = report(class_counts(LABELS, CLIPS, ROWS, DROPPED), ROWS, DROPPED, CLIPS, SCHEME)
    assert [line for line in text.splitlines() if "data.split" in line] == [
        "warning: data.split.test lists 4, and no clip has this id",
        "warning: data.split.test lists 7-9, and no clip has this id",
    ]


@pytest.mark.parametrize(("number", "more"), [(MAX_NAMES, ""), (MAX_NAMES + 2, " and 2 more")])
def test_of_very_many_dropped_clips_the_first_are_named(number: int, more: str):
    (line,) = describe_lost(
        count_dropped([Dropped(f"clip{i:03d}", "no face") for i in range(number)], [])
    )
    assert f" {number} clips" in line and "clip000, clip001, " in line
    assert line.count("clip0") == MAX_NAMES and (more in line)
    assert ("dropped.csv" in line) == bool(more)


@pytest.mark.slow
def test_report_counts_the_frames_without_a_face_of_each_class(
    cache_of: Callable, shared_data: Path, tmp_path: Path
):
    """Of the golden clips, Happy and Neutral open with black frames and the others don't."""
    root = tmp_path / "clips"
    root.mkdir()
    clips = {
        "Happy": "01-02-03_01", "Anger": "06-02-06_01", "Sad": "02-01-02_01",
        "Shock": "07-01-04_01", "Neutral": "03-01-01_01",
    }  # fmt: skip
    for label, name in clips.items():
        (root / f"{label}_0001.mp4").symlink_to(shared_data / "javanese" / f"{name}.mp4")
    cache = cache_of(root)
    cache.build()
    with open(cache.directory / "report.csv", encoding="utf-8") as file:
        table = {row["class"]: row for row in csv.DictReader(file)}
    # images without a face in the golden stacks are black
    for label in clips:
        (path,) = (shared_data / "golden").glob(f"{label}_*.tiff")
        sampled = int(table[label]["sampled frames"])
        golden = tifffile.imread(path).squeeze()[:sampled]
        black = sum(image.max() == 0 for image in golden)
        assert table[label]["stacks"] == "1"
        assert int(table[label]["no face"]) == black
