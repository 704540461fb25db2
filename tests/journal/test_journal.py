"""Entries, corrections and profiles."""

import io
import math
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from sqlmodel import select, update

from emotion import REPOSITORY
from emotion.errors import UserError
from emotion.evaluation.movements import describe_blendshapes
from emotion.evaluation.starter import LABELS, UNSURE_BELOW, starter_model
from emotion.journal.journal import Conflict, Glance, Journal, NotFound
from emotion.journal.schema import MAX_NOTE, Entry, Observation
from tests.journal.waiting import all_entries, analyzed


def observation(journal: Journal, entry_id: str) -> Observation:
    with journal._database.writing() as session:
        return session.exec(select(Observation).where(Observation.entry_id == entry_id)).one()


def test_a_clip_becomes_an_entry_with_an_answer(journal: Journal, clips: Path):
    person = journal.add_person("Ann")
    changes = journal.events()
    moment = datetime(2026, 5, 3, 23, 59)
    with (clips / "Happy_1.mp4").open("rb") as file:
        entry = journal.receive(person.id, file, "x.mp4", moment, " a note\r\n", ["walk", "Walk"])
    assert (entry.day, entry.recorded_at) == (date(2026, 5, 3), moment)
    assert (entry.note, entry.tags, entry.is_cover) == ("a note", ["walk"], True)
    assert journal.media(entry, "clip").read_bytes() == (clips / "Happy_1.mp4").read_bytes()
    analyzed(journal)
    entry = journal.entry(entry.id)
    assert entry.state == "done" and entry.label in journal.labels
    assert math.isclose(sum(entry.probabilities.values()), 1)
    first, second = sorted(entry.probabilities, key=entry.probabilities.get, reverse=True)[:2]
    assert (entry.label, entry.runner_up, entry.found) == (first, second, first)
    assert entry.emotion == first and entry.unsure == (entry.probabilities[first] < UNSURE_BELOW)
    assert entry.reasons and entry.timeline and entry.duration_s == pytest.approx(2, abs=0.1)
    assert journal.media(entry, "cover").read_bytes()[:3] == b"\xff\xd8\xff"
    states = [event["state"] for event in changes.drain() if event["kind"] == "entry"]
    assert states == ["waiting", "analyzing", "done"]


def test_a_recording_of_a_browser_is_a_clip_like_any_other(journal: Journal, recording: Path):
    person = journal.add_person("Ann")
    with recording.open("rb") as file:
        entry = journal.receive(person.id, file, "blob")
    assert (entry.media_type, entry.suffix) == ("video/webm", ".webm")
    analyzed(journal)
    entry = journal.entry(entry.id)
    assert entry.state == "done" and 2 < entry.duration_s < 3.5


def test_a_file_that_is_no_video_and_a_clip_without_a_face(
    journal: Journal, write_video, tmp_path: Path
):
    person = journal.add_person("Ann")
    black = write_video(tmp_path / "black.mp4", [np.zeros((64, 64, 3), np.uint8)] * 60)
    with black.open("rb") as file:
        faceless = journal.receive(person.id, file)
    broken = journal.receive(person.id, io.BytesIO(b"<script>alert(1)</script>"), "x.mp4")
    analyzed(journal)
    assert journal.entry(faceless.id).state == "no_face"
    assert journal.entry(broken.id).state == "broken"
    assert journal.entry(broken.id).reasons and journal.entry(broken.id).label is None
    assert journal.entry(broken.id).media_type == "application/octet-stream"
    journal.correct(faceless.id, "Happy")  # kept as an entry all the same
    assert journal.entry(faceless.id).emotion == "Happy"
    with pytest.raises(NotFound):
        journal.media(journal.entry(broken.id), "cover")


def test_the_same_clip_twice_is_one_entry_but_two_people_may_have_it(journal: Journal, clips: Path):
    ann, bea = journal.add_person("Ann"), journal.add_person("Bea")
    ids = []
    for person in (ann, ann, bea):
        with (clips / "Sad_2.mp4").open("rb") as file:
            ids.append(journal.receive(person.id, file).id)
    assert ids[0] == ids[1] != ids[2]
    assert not list(journal.folder.pending.iterdir())


@pytest.mark.parametrize("content", [b"", None])
def test_an_upload_that_is_empty_or_breaks_off_leaves_nothing(journal: Journal, content):
    class Breaks(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            if self.tell_once():
                return bytes(1000)
            raise ConnectionError("the browser has gone")

        def tell_once(self) -> bool:
            first, self.was_read = not getattr(self, "was_read", False), True
            return first

    person = journal.add_person("Ann")
    with pytest.raises((UserError, ConnectionError)):
        journal.receive(person.id, Breaks() if content is None else io.BytesIO(content))
    assert all_entries(journal) == [] and not list(journal.folder.pending.iterdir())


def test_a_clip_that_is_too_large_is_refused(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("emotion.journal.folder.MAX_CLIP_BYTES", 3 << 20)
    person = journal.add_person("Ann")
    with pytest.raises(UserError, match="larger than 3 MiB"):
        journal.receive(person.id, io.BytesIO(bytes(5 << 20)))
    assert all_entries(journal) == [] and not list(journal.folder.pending.iterdir())


def test_threads_lose_no_change(journal: Journal, add):
    person = journal.add_person("Ann")
    entries = [add(person, recorded_at=datetime(2026, 1, 1)) for _ in range(4)]

    def append(word: str) -> None:
        """Change the note as a page does: read, change, and repeat if another was faster."""
        while True:
            entry = journal.entry(entries[0].id)
            try:
                journal.edit(entry.id, note=f"{entry.note} {word}", version=entry.version)
                return
            except Conflict:
                continue

    def work(number: int) -> None:
        append(f"word{number}")
        journal.edit(entries[number % 4].id, is_cover=True)
        journal.correct(entries[number % 4].id, journal.labels[number % 5])
        journal.glances(person.id, date(2026, 1, 1), date(2026, 1, 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    words = journal.entry(entries[0].id).note.split()
    assert sorted(words) == sorted(f"word{number}" for number in range(24))
    assert sum(entry.is_cover for entry in all_entries(journal)) == 1
    analyzed(journal)
    assert all(entry.correction for entry in all_entries(journal))


def test_a_time_with_a_zone_is_converted(journal: Journal, add):
    person = journal.add_person("Ann")
    moment = datetime(2026, 1, 1, 23, 30, tzinfo=timezone(timedelta(hours=-12)))
    assert add(person, recorded_at=moment).recorded_at == moment.astimezone().replace(tzinfo=None)


def test_every_day_with_entries_has_one_cover(journal: Journal, add):
    person = journal.add_person("Ann")
    day, other = datetime(2026, 2, 1, 8), datetime(2026, 2, 2, 8)
    first, second = add(person, recorded_at=day), add(person, recorded_at=day + timedelta(hours=1))
    third = add(person, recorded_at=other)

    def covers() -> list[str]:
        return [entry.id for entry in all_entries(journal) if entry.is_cover]

    assert covers() == [first.id, third.id]
    journal.edit(second.id, is_cover=True)
    assert covers() == [second.id, third.id]
    journal.edit(second.id, is_cover=False)
    assert covers() == [first.id, third.id]
    journal.edit(first.id, day=other.date())  # which has a cover
    assert sorted(covers()) == sorted([second.id, third.id])
    journal.delete(third.id)
    assert sorted(covers()) == sorted([second.id, first.id])


def test_a_change_based_on_an_older_version_is_refused(journal: Journal, add):
    entry = add(journal.add_person("Ann"))
    changed = journal.edit(entry.id, note="first", version=entry.version)
    with pytest.raises(Conflict):
        journal.edit(entry.id, note="second", version=entry.version)
    assert journal.edit(entry.id, tags=["a"], version=changed.version).note == "first"


def test_people_have_names_of_their_own(journal: Journal):
    ann = journal.add_person("  Ann   B. ")
    assert ann.name == "Ann B."
    for name in ("ann b.", "", " ", "x" * 81):
        with pytest.raises(UserError):
            journal.add_person(name)
    assert journal.rename_person(ann.id, "ANN B.").name == "ANN B."
    assert [person.name for person in journal.people()] == ["ANN B."]
    with pytest.raises(NotFound):
        journal.rename_person("0" * 32, "Bea")


def test_wrong_values_are_refused(journal: Journal, add):
    entry = add(journal.add_person("Ann"))
    with pytest.raises(UserError, match="Neutral"):
        journal.correct(entry.id, "Joy")
    with pytest.raises(UserError):
        journal.edit(entry.id, note="x" * (MAX_NOTE + 1))
    with pytest.raises(UserError):
        journal.edit(entry.id, tags=["x" * 51])
    with pytest.raises(NotFound):
        journal.correct("0" * 32, "Happy")
    assert journal.edit(entry.id, note="\ud800 \0").note == "?"


def test_search_finds_notes_emotions_and_tags(journal: Journal, add):
    ann, bea = journal.add_person("Ann"), journal.add_person("Bea")
    days = [datetime(2026, 1, day, 12) for day in (1, 2, 3)]
    one = add(ann, recorded_at=days[0], note="Größe: 100% \\ _")
    two = add(ann, recorded_at=days[1], note="great", tags=["Sea", "sun"])
    three = add(ann, recorded_at=days[2], tags=["sun"])
    other = add(bea, note="great", tags=["sun"])
    analyzed(journal)
    journal.correct(two.id, "Shock")
    journal.correct(three.id, "Shock")

    def ids(**query) -> list[str]:
        return [entry.id for entry in journal.search(ann.id, **query)]

    assert ids() == [three.id, two.id, one.id]
    assert ids(text="GRÖSSE") == ids(text="100%") == ids(text="\\ _") == [one.id]
    assert ids(text="%") == [one.id] and ids(text="grea_") == []
    assert ids(emotion="Shock", tag="Sea") == [two.id] and ids(tag="sun") == [three.id, two.id]
    assert ids(limit=1, offset=1) == [two.id]
    assert journal.tags(ann.id) == ["sun", "Sea"] and journal.tags(bea.id) == ["sun"]
    assert [entry.id for entry in journal.search(bea.id, "GREAT")] == [other.id]
    assert journal.span(ann.id) == (date(2026, 1, 1), date(2026, 1, 3))


def test_glances_agree_with_entries(journal: Journal, add):
    ann = journal.add_person("Ann")
    for day in (3, 1, 1):
        add(ann, recorded_at=datetime(2026, 1, day))
    analyzed(journal)
    journal.correct(all_entries(journal)[1].id, "Shock")
    days = date(2026, 1, 1), date(2026, 1, 31)
    entries = journal.entries(ann.id, *days)
    names = Glance._fields
    expected = [tuple(getattr(entry, name) for name in names) for entry in entries]
    assert [tuple(glance) for glance in journal.glances(ann.id, *days)] == expected


def test_on_this_day_finds_other_years(journal: Journal, add):
    ann = journal.add_person("Ann")
    ids = [add(ann, recorded_at=datetime(year, 2, 28)).id for year in (2024, 2025, 2026)]
    add(ann, recorded_at=datetime(2024, 2, 29))
    found = [entry.id for entry in journal.on_this_day(ann.id, date(2026, 2, 28))]
    assert found == [ids[1], ids[0]]


def test_corrections_teach_the_profile_and_it_can_be_rebuilt_exactly(journal: Journal, add):
    ann, bea = journal.add_person("Ann"), journal.add_person("Bea")
    names = ("Happy_1.mp4", "Sad_2.mp4", "Anger_3.mp4", "Shock_4.mp4")
    entries = [add(ann, name) for name in names]
    foreign = add(bea)
    analyzed(journal)
    before = journal.entry(foreign.id).probabilities
    found = [journal.entry(entry.id).found for entry in entries]
    for entry, label in zip(entries[:3], ("Happy", "Sad", "Anger"), strict=True):
        journal.correct(entry.id, label)
    analyzed(journal)
    assert [journal.entry(entry.id).found for entry in entries] == found  # never changed
    assert journal.entry(foreign.id).probabilities == before  # never mixed
    # independent of the journal: the model itself, given the features in the order of ids
    rows = {entry.id: np.frombuffer(observation(journal, entry.id).features) for entry in entries}
    targets = dict.fromkeys(rows, -1)
    for entry, label in zip(entries[:3], ("Happy", "Sad", "Anger"), strict=True):
        targets[entry.id] = LABELS.index(label)
    order = sorted(rows.keys() - {entries[3].id})  # an entry is judged without itself
    person = starter_model().adapt(
        np.array([rows[each] for each in order]), np.array([targets[each] for each in order])
    )
    expected = person.probabilities(rows[entries[3].id][None])[0]
    learned = journal.entry(entries[3].id).probabilities
    np.testing.assert_allclose([learned[label] for label in LABELS], expected)
    summary = journal.profile_summary(ann.id)
    assert summary.corrected == {"Sad": 1, "Happy": 1, "Anger": 1} and summary.history == 1
    journal.forget_profile(ann.id)
    analyzed(journal)
    forgotten = journal.profile_summary(ann.id)
    assert (forgotten.corrected, forgotten.history, forgotten.unused) == ({}, 0, 4)
    unknown = starter_model().adapt(np.empty((0, 208)), np.empty(0))
    expected = unknown.probabilities(rows[entries[3].id][None])[0]
    values = journal.entry(entries[3].id).probabilities
    np.testing.assert_allclose([values[label] for label in LABELS], expected)
    journal.rebuild_profile(ann.id)
    analyzed(journal)
    assert journal.entry(entries[3].id).probabilities == learned
    assert journal.profile_summary(ann.id) == summary


def test_entries_of_another_model_are_analyzed_again(add, journal: Journal, tmp_path: Path):
    ann = journal.add_person("Ann")
    entry = add(ann)
    analyzed(journal)
    before = journal.entry(entry.id)
    with journal._database.writing() as session:
        session.exec(update(Observation).values(model="another", features=bytes(80)))
        session.exec(update(Entry).values(label="Joy", model="another"))
    assert journal.profile_summary(ann.id).history == 0
    journal.close()
    with Journal.open(tmp_path / "journal") as again:
        analyzed(again)
        after = again.entry(entry.id)
        assert (after.label, after.model, after.found) == (before.label, "starter", before.found)
        assert again.profile_summary(ann.id).history == 1


def test_recognition_is_of_the_answers_before_correction(journal: Journal, add):
    ann = journal.add_person("Ann")
    entry = add(ann)
    analyzed(journal)
    label = journal.entry(entry.id).found
    wrong = next(each for each in journal.labels if each != label)
    journal.correct(entry.id, wrong)
    (point,) = journal.recognition(ann.id)
    assert (point.entry_id, point.share, point.num_entries) == (entry.id, 0, 1)
    journal.correct(entry.id, label)
    assert journal.recognition(ann.id)[0].share == 1


def test_moods_count_each_entry_by_its_correction(journal: Journal, add):
    ann = journal.add_person("Ann")
    for day, label in ((1, "Happy"), (1, "Sad"), (8, "Happy")):
        journal.correct(add(ann, recorded_at=datetime(2026, 6, day)).id, label)
    shares = {(row.day.day, row.emotion): row.share for row in journal.shares(ann.id, 7)}
    assert shares[1, "Happy"] == shares[7, "Sad"] == 0.5 and shares[8, "Happy"] == 1
    assert {(row.day.day) for row in journal.shares(ann.id, 30)} == set(range(1, 9))
    (happy,) = [row for row in journal.by_weekday(ann.id) if row.emotion == "Happy"]
    assert (happy.weekday, happy.count, happy.num_entries) == (0, 2, 3)  # both days are Mondays


def test_deleting_removes_files_and_words(journal: Journal, add, tmp_path: Path):
    ann, bea = journal.add_person("Ann"), journal.add_person("Bea")
    entry = add(ann, note="a secret of Ann")
    kept = add(bea, note="a secret of Bea")
    analyzed(journal)
    cover, clip = journal.media(journal.entry(entry.id), "cover"), journal.media(entry, "clip")
    journal.delete(entry.id)
    assert not cover.exists() and not clip.exists() and journal.media(kept, "clip").exists()
    with pytest.raises(NotFound):
        journal.entry(entry.id)
    root = tmp_path / "journal"

    def left() -> bytes:
        return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())

    assert b"secret of Bea" in left() and b"secret of Ann" not in left()
    journal.delete_everything()
    assert journal.people() == [] and b"secret" not in left()
    assert not [path for name in ("clips", "covers") for path in (root / name).iterdir()]


def test_deleting_a_person_leaves_the_others(journal: Journal, add):
    ann, bea = journal.add_person("Ann"), journal.add_person("Bea")
    add(ann)
    kept = add(bea)
    journal.delete_person(ann.id)
    assert [person.id for person in journal.people()] == [bea.id]
    assert [path.name for path in journal.folder.clips.iterdir()] == [kept.clip_name]


def test_the_folder_is_private(journal: Journal):
    assert stat.S_IMODE(journal.folder.root.stat().st_mode) == 0o700


def test_a_second_process_is_refused(journal: Journal):
    code = (
        "from pathlib import Path; from emotion.journal.journal import Journal\n"
        f"Journal.open(Path({str(journal.folder.root)!r}))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert other.returncode == 1 and "UserError" in other.stderr and "in use" in other.stderr


def test_corrected_clips_are_a_data_set(journal: Journal, add, compose):
    from emotion.clips.find import find_clips
    from emotion.clips.naming import Scheme

    ann = journal.add_person("Ann")
    entries = [add(ann, name) for name in ("Happy_1.mp4", "Sad_2.mp4")]
    journal.correct(entries[0].id, "Shock")
    analyzed(journal)
    listed = journal.folder.root / "corrected.csv"
    cfg = compose("train", ["data=journal", f"data.list={listed}"])
    assert cfg.data.min_frames == 30
    (clip,), dropped = find_clips(listed.parent, Scheme.from_config(cfg.data), clip_list=listed)
    assert clip.path == journal.media(entries[0], "clip") and clip.label == "Shock" and not dropped


def test_features_are_those_of_the_blendshapes(journal: Journal, add):
    entry = add(journal.add_person("Ann"))
    analyzed(journal)
    features = np.frombuffer(observation(journal, entry.id).features)
    assert features.shape == describe_blendshapes(np.zeros((3, 52))).shape
    assert np.isfinite(features).all()
