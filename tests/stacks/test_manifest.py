"""The manifest: what is written is read back, type by type, and by any CSV reader."""

import csv
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from emotion.errors import UserError
from emotion.stacks.manifest import StackRow
from emotion.tables import read_rows, read_table, write_rows, write_table

PLAIN = StackRow(
    stack="stacks/Happy_0001_0002.tiff",
    clip="Happy_0001",
    segment=2,
    label="Happy",
    subject="",
    split="train",
    num_frames=75,
    num_faces=1,
    has_face="000111111111111000",
    face_frames=12,
    sampled_frames=15,
    fps=30000 / 1001,
    stack_digest="0e" * 32,
    landmarks_digest="f" * 64,
    blendshapes_digest="1" * 64,
)
AWKWARD = StackRow(
    stack='stacks/a, "b"/Glück 笑_0001.tiff',
    clip='a, "b"/Glück 笑',
    segment=1,
    label="Überraschung",
    subject='O\'Hara; "Æ",\nsecond line',
    split="val",
    num_frames=90,
    num_faces=4,
    has_face="0000000000000000000",
    face_frames=0,
    sampled_frames=18,
    fps=0.0,
    stack_digest="1" * 64,
    landmarks_digest="2" * 64,
    blendshapes_digest="3" * 64,
)


def test_landmarks_lie_beside_the_stack():
    assert PLAIN.landmarks == "landmarks/Happy_0001_0002.npy"
    assert PLAIN.blendshapes == "blendshapes/Happy_0001_0002.npy"
    assert AWKWARD.landmarks == 'landmarks/a, "b"/Glück 笑_0001.npy'
    assert (
        replace(PLAIN, stack="stacks/take.v2_0001.tiff").landmarks == "landmarks/take.v2_0001.npy"
    )


def test_rows_come_back_as_they_were(tmp_path: Path):
    path = tmp_path / "manifest.csv"
    write_rows(path, StackRow, [AWKWARD, PLAIN, AWKWARD])
    back = read_rows(path, StackRow, "make it")
    assert back == [AWKWARD, PLAIN, AWKWARD]
    for row in back:
        for field in fields(StackRow):
            assert type(getattr(row, field.name)) is type(getattr(PLAIN, field.name)), field.name


def test_any_reader_finds_a_column_for_every_attribute(tmp_path: Path):
    path = tmp_path / "manifest.csv"
    write_rows(path, StackRow, [PLAIN, AWKWARD])
    with open(path, newline="", encoding="utf-8") as file:
        header, first, second = csv.reader(file)
    assert header == [field.name for field in fields(StackRow)]
    assert dict(zip(header, first, strict=True))["has_face"] == "000111111111111000"
    assert dict(zip(header, first, strict=True))["segment"] == "2"
    assert dict(zip(header, second, strict=True))["clip"] == 'a, "b"/Glück 笑'


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("Happy_0001,2,Happy", "Happy_0001,two,Happy", ["line 2", "segment"]),
        ("12,15", "12.5,15", ["line 2", "face_frames"]),
        (",15,", ",", ["line 2"]),
        ("face_frames", "faces", ["face_frames"]),
        ("stack,clip", "clip", ["stack"]),
    ],
)
def test_damaged_manifest_is_refused_with_file_line_and_column(
    tmp_path: Path, old: str, new: str, named: list[str]
):
    path = tmp_path / "manifest.csv"
    write_rows(path, StackRow, [PLAIN])
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    with pytest.raises(UserError) as refusal:
        read_rows(path, StackRow, "make it")
    message = str(refusal.value)
    assert all(text in message for text in [str(path), *named]) and "\n" not in message


def test_missing_or_binary_manifest_is_refused_with_its_file(tmp_path: Path):
    path = tmp_path / "manifest.csv"
    with pytest.raises(UserError, match="manifest"):
        read_rows(path, StackRow, "make it")
    path.write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="manifest"):
        read_rows(path, StackRow, "make it")


def test_a_manifest_of_no_stacks_keeps_its_columns(tmp_path: Path):
    path = tmp_path / "manifest.csv"
    write_rows(path, StackRow, [])
    assert path.read_text().startswith("stack,clip,segment,label,subject,split,")
    assert read_rows(path, StackRow, "make it") == []


def test_crop_found_reads_a_letter_for_every_place():
    assert PLAIN.crop_found == [False] * 3 + [True] * 12 + [False] * 3


def test_an_interrupted_write_leaves_the_table_as_it_was(tmp_path: Path):
    path = tmp_path / "dropped.csv"
    write_table(path, ["clip", "reason"], [{"clip": "a", "reason": "dark, blurred"}])

    def rows_until_the_power_fails() -> Iterator[dict[str, str]]:
        yield {"clip": "b", "reason": "none"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(path, ["clip", "reason"], rows_until_the_power_fails())
    assert read_table(path) == [{"clip": "a", "reason": "dark, blurred"}]


def test_a_finished_write_leaves_one_file(tmp_path: Path):
    write_table(tmp_path / "dropped.csv", ["clip"], [])
    write_table(tmp_path / "dropped.csv", ["clip"], [{"clip": "a"}])
    assert [path.name for path in tmp_path.iterdir()] == ["dropped.csv"]
    assert read_table(tmp_path / "dropped.csv") == [{"clip": "a"}]
