"""Reading class, subject and split from names, and refusing invalid patterns."""

from dataclasses import replace
from pathlib import Path

import pytest

from emotion.clips.naming import Clip, Dropped, Scheme, find_torn, matches
from emotion.errors import UserError

LABELS = ("Anger", "Happy", "Neutral", "Sad", "Shock")
SEED = Scheme(
    pattern=r"(?P<label>[A-Z][a-z]+)_(?P<id>\d+)", labels=LABELS, split={"val": ["0016-0020"]}
)
ACTORS = Scheme(
    pattern=r"(?P<subject>\d\d)-(?P<sentence>\d\d)-(?P<label>\d\d)_(?P<take>\d\d)",
    labels=LABELS,
    label_map={"01": "Neutral", "02": "Sad", "05": None},
    split_by="subject",
    split={"val": ["03", "08"], "test": ["06"]},
)


def test_values_of_the_split_that_no_clip_has_are_found():
    clips = [ACTORS.read(Path(f"{who}-01-02_01.mp4"), Path()) for who in ("03", "05", "06")]
    assert list(ACTORS.unused(clips)) == [("val", "08", ["03", "05", "06"])]
    listed = replace(ACTORS, pattern=None)
    assert list(listed.unused(clips)) == [("val", "08", ["03", "05", "06"])]
    assert list(replace(listed, split_by="studio").unused(clips)) == []  # no clip says its studio


@pytest.mark.parametrize(
    ("scheme", "name", "label", "subject", "split"),
    [
        (SEED, "Anger_0001.mp4", "Anger", "", "train"),
        (SEED, "Shock_0015.mov", "Shock", "", "train"),
        (SEED, "Shock_0016.mp4", "Shock", "", "val"),
        (SEED, "Happy_0020.MP4", "Happy", "", "val"),
        (SEED, "Sad_0021.avi", "Sad", "", "train"),
        (SEED, "Neutral_00018.mp4", "Neutral", "", "val"),
        (ACTORS, "01-04-02_01.mp4", "Sad", "01", "train"),
        (ACTORS, "03-01-01_02.mp4", "Neutral", "03", "val"),
        (ACTORS, "08-01-01_02.mp4", "Neutral", "08", "val"),
        (ACTORS, "06-01-02_02.mp4", "Sad", "06", "test"),
    ],
)
def test_name_gives_label_subject_and_split(
    tmp_path: Path, scheme: Scheme, name: str, label: str, subject: str, split: str
):
    path = tmp_path / name
    assert scheme.read(path, tmp_path) == Clip(path, path.stem, label, subject, split)


@pytest.mark.parametrize(
    ("scheme", "name", "keys"),
    [
        (ACTORS, "01-01-05_01.mp4", ["05", "data.label_map"]),
        (ACTORS, "01-01-03_01.mp4", ["03", "data.labels", "data.label_map", "Shock"]),
        (SEED, "Fear_0001.mp4", ["Fear", "data.labels", "data.label_map"]),
        (SEED, "happy_0001.mp4", ["data.pattern"]),
        (SEED, "Happy_0001_b.mp4", ["data.pattern"]),
        (SEED, "copy of Happy_0001.mp4", ["data.pattern"]),
        (SEED, "more/Happy_0001.mp4", ["data.pattern"]),
        (SEED, "Happy.mp4", ["data.pattern"]),
    ],
)
def test_other_name_is_dropped_and_the_reason_names_the_key(
    tmp_path: Path, scheme: Scheme, name: str, keys: list[str]
):
    read = scheme.read(tmp_path / name, tmp_path)
    assert isinstance(read, Dropped) and read.clip == name.removesuffix(".mp4")
    assert all(key in read.reason for key in keys)


@pytest.mark.parametrize(
    ("value", "entries", "expected"),
    [
        ("0016", ["0016-0020"], True),
        ("0020", ["0016-0020"], True),
        ("0015", ["0016-0020"], False),
        ("0021", ["0016-0020"], False),
        ("17", ["0016-0020"], True),
        ("03", ["01", "03"], True),
        ("3", ["03"], False),
        ("a-c", ["a-c"], True),
        ("b", ["a-c"], False),
        ("b", ["1-9"], False),
        ("5", ["1-3", "5-7"], True),
        ("5", [], False),
    ],
)
def test_split_accepts_single_values_and_ranges(value: str, entries: list, expected: bool):
    assert matches(value, entries) is expected


def test_name_without_the_splitting_group_is_train(tmp_path: Path):
    pattern = r"(?P<label>[A-Z][a-z]+)(?:_(?P<id>\d+))?"
    scheme = Scheme(pattern=pattern, labels=LABELS, split={"val": ["1-9"]})
    assert scheme.read(tmp_path / "Happy_2.mp4", tmp_path).split == "val"
    assert scheme.read(tmp_path / "Happy.mp4", tmp_path).split == "train"


def test_scheme_without_values_for_a_split_leaves_the_split_empty(tmp_path: Path):
    scheme = Scheme(SEED.pattern, LABELS, split={"val": [], "test": []})
    assert scheme.read(tmp_path / "Happy_0016.mp4", tmp_path).split == ""


def test_only_known_subjects_can_be_in_two_splits():
    placed = [("", "train"), ("", "val"), ("ann", "train"), ("bea", "val"), ("ann", "test")]
    assert find_torn(placed) == {"ann": ["test", "train"]}


SPLIT = {"split": {"val": ["1"]}}


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({"pattern": "(?P<label>"}, ["data.pattern"]),
        ({"pattern": r"\w+_(?P<id>\d+)"}, ["data.pattern", "?P<label>", "id"]),
        ({"pattern": r"(?P<label>\w+)", **SPLIT}, ["data.pattern", "?P<id>"]),
        (
            {"pattern": r"(?P<label>\w+)_(?P<id>\d+)", "split_by": "subject", **SPLIT},
            ["data.pattern", "?P<subject>"],
        ),
    ],
)
def test_invalid_pattern_is_refused_by_key(settings: dict, keys: list[str]):
    with pytest.raises(UserError) as refusal:
        Scheme(labels=LABELS, **settings)
    assert all(key in str(refusal.value) for key in keys)
