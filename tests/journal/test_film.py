"""Films and old clips."""

import os
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import av
import numpy as np
import pytest

from emotion.errors import UserError
from emotion.journal.film import best_second
from emotion.journal.journal import Journal
from tests.journal.waiting import all_entries, analyzed, finished


@pytest.mark.slow
def test_a_film_has_a_second_of_each_day_with_sound(
    journal: Journal, add: Callable, recording: Path
):
    ann = journal.add_person("Ann")
    add(ann, "Happy_1.mp4", recorded_at=datetime(2026, 1, 1))
    add(ann, "Sad_2.mp4", recorded_at=datetime(2026, 1, 1, 5))  # not the cover of its day
    with recording.open("rb") as file:
        journal.receive(ann.id, file, "blob", datetime(2026, 1, 2))
    add(ann, "Shock_4.mp4", recorded_at=datetime(2026, 1, 4))
    add(ann, "Shock_4.mp4", recorded_at=datetime(2026, 2, 1))
    analyzed(journal)
    job = finished(journal, journal.start_film(ann.id, date(2026, 1, 1), date(2026, 1, 31), "de"))
    assert (job.state, job.message) == ("done", "3 days")
    with av.open(str(job.path)) as film:
        assert film.streams.video[0].codec_context.name == "h264"
        assert film.streams.audio[0].codec_context.name == "aac"
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(pictures) == 90 and {picture.shape for picture in pictures} == {(720, 1280, 3)}
    corners = [picture[640:, :400].astype(float) for picture in pictures]
    within, between = (np.abs(corners[45] - corners[other]).mean() for other in (50, 20))
    assert within < between / 2  # the dates of two days differ, that of one stays
    with av.open(str(job.path)) as film:
        sound = np.concatenate([frame.to_ndarray() for frame in film.decode(audio=0)], axis=1)[0]
    loud = [np.abs(part).mean() > 0.1 for part in np.split(sound[: 3 * 48_000], 3)]
    assert loud == [False, True, False]
    assert not list(journal.folder.pending.iterdir())


@pytest.mark.slow
def test_a_clip_that_has_become_unreadable_is_named(journal: Journal, add: Callable):
    ann = journal.add_person("Ann")
    entries = [add(ann, recorded_at=datetime(2026, 1, day)) for day in (1, 2)]
    analyzed(journal)
    journal.media(entries[0], "clip").write_bytes(b"damaged")
    job = finished(journal, journal.start_film(ann.id, date(2026, 1, 1), date(2026, 1, 31)))
    assert job.state == "done" and "January 1, 2026" in job.message
    with pytest.raises(UserError):
        journal.start_film(ann.id, date(2025, 1, 1), date(2025, 1, 31))


def test_the_second_is_around_the_peak():
    def part(start_s: float, happy: float) -> dict:
        return {"start_s": start_s, "stop_s": start_s + 1, "probabilities": {"Happy": happy}}

    timeline = [part(0, 0.2), part(1.5, 0.9), part(3, 0.3)]
    assert best_second(timeline, "Happy", 4) == 1.5
    assert best_second([part(3.5, 0.9)], "Happy", 4) == 3
    assert best_second(timeline, "Sad", 5) == 2
    assert best_second([], None, None) == 0


@pytest.mark.slow
def test_old_clips_are_shown_before_they_are_kept(journal: Journal, clips: Path, tmp_path: Path):
    ann = journal.add_person("Ann")
    old = tmp_path / "old"
    (old / "sub").mkdir(parents=True)
    content = (clips / "Happy_1.mp4").read_bytes()
    (old / "a <b>.MP4").write_bytes(content)
    os.utime(old / "a <b>.MP4", (0, datetime(2020, 2, 3, 4, 5).timestamp()))
    (old / "sub" / "copy.mp4").write_bytes(content)
    (old / "broken.mp4").write_bytes(b"no video")
    (old / "empty.mov").touch()
    (old / "notes.txt").write_text("no clip")
    (old / "link.mp4").symlink_to(clips / "Sad_2.mp4")
    with av.open(str(old / "dated.mp4"), "w") as film:
        film.metadata["creation_time"] = "2019-06-07T08:09:10Z"
        stream = film.add_stream("mpeg4", 30)
        stream.width = stream.height = 64
        for _ in range(30):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            film.mux(stream.encode(picture))
        film.mux(stream.encode(None))
    scan = finished(journal, journal.start_old_clips(ann.id, old))
    assert scan.state == "done" and all_entries(journal) == []
    found = {clip.name: clip for clip in scan.found}
    assert set(found) == {"a <b>.MP4", "sub/copy.mp4", "broken.mp4", "empty.mov", "dated.mp4",
                          "link.mp4"}  # fmt: skip
    assert found["a <b>.MP4"].recorded_at == datetime(2020, 2, 3, 4, 5)
    assert found["a <b>.MP4"].source == "file" and found["dated.mp4"].source == "metadata"
    taken = datetime.fromisoformat("2019-06-07T08:09:10+00:00").astimezone()
    assert found["dated.mp4"].recorded_at == taken.replace(tzinfo=None)
    assert [found[name].is_known for name in ("a <b>.MP4", "sub/copy.mp4")] == [False, True]
    assert found["broken.mp4"].problem and found["empty.mov"].problem
    names = [clip.name for clip in scan.found]
    chosen = [names.index("a <b>.MP4"), names.index("dated.mp4"), names.index("sub/copy.mp4")]
    job = finished(
        journal, journal.start_keeping(scan.id, chosen, {chosen[1]: datetime(2018, 1, 1)})
    )
    assert job.state == "done" and (old / "a <b>.MP4").exists()
    days = [entry.day for entry in all_entries(journal)]
    assert days == [date(2018, 1, 1), date(2020, 2, 3)]
    again = finished(journal, journal.start_old_clips(ann.id, old))
    assert {clip.name for clip in again.found if clip.is_known} == {
        "a <b>.MP4", "sub/copy.mp4", "dated.mp4"
    }  # fmt: skip
    with pytest.raises(UserError):
        journal.start_keeping(scan.id, [99])
    assert finished(journal, journal.start_old_clips(ann.id, tmp_path / "no")).state == "failed"
