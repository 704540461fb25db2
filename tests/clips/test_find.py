"""Finding clips in folders and lists."""

from pathlib import Path

import pytest

from emotion.clips.find import find_clips, limit_clips, named_clips, read_list
from emotion.clips.naming import Clip, Scheme
from emotion.errors import UserError

LABELS = ("Anger", "Happy", "Neutral", "Sad", "Shock")
PATTERN = r"(?P<label>[A-Z][a-z]+)_(?P<id>\d+)"
SEED = Scheme(PATTERN, LABELS, split={"val": ["0016-0020"]})
STILLS = Scheme(r"(?P<label>[A-Z][a-z]+)/(?P<id>.+)", LABELS, kind="stills")
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


# Folders


def test_clips_of_all_folders_are_sorted_by_name(tmp_path: Path):
    touch(tmp_path, "b/Sad_0002.mp4", "a/Sad_0003.MP4", "Happy_0001.webm", "b/c/Sad_0001.mkv")
    clips, dropped = find_clips(tmp_path, Scheme(f"(?:.*/)?{PATTERN}", LABELS))
    assert [c.id for c in clips] == ["Happy_0001", "a/Sad_0003", "b/Sad_0002", "b/c/Sad_0001"]
    assert clips[1].path == tmp_path / "a" / "Sad_0003.MP4"
    assert dropped == []


def test_hidden_files_and_other_suffixes_are_ignored(tmp_path: Path):
    touch(tmp_path, "Happy_0001.mp4", "Happy_0002.txt", "Happy_0003", "Happy_0004.mp4.part")
    touch(tmp_path, ".Happy_0005.mp4", "._Happy_0001.mp4", ".trash/Happy_0006.mp4")
    (tmp_path / "Happy_0007.mp4").mkdir()  # which cutting names
    clips, dropped = find_clips(tmp_path, SEED)
    assert [c.id for c in clips] == ["Happy_0001", "Happy_0007"] and dropped == []


def test_of_one_clip_in_two_formats_the_other_is_dropped_by_name(tmp_path: Path):
    touch(tmp_path, "Happy_0001.mp4", "Happy_0001.avi", "Happy_0002.mp4", "notes.mp4")
    clips, (other, notes) = find_clips(tmp_path, SEED)
    assert [c.path.name for c in clips] == ["Happy_0001.avi", "Happy_0002.mp4"]
    assert other.clip == "Happy_0001" and "Happy_0001.mp4" in other.detail
    assert notes.clip == "notes"


def test_limit_keeps_the_first_clips_of_each_class_in_each_split(tmp_path: Path):
    touch(tmp_path, *[f"Happy_{n:04d}.mp4" for n in range(1, 31)], "Sad_0001.mp4")
    clips, _ = find_clips(tmp_path, SEED, max_per_class=2)
    assert [(c.id, c.split) for c in clips] == [
        ("Happy_0001", "train"),
        ("Happy_0002", "train"),
        ("Happy_0016", "val"),
        ("Happy_0017", "val"),
        ("Sad_0001", "train"),
    ]
    assert limit_clips(clips, None) == clips


def test_only_files_of_the_kind_are_used(tmp_path: Path):
    pictures = ["a.jpg", "b.JPEG", "c.png", "d.bmp", "e.WebP", "f.tif", "g.tiff"]
    touch(tmp_path, *(f"Happy/{name}" for name in [*pictures, "x.mp4", "y.gif", ".hidden.png"]))
    clips, dropped = find_clips(tmp_path, STILLS)
    assert [c.path.name for c in clips] == pictures and dropped == []
    assert [c.id for c in clips][:2] == ["Happy/a", "Happy/b"]
    clips, dropped = find_clips(tmp_path, Scheme(STILLS.pattern, LABELS))
    assert [c.path.name for c in clips] == ["x.mp4"] and dropped == []


@pytest.mark.parametrize(
    ("kind", "names", "keys"),
    [
        ("clips", None, ["nowhere", "data.root"]),
        ("clips", [], [".mp4", "data.root"]),
        ("clips", ["readme.txt", ".Happy_0001.mp4"], [".mp4", "data.root"]),
        ("clips", ["Happy/a.jpg"], [".mp4", "data.root", "data.kind=stills"]),
        ("stills", ["a.txt"], [".png", "data.root"]),
        ("stills", ["Happy/a.mp4"], [".png", "data.root", "data.kind=clips"]),
        ("clips", ["01-02_01.mp4", "01-03_01.mp4"], ["01-02_01", "data.pattern"]),
    ],
)
def test_folder_without_clips_is_refused_by_path_and_key(
    tmp_path: Path, kind: str, names: list[str] | None, keys: list[str]
):
    folder = tmp_path if names is not None else tmp_path / "nowhere"
    touch(tmp_path, *names or [])
    with pytest.raises(UserError) as refusal:
        find_clips(folder, Scheme(STILLS.pattern, LABELS, kind=kind))
    message = str(refusal.value)
    assert str(folder) in message and "\n" not in message
    assert all(key in message for key in keys)
    assert ("data.kind=" in message) == any("data.kind=" in key for key in keys)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path):
    touch(tmp_path, "clips")
    with pytest.raises(UserError, match=r"data\.root"):
        find_clips(tmp_path / "clips", SEED)


def test_named_folder_gives_videos_or_else_pictures(tmp_path: Path):
    touch(tmp_path, "both/a.mp4", "both/cover.jpg", "alone/b.png", "alone/a.JPG", "none/a.txt")
    assert [p.name for p in named_clips(str(tmp_path / "both"))] == ["a.mp4"]
    assert [p.name for p in named_clips(str(tmp_path / "alone"))] == ["a.JPG", "b.png"]
    assert [p.name for p in named_clips(str(tmp_path / "both" / "*.jpg"))] == ["cover.jpg"]
    for nothing in (tmp_path / "none", tmp_path / "no*where"):
        with pytest.raises(UserError, match=f"clips={nothing.parent}"):
            named_clips(str(nothing))


# Lists


def write_list(folder: Path, text: str, *clips: str, encoding: str = "utf-8") -> Path:
    """Write a list, and empty files in place of its clips."""
    path = touch(folder, *clips) / "clips.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_list_gives_label_subject_and_split(tmp_path: Path, encoding: str):
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
    clips, _ = read_list(path, tmp_path, Scheme(None, LABELS, split={"val": ["2"]}))
    assert [(c.id, c.label, c.subject, c.split) for c in clips] == [
        ("1", "Sad", "", "train"),
        ("2", "Happy", "", "val"),
    ]


def test_rows_without_a_split_are_train_only_if_others_have_one(tmp_path: Path):
    clips = ("1.mp4", "2.mp4")
    path = write_list(tmp_path, "path,label,split\n1.mp4,Sad,\n2.mp4,Sad,test\n", *clips)
    assert [c.split for c in read_list(path, tmp_path, Scheme(None, LABELS))[0]] == [
        "train",
        "test",
    ]
    path = write_list(tmp_path, "path,label,split\n1.mp4,Sad,\n2.mp4,Sad,\n", *clips)
    assert [c.split for c in read_list(path, tmp_path, Scheme(None, LABELS))[0]] == ["", ""]


def test_other_row_is_dropped_with_its_line(tmp_path: Path):
    path = write_list(
        tmp_path,
        "path,label\n1.mp4,Sad\ngone.mp4,Sad\n1.mp4,Happy\n2.mp4,fear\n3.mp4,bored\n4.mp4\n,Sad\n.,Sad\n",
        *(f"{n}.mp4" for n in range(1, 5)),
    )  # fmt: skip
    clips, dropped = find_clips(tmp_path, Scheme(None, LABELS, {"fear": None}), None, path)
    assert [(c.id, c.label) for c in clips] == [("1", "Sad")]
    assert [(d.clip, d.detail) for d in dropped] == [
        ("gone.mp4", "line 3"),
        ("1.mp4", "line 4"),
        ("2", ""),
        ("3", ""),
        ("4", ""),
        ("no path", "line 8"),
        (".", "line 9"),
    ]
    reasons = [d.reason for d in dropped]
    assert all("clips.csv" in reasons[i] for i in (0, 1, 5, 6))
    assert "data.label_map" in reasons[2] and "data.labels" in reasons[3]


def test_list_drops_files_of_the_other_kind(tmp_path: Path):
    rows = "path,label\n1.mp4,Sad\n2.PNG,Sad\n3.take,Sad\n"
    path = write_list(tmp_path, rows, "1.mp4", "2.PNG", "3.take")
    clips, (other,) = find_clips(tmp_path, Scheme(None, LABELS), None, path)
    assert [c.id for c in clips] == ["1", "3"]  # any other suffix may be a video's
    assert (other.clip, other.detail) == ("2.PNG", "line 3") and "data.kind=stills" in other.reason
    clips, others = find_clips(tmp_path, Scheme(None, LABELS, kind="stills"), None, path)
    assert [c.id for c in clips] == ["2"] and [o.clip for o in others] == ["1.mp4", "3.take"]
    assert "data.kind=clips" in others[0].reason


def test_id_of_a_clip_outside_the_root_stays_inside_the_cache(tmp_path: Path):
    root = tmp_path / "root"
    rows = f"path,label\n../up.mp4,Sad\n{tmp_path}/x/../far/1.mp4,Sad\n{root}/1.mp4,Sad\n"
    path = write_list(root, rows, "1.mp4", "../up.mp4", "../far/1.mp4")
    clips, dropped = read_list(path, root, Scheme(None, LABELS))
    outside = f"outside{tmp_path.as_posix()}"
    assert [(c.id, c.path) for c in clips] == [
        (f"{outside}/up", tmp_path / "up.mp4"),
        (f"{outside}/far/1", tmp_path / "far" / "1.mp4"),
        ("1", root / "1.mp4"),
    ]
    assert dropped == []


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", ["label, path", "path,label"]),
        ("path,label\n", ["path,label"]),
        ("file,label\n1.mp4,Sad\n", ["column path", "(file,label)"]),
        ("path;label\n1.mp4;Sad\n", ["label, path", "(path;label)"]),
        ("path,label\ngone.mp4,Sad\n", ["gone.mp4"]),
        ("path,label,split\n1.mp4,Sad,dev\n", ["line 2", "dev", "train, val, test"]),
        ("path,label\nzoë.mp4,Sad\n", ["UTF-8"]),  # written as Latin-1
    ],
)
def test_invalid_list_is_refused_in_one_line(tmp_path: Path, text: str, keys: list[str]):
    encoding = "latin-1" if "ë" in text else "utf-8"
    path = write_list(tmp_path, text, "1.mp4", "2.mp4", encoding=encoding)
    with pytest.raises(UserError) as refusal:
        find_clips(tmp_path, Scheme(None, LABELS), None, path)
    message = str(refusal.value)
    assert str(path) in message and "\n" not in message
    assert all(key in message for key in keys)


def test_missing_list_or_column_is_refused_by_key(tmp_path: Path):
    with pytest.raises(UserError, match=r"clips\.csv.*data\.list"):
        find_clips(tmp_path, LISTED, None, tmp_path / "clips.csv")
    path = write_list(tmp_path, "path,label\n1.mp4,Sad\n", "1.mp4")
    with pytest.raises(UserError, match=r"data\.split\.by.*path, label.*subject"):
        find_clips(tmp_path, LISTED, None, path)
