"""Works on a journal until it is killed: python -m tests.journal.victim WORK DIR ..."""

import itertools
import sys
import time
from datetime import date, datetime, timedelta
from pathlib import Path

from emotion.journal.journal import Journal
from tests.journal.waiting import all_entries, finished


def upload(journal: Journal, clips: list[Path]) -> None:
    """Receive, correct, edit and delete; print the id of what is certain to be there or not."""
    (person,) = journal.people()
    for number in itertools.count(time.time_ns()):
        clip = clips[number % len(clips)]
        content = clip.read_bytes() + str(number).encode()
        changed = journal.folder.root.parent / "changed"
        changed.write_bytes(content)
        moment = datetime(2026, 1, 1) + timedelta(days=number % 5)
        with changed.open("rb") as file:
            entry = journal.receive(person.id, file, clip.name, moment, f"note {number}")
        print("kept", entry.id, flush=True)
        journal.correct(entry.id, journal.labels[number % 5])
        print("corrected", entry.id, journal.labels[number % 5], flush=True)
        journal.edit(entry.id, tags=["a"], is_cover=True, day=moment.date() + timedelta(days=1))
        entries = all_entries(journal)
        if len(entries) > 6:
            print("deleting", entries[0].id, flush=True)
            journal.delete(entries[0].id)
            print("deleted", entries[0].id, flush=True)


def export(journal: Journal, _: list[Path]) -> None:
    """Export again and again."""
    while True:
        job = finished(journal, journal.start_export())
        assert job.state == "done", job.message


def read(journal: Journal, archives: list[Path]) -> None:
    """Import, delete everything, and again."""
    while True:
        if all_entries(journal):
            print("erasing", flush=True)
            journal.delete_everything()
        print("importing", flush=True)
        job = finished(journal, journal.start_import(archives[0]))
        assert job.state == "done", job.message
        print("imported", flush=True)


def film(journal: Journal, _: list[Path]) -> None:
    """Make films."""
    (person,) = journal.people()
    while True:
        finished(journal, journal.start_film(person.id, date(2000, 1, 1), date(2030, 1, 1)))


def old(journal: Journal, folders: list[Path]) -> None:
    """Keep a folder of old clips, and delete them."""
    (person,) = journal.people()
    while True:
        scan = finished(journal, journal.start_old_clips(person.id, folders[0]))
        finished(journal, journal.start_keeping(scan.id, range(len(scan.found))))
        for entry in all_entries(journal):
            journal.delete(entry.id)


if __name__ == "__main__":
    with Journal.open(Path(sys.argv[2])) as opened:
        print("open", flush=True)
        works = {work.__name__: work for work in (upload, export, read, film, old)}
        works[sys.argv[1]](opened, [Path(argument) for argument in sys.argv[3:]])
