"""What file names and lists say: read, split, limited, and refused with the remedy."""

from pathlib import Path

import pytest

from emotion.clips.find import find_clips, limit_clips, named_clips, read_list
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
LISTED = Scheme(
    pattern=None,
    labels=LABELS,
    label_map={"angry": "Anger", "fear": None},
    split_by="subject",
    split={"val": ["bea"]},
)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def clip(label: str, split: str, subject: str = "") -> Clip:
    return Clip(Path("x.mp4"), "x", label, subject, split)


@pytest.mark.parametrize(
    ("name", "label", "split"),
    [
        ("Anger_0001.mp4", "Anger", "train"),
        ("Shock_0015.mov", "Shock", "train"),
        ("Shock_0016.mp4", "Shock", "val"),
        ("Happy_0020.MP4", "Happy", "val"),
        ("Sad_0021.avi", "Sad", "train"),
        ("Neutral_00018.mp4", "Neutral", "val"),
    ],
)
def test_seed_names_give_class_and_split(tmp_path: Path, name: str, label: str, split: str):
    path = tmp_path / name
    assert SEED.read(path, tmp_path) == Clip(path, path.stem, label, "", split)


@pytest.mark.parametrize(
    ("name", "label", "subject", "split"),
    [
        ("01-04-02_01.mp4", "Sad", "01", "train"),
        ("03-01-01_02.mp4", "Neutral", "03", "val"),
        ("08-01-01_02.mp4", "Neutral", "08", "val"),
        ("06-01-02_02.mp4", "Sad", "06", "test"),
    ],
)
def test_actors_names_give_class_subject_and_split(
    tmp_path: Path, name: str, label: str, subject: str, split: str
):
    path = tmp_path / name
    assert ACTORS.read(path, tmp_path) == Clip(path, path.stem, label, subject, split)


@pytest.mark.parametrize(
    ("scheme", "name", "reason"),
    [
        (ACTORS, "01-01-05_01.mp4", "label 05 is left out by data.label_map"),
        (ACTORS, "01-01-03_01.mp4", "label 03 is none of Anger, Happy, Neutral, Sad, Shock"),
        (SEED, "Fear_0001.mp4", "label Fear is none of Anger, Happy, Neutral, Sad, Shock"),
        (SEED, "happy_0001.mp4", "outside the scheme"),
        (SEED, "Happy_0001_b.mp4", "outside the scheme"),
        (SEED, "copy of Happy_0001.mp4", "outside the scheme"),
        (SEED, "more/Happy_0001.mp4", "outside the scheme"),
        (SEED, "Happy.mp4", "outside the scheme"),
    ],
)
def test_name_that_is_no_clip_is_dropped_with_the_reason(
    tmp_path: Path, scheme: Scheme, name: str, reason: str
):
    read = scheme.read(tmp_path / name, tmp_path)
    assert isinstance(read, Dropped)
    assert read.clip == name.removesuffix(".mp4")
    assert reason in read.reason


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
def test_split_takes_single_values_and_ranges(value: str, entries: list, expected: bool):
    assert matches(value, entries) is expected


def test_name_without_the_part_that_decides_the_split_is_train(tmp_path: Path):
    scheme = Scheme(
        pattern=r"(?P<label>[A-Z][a-z]+)(?:_(?P<id>\d+))?", labels=LABELS, split={"val": ["1-9"]}
    )
    assert scheme.read(tmp_path / "Happy_2.mp4", tmp_path).split == "val"
    assert scheme.read(tmp_path / "Happy.mp4", tmp_path).split == "train"


def test_clips_come_in_the_order_of_their_names_from_all_folders(tmp_path: Path):
    scheme = Scheme(pattern=r"(?:.*/)?(?P<label>[A-Z][a-z]+)_(?P<id>\d+)", labels=LABELS)
    touch(tmp_path, "b/Sad_0002.mp4", "a/Sad_0003.mp4", "Happy_0001.webm", "b/c/Sad_0001.mkv")
    clips, dropped = find_clips(tmp_path, scheme)
    assert [c.id for c in clips] == ["Happy_0001", "a/Sad_0003", "b/Sad_0002", "b/c/Sad_0001"]
    assert [c.path for c in clips[:2]] == [
        tmp_path / "Happy_0001.webm",
        tmp_path / "a" / "Sad_0003.mp4",
    ]
    assert dropped == []


def test_files_that_are_no_video_are_not_even_mentioned(tmp_path: Path):
    touch(tmp_path, "Happy_0001.mp4", "Happy_0002.txt", "Happy_0003", "Happy_0004.mp4.part")
    clips, dropped = find_clips(tmp_path, SEED)
    assert [c.id for c in clips] == ["Happy_0001"]
    assert dropped == []


def test_hidden_files_are_ignored(tmp_path: Path):
    touch(tmp_path, "Happy_0001.mp4", ".Happy_0002.mp4", ".Happy_0003.tmp.mp4", "._Happy_0001.mp4")
    clips, dropped = find_clips(tmp_path, SEED)
    assert [c.id for c in clips] == ["Happy_0001"]
    assert dropped == []


def test_upper_case_suffix_is_a_clip(tmp_path: Path):
    touch(tmp_path, "Happy_0001.MP4", "Sad_0001.Mov")
    assert [c.id for c in find_clips(tmp_path, SEED)[0]] == ["Happy_0001", "Sad_0001"]


def test_one_clip_in_two_formats_counts_once_and_the_other_is_named(tmp_path: Path):
    touch(tmp_path, "Happy_0001.mp4", "Happy_0001.avi", "Happy_0002.mp4")
    clips, dropped = find_clips(tmp_path, SEED)
    assert [c.path.name for c in clips] == ["Happy_0001.avi", "Happy_0002.mp4"]
    (other,) = dropped
    assert other.clip == "Happy_0001"
    assert "another suffix" in other.reason
    assert "Happy_0001.mp4" in other.detail


def test_every_name_that_is_no_clip_is_reported(tmp_path: Path):
    touch(tmp_path, "01-01-02_01.mp4", "01-01-05_01.mp4", "02-01-05_01.mp4", "notes.mp4")
    clips, dropped = find_clips(tmp_path, ACTORS)
    assert [c.id for c in clips] == ["01-01-02_01"]
    assert [d.clip for d in dropped] == ["01-01-05_01", "02-01-05_01", "notes"]
    assert dropped[0].reason == dropped[1].reason != dropped[2].reason


def test_limit_counts_each_class_in_each_split():
    clips = [clip(label, split) for label in ("Sad", "Happy") for split in ("train", "val") * 3]
    kept = limit_clips(clips, 2)
    assert [(c.label, c.split) for c in kept] == [
        *[("Sad", "train"), ("Sad", "val")] * 2,
        *[("Happy", "train"), ("Happy", "val")] * 2,
    ]
    assert limit_clips(clips, None) == clips


def test_limit_keeps_the_first_names(tmp_path: Path):
    touch(tmp_path, *[f"Happy_{n:04d}.mp4" for n in range(1, 31)], "Sad_0001.mp4")
    clips, _ = find_clips(tmp_path, SEED, max_per_class=2)
    assert [c.id for c in clips] == [
        "Happy_0001",
        "Happy_0002",
        "Happy_0016",
        "Happy_0017",
        "Sad_0001",
    ]


def test_missing_folder_is_named_with_the_key_that_sets_it(tmp_path: Path):
    with pytest.raises(UserError, match=r"no folder .*nowhere.*data\.root=DIR"):
        find_clips(tmp_path / "nowhere", SEED)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path):
    touch(tmp_path, "clips")
    with pytest.raises(UserError, match=r"no folder .*clips"):
        find_clips(tmp_path / "clips", SEED)


@pytest.mark.parametrize("names", [(), ("readme.txt", ".Happy_0001.mp4")])
def test_folder_without_videos_is_named_with_the_suffixes_looked_for(
    tmp_path: Path, names: tuple[str, ...]
):
    touch(tmp_path, *names)
    with pytest.raises(UserError, match=r"no video files in .*\.mp4.*data\.root=DIR") as refusal:
        find_clips(tmp_path, SEED)
    assert str(tmp_path) in str(refusal.value)


def test_folder_of_foreign_clips_is_told_the_first_name_and_the_scheme(tmp_path: Path):
    touch(tmp_path, "01-01-02_01.mp4", "01-01-03_01.mp4")
    with pytest.raises(UserError) as refusal:
        find_clips(tmp_path, SEED)
    message = str(refusal.value)
    assert "none of the 2 video files" in message
    assert "01-01-02_01" in message and SEED.pattern in message


def test_subject_in_two_splits_is_found_and_left_to_whoever_splits(tmp_path: Path):
    scheme = Scheme(
        pattern=r"(?P<subject>[a-z]+)_(?P<label>[A-Z][a-z]+)_(?P<id>\d+)",
        labels=LABELS,
        split={"val": ["9"], "test": ["8"]},
    )
    touch(tmp_path, "ann_Happy_1.mp4", "ann_Sad_9.mp4", "bea_Sad_9.mp4", "cleo_Sad_1.mp4")
    clips, _ = find_clips(tmp_path, scheme)
    assert find_torn((c.subject, c.split) for c in clips) == {"ann": ["train", "val"]}


def test_unknown_people_are_not_one_person():
    clips = [clip("Sad", "train"), clip("Sad", "val"), clip("Sad", "train", "ann")]
    assert find_torn((c.subject, c.split) for c in clips) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "(?P<label>"}, r"data\.pattern is not a regular expression"),
        ({"pattern": r"\w+_(?P<id>\d+)"}, r"data\.pattern has no group \(\?P<label>.*has: id"),
        ({"pattern": r"(?P<label>\w+)"}, r"data\.pattern has no group \(\?P<id>"),
        (
            {"pattern": r"(?P<label>\w+)_(?P<id>\d+)", "split_by": "subject"},
            r"data\.pattern has no group \(\?P<subject>.*has: label, id",
        ),
        (
            {"pattern": r"(?P<label>\w+)_(?P<id>\d+)", "split": {"valid": ["1"]}},
            r"data\.split.*valid.*train, val, test",
        ),
    ],
)
def test_scheme_that_cannot_work_is_refused_with_the_key(settings: dict, message: str):
    with pytest.raises(UserError, match=message):
        Scheme(labels=LABELS, **settings)


def test_split_value_that_yaml_has_read_as_a_number_is_refused():
    with pytest.raises(UserError, match=r"data\.split\.val: put 3 in quotes"):
        Scheme(pattern=r"(?P<label>\w)(?P<id>\d)", labels=LABELS, split={"val": [3]})


def test_hidden_folders_and_folders_named_as_clips_are_passed_over(tmp_path: Path):
    (tmp_path / ".trash").mkdir()
    for name in (".trash/Happy_0001.mp4", "Happy_0002.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "Happy_0003.mp4").mkdir()
    clips, dropped = find_clips(tmp_path, Scheme(r"(?P<label>[A-Z][a-z]+)_(?P<id>\d+)", LABELS))
    assert [clip.id for clip in clips] == ["Happy_0002"] and dropped == []


# Stills

STILLS = Scheme(r"(?P<label>[A-Z][a-z]+)/(?P<id>.+)", LABELS, kind="stills")


def test_only_files_of_the_kind_are_taken(tmp_path: Path):
    pictures = ["a.jpg", "b.JPEG", "c.png", "d.bmp", "e.WebP", "f.tif", "g.tiff"]
    touch(tmp_path, *(f"Happy/{name}" for name in [*pictures, "x.mp4", "y.gif", ".hidden.png"]))
    clips, dropped = find_clips(tmp_path, STILLS)
    assert [c.path.name for c in clips] == pictures and dropped == []
    assert [c.id for c in clips][:2] == ["Happy/a", "Happy/b"]
    clips, dropped = find_clips(tmp_path, Scheme(STILLS.pattern, LABELS))
    assert [c.path.name for c in clips] == ["x.mp4"] and dropped == []


@pytest.mark.parametrize(
    ("kind", "names", "message"),
    [
        (
            "stills",
            ["a.mp4", "b.MOV"],
            r"no pictures in .*\.png.*; data\.kind=clips takes the 2 vid",
        ),
        ("stills", ["a.txt"], r"no pictures in .* put the stills there, or set data\.root=DIR$"),
        (
            "clips",
            ["a.jpg"],
            r"no video files in .*\.mp4.*; data\.kind=stills takes the 1 pictures",
        ),
    ],
)
def test_folder_of_the_other_kind_is_told_the_key(
    tmp_path: Path, kind: str, names: list[str], message: str
):
    touch(tmp_path, *(f"Happy/{name}" for name in names))
    with pytest.raises(UserError, match=message):
        find_clips(tmp_path, Scheme(STILLS.pattern, LABELS, kind=kind))


def test_kind_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"data\.kind=photos: it is one of clips, stills"):
        Scheme(STILLS.pattern, LABELS, kind="photos")


def test_a_list_names_files_of_the_kind(tmp_path: Path):
    rows = "path,label\n1.mp4,Sad\n2.PNG,Sad\n3.take,Sad\n"
    path = write_list(tmp_path, rows, "1.mp4", "2.PNG", "3.take")
    clips, (other,) = find_clips(tmp_path, Scheme(None, LABELS), None, path)
    assert [c.id for c in clips] == ["1", "3"]  # any other suffix may be a video's
    assert (other.clip, other.detail) == ("2.PNG", "line 3")
    assert other.reason == "clips.csv lists a picture, and data.kind=stills takes those"
    clips, others = find_clips(tmp_path, Scheme(None, LABELS, kind="stills"), None, path)
    assert [c.id for c in clips] == ["2"] and [o.clip for o in others] == ["1.mp4", "3.take"]
    assert "no picture by its suffix, and data.kind=clips takes videos" in others[0].reason


def test_pictures_are_answered_where_they_are_named_or_alone(tmp_path: Path):
    touch(tmp_path, "both/a.mp4", "both/cover.jpg", "alone/b.png", "alone/a.JPG", "none/a.txt")
    assert [p.name for p in named_clips(str(tmp_path / "both"))] == ["a.mp4"]
    assert [p.name for p in named_clips(str(tmp_path / "alone"))] == ["a.JPG", "b.png"]
    assert [p.name for p in named_clips(str(tmp_path / "both" / "*.jpg"))] == ["cover.jpg"]
    with pytest.raises(UserError, match=r"no video files or pictures in that folder.*\.png"):
        named_clips(str(tmp_path / "none"))


# Lists


def write_list(folder: Path, text: str, *clips: str, encoding: str = "utf-8") -> Path:
    """Write a list, and empty files for the clips that it shall find."""
    for name in clips:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    path = folder / "clips.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_list_gives_class_subject_and_split(tmp_path: Path, encoding: str):
    path = write_list(
        tmp_path,
        "path,label,subject,split\n"
        "b/zoë 1.mp4,Happy,ann,\n"
        '"a, take 2.mov",angry, bea ,\n'
        "\n"
        "./b/../c.avi,Sad,cleo,test\n",
        *("b/zoë 1.mp4", "a, take 2.mov", "c.avi"),
        encoding=encoding,
    )
    clips, dropped = read_list(path, tmp_path, LISTED)
    assert clips == [
        Clip(tmp_path / "b" / "zoë 1.mp4", "b/zoë 1", "Happy", "ann", "train"),
        Clip(tmp_path / "a, take 2.mov", "a, take 2", "Anger", "bea", "val"),
        Clip(tmp_path / "c.avi", "c", "Sad", "cleo", "test"),
    ]
    assert dropped == []


def test_list_needs_only_path_and_label_in_any_order(tmp_path: Path):
    path = write_list(tmp_path, "label,note,path\r\nSad,-,1.mp4\r\nHappy,-,2.mp4", "1.mp4", "2.mp4")
    scheme = Scheme(None, LABELS, split_by="id", split={"val": ["2"]})
    clips, _ = read_list(path, tmp_path, scheme)
    assert [(c.id, c.label, c.subject, c.split) for c in clips] == [
        ("1", "Sad", "", "train"),
        ("2", "Happy", "", "val"),
    ]


def test_row_that_is_no_clip_is_dropped_with_reason_and_line(tmp_path: Path):
    path = write_list(
        tmp_path,
        "path,label\n1.mp4,Sad\ngone.mp4,Sad\n1.mp4,Happy\n2.mp4,fear\n3.mp4,bored\n4.mp4\n,Sad\n.,Sad\n",
        *(f"{n}.mp4" for n in range(1, 5)),
    )  # fmt: skip
    clips, dropped = find_clips(tmp_path, Scheme(None, LABELS, {"fear": None}), None, path)
    assert [(c.id, c.label) for c in clips] == [("1", "Sad")]
    assert [(d.clip, d.detail) for d in dropped] == [
        ("gone.mp4", "line 3"),
        ("1.mp4", "line 4, first 2"),
        ("2", ""),
        ("3", ""),
        ("4", ""),
        ("no path", "line 8"),
        (".", "line 9"),
    ]
    reasons = [d.reason for d in dropped]
    assert "not there" in reasons[0] and "before it" in reasons[1]
    assert "left out by data.label_map" in reasons[2] and "bored is none of" in reasons[3]


def test_clip_outside_the_root_cannot_put_its_stacks_outside_the_cache(tmp_path: Path):
    root = tmp_path / "root"
    rows = f"path,label\n../up.mp4,Sad\n{tmp_path}/x/../far/1.mp4,Sad\n{root}/1.mp4,Sad\n"
    path = write_list(root, rows, "1.mp4", "../up.mp4", "../far/1.mp4")
    clips, dropped = read_list(path, root, Scheme(None, LABELS))
    outside = f"outside{tmp_path.as_posix()}"
    assert [c.id for c in clips] == [f"{outside}/up", f"{outside}/far/1", "1"]
    assert [c.path for c in clips] == [
        tmp_path / "up.mp4",
        tmp_path / "far" / "1.mp4",
        root / "1.mp4",
    ]
    assert dropped == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no column label and no column path.*path,label"),
        ("path,label\n", r"no rows.*path,label"),
        ("file,label\n1.mp4,Sad\n", r"no column path in its first line \(file,label\).*path,label"),
        ("path;label\n1.mp4;Sad\n", r"no column label and no column path.*\(path;label\)"),
        ("path,label\ngone.mp4,Sad\n", r"none of the 1 rows.*gone\.mp4.*not there"),
        ("path,label,split\n1.mp4,Sad,dev\n", r"line 2: split dev is none of train, val, test"),
    ],
)
def test_list_that_cannot_work_is_refused_in_a_line(tmp_path: Path, text: str, message: str):
    path = write_list(tmp_path, text, "1.mp4", "2.mp4")
    with pytest.raises(UserError, match=message) as refusal:
        find_clips(tmp_path, Scheme(None, LABELS), None, path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_list_that_is_missing_or_no_text_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"no list .*clips\.csv.*path,label.*data\.list=FILE"):
        find_clips(tmp_path, LISTED, None, tmp_path / "clips.csv")
    (tmp_path / "clips.csv").write_bytes("path,label\nzoë.mp4,Sad\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"clips\.csv can't be read .*in UTF-8"):
        find_clips(tmp_path, LISTED, None, tmp_path / "clips.csv")


def test_split_by_a_column_that_the_list_lacks_is_refused(tmp_path: Path):
    path = write_list(tmp_path, "path,label\n1.mp4,Sad\n", "1.mp4")
    with pytest.raises(UserError, match=r"data\.split\.by=subject is no column of .*path, label"):
        find_clips(tmp_path, LISTED, None, path)
