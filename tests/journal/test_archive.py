"""Exports are imported to the same state; hostile archives are refused and leave nothing."""

import json
import stat
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from emotion.evaluation.starter import starter_model
from emotion.inference.recognizer import EmotionRecognizer
from emotion.journal.journal import Journal
from emotion.journal.schema import Entry, Person
from tests.journal.waiting import all_entries, analyzed, finished


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Iterator[Journal]:
    """Make a journal of two people."""
    with Journal.open(tmp_path_factory.mktemp("source") / "journal") as journal:
        ann, bea = journal.add_person("Ann <b>"), journal.add_person("../Bea")
        moments = datetime(2026, 1, 2, 3), datetime(1970, 1, 2, 3)
        first = receive(journal, ann, clips / "Happy_1.mp4", moments[0], '=1+1\n"<script>')
        receive(journal, ann, clips / "Sad_2.mp4", moments[1], tags=["one", "two"])
        receive(journal, bea, clips / "Shock_4.mp4")
        analyzed(journal)
        journal.correct(first.id, "Anger")
        journal.forget_profile(bea.id)
        analyzed(journal)
        yield journal


def receive(journal: Journal, person: Person, clip: Path, *details, **options) -> Entry:
    with clip.open("rb") as file:
        return journal.receive(person.id, file, clip.name, *details, **options)


@pytest.fixture(scope="module")
def archive(source: Journal) -> Path:
    """Export it."""
    job = finished(source, source.start_export())
    assert job.state == "done", job.message
    return job.path


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in ("clips", "covers")
        for path in (root / folder).iterdir()
    }


def test_an_export_is_imported_to_the_same_state(source: Journal, archive: Path, tmp_path: Path):
    with Journal.open(tmp_path / "other") as other:
        other.add_person("without entries")
        job = finished(other, other.start_import(archive))
        assert (job.state, job.message) == ("done", "3 entries")
        assert [each.name for each in other.people()] == ["Ann <b>", "../Bea"]
        assert [each.model_dump() for each in all_entries(other)] == [
            each.model_dump() | {"version": 1} for each in all_entries(source)
        ]
        for person in source.people():
            assert other.profile_summary(person.id) == source.profile_summary(person.id)
        first, again = (finished(other, other.start_export()) for _ in range(2))
        assert not first.path.exists() and other.job(first.id).path is None  # the latest is kept
        assert again.path.read_bytes() == archive.read_bytes()
        assert tree(tmp_path / "other") == tree(source.folder.root)
        assert finished(other, other.start_import(archive)).state == "failed"  # it is not empty
    with Journal.open(tmp_path / "other") as other:
        assert other.problems == [] and len(all_entries(other)) == 3


def test_the_profile_is_one_of_predict(source: Journal, archive: Path, tmp_path: Path):
    ann, bea = source.people()
    for person, corrected, history in ((ann, 1, 1), (bea, 0, 0)):
        with zipfile.ZipFile(archive) as file:
            (tmp_path / "me.json").write_bytes(file.read(f"profiles/{person.id}.json"))
        recognizer = EmotionRecognizer.load("starter", person=tmp_path / "me.json")
        labels = [kept.label for kept in recognizer.profile.clips.values()]
        assert (labels.count("Anger"), labels.count(None)) == (corrected, history)
        assert set(recognizer.profile.clips) <= {each.sha256 for each in all_entries(source)}


def test_the_table_is_readable_and_harmless(archive: Path):
    import csv
    import io

    with zipfile.ZipFile(archive) as file:
        rows = list(csv.DictReader(io.StringIO(file.read("entries.csv").decode())))
    (row,) = [row for row in rows if row["correction"]]
    assert row["emotion"] == "Anger" and row["note"].startswith("'=1+1")
    assert row["person"] == "Ann <b>" and float(row["p_Happy"]) >= 0
    assert row["recorded_at"] == "2026-01-02T03:00:00"


def edited(change: Callable[[dict], None]) -> Callable[[dict], None]:
    """Change `entries.json`."""

    def apply(members: dict) -> None:
        rows = json.loads(members["entries.json"])
        change(rows)
        members["entries.json"] = json.dumps(rows).encode()

    return apply


def entry(**values) -> Callable[[dict], None]:
    return edited(lambda rows: rows["entries"][0].update(values))


def link(members: dict) -> None:
    name = next(name for name in members if name.startswith("clips/"))
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    members[info] = b"/etc/passwd"
    del members[name]


def packed_by_lzma(members: dict) -> None:
    """`zipfile` would unpack a whole block of it at a time, however large it is."""
    info = zipfile.ZipInfo("entries.csv")
    info.compress_type = zipfile.ZIP_LZMA
    members[info] = members.pop("entries.csv")


def swapped(members: dict) -> None:
    name = next(name for name in members if name.startswith("clips/"))
    members[name] = bytes(len(members[name]))


HOSTILE = [
    (lambda members: members.update({"../../evil.sh": b"rm"}), "belongs to no entry"),
    (lambda members: members.update({"/tmp/evil": b"rm"}), "belongs to no entry"),
    (lambda members: members.update({"clips/more.mp4": b"x"}), "belongs to no entry"),
    (lambda members: members.update({"clips/": b""}), "no plain file"),
    (link, "no plain file"),
    (packed_by_lzma, "packed by deflate"),
    (swapped, "is not the clip"),
    (lambda members: members.pop("entries.json"), "has no entries.json"),
    (lambda members: members.pop("entries.csv"), "is missing"),
    (lambda members: members.update({"entries.json": b"{"}), "format"),
    (lambda members: members.update({"entries.json": b"[1]"}), "format"),
    (lambda members: members.update({"entries.json": b"[" * 100_000}), "format"),
    (edited(lambda rows: rows.update(format=2)), "format"),
    (entry(evil=1), "evil"),
    (entry(id="../" * 10 + "aa"), "entries.0.id"),
    (entry(id="a" * 32 + "\n"), "entries.0.id"),
    (entry(sha256="x"), "entries.0.sha256"),
    (entry(suffix="/../../x.mp4"), "entries.0.suffix"),
    (entry(suffix=".html", media_type="text/html"), ".html"),
    (entry(size=10), "is not the clip"),
    (entry(size=1 << 40), "size"),
    (entry(state="evil"), "state"),
    (entry(note="x" * 30_000), "note"),
    (entry(tags=[str(number) for number in range(40)]), "tags"),
    (entry(probability=float("nan")), "probability"),
    (entry(timeline=[{"start_s": "x"}]), "timeline"),
    (
        entry(
            timeline=[],
            observation={
                "model": starter_model().fingerprint,
                "features": "A" * 32,
                "parts": "",
                "in_profile": True,
            },
        ),
        "its features are not those",
    ),
    (entry(person_id="0" * 32), "belongs to no person"),
    (edited(lambda rows: rows["entries"].append(rows["entries"][0])), "two entries"),
    (edited(lambda rows: rows["people"].append(rows["people"][0])), "two people"),
    (edited(lambda rows: rows["people"][0].update(name=" ")), "name"),
]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    """Open an empty journal."""
    with Journal.open(tmp_path_factory.mktemp("empty") / "journal") as journal:
        yield journal


def refused(journal: Journal, archive: Path) -> str:
    """Import an archive, which must be refused in one line and leave nothing; return the line."""
    job = finished(journal, journal.start_import(archive))
    assert job.state == "failed", archive
    assert "\n" not in job.message
    folder = journal.folder
    left = [
        path for name in (folder.clips, folder.covers, folder.pending) for path in name.iterdir()
    ]
    assert not left, job.message
    assert all_entries(journal) == []
    return job.message


def test_hostile_archives_are_refused(empty: Journal, archive: Path, tmp_path: Path):
    with zipfile.ZipFile(archive) as file:
        whole = {name: file.read(name) for name in file.namelist()}
    for change, expected in HOSTILE:
        members = dict(whole)
        change(members)
        with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as file:
            for member, content in members.items():
                file.writestr(member, content)
        line = refused(empty, tmp_path / "hostile.zip")
        assert expected in line


def test_a_bomb_is_refused(empty: Journal, archive: Path, tmp_path: Path):
    with zipfile.ZipFile(archive) as file:
        whole = {name: file.read(name) for name in file.namelist()}
    clip = next(name for name in whole if name.startswith("clips/"))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in whole.items():
            if name != clip:
                file.writestr(name, content)
        with file.open(clip, "w", force_zip64=True) as copy:
            for _ in range(600):
                copy.write(bytes(1 << 20))
    assert "clip that was exported" in refused(empty, tmp_path / "bomb.zip")


def test_damaged_archives_are_refused(empty: Journal, archive: Path, tmp_path: Path):
    content = archive.read_bytes()
    places = [len(content) * part // 12 for part in range(1, 12)]
    damaged = [content[:place] for place in places]
    # the CRC of the archive covers its members, and ours their content
    damaged += [content[:place] + b"\xff" * 64 + content[place + 64 :] for place in places]
    damaged += [b"", b"PK\x05\x06" + bytes(18), b"\0" * 100, content[:-30] + b"\xff" * 30]
    for each in damaged:
        (tmp_path / "damaged.zip").write_bytes(each)
        refused(empty, tmp_path / "damaged.zip")


def test_staged_archives_are_removed(empty: Journal):
    staged = empty.staging() / "upload.zip"
    staged.write_bytes(b"no archive")
    assert "ZIP" in refused(empty, staged)
    assert not staged.exists()
