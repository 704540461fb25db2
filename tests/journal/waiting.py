"""Wait for the background work of a journal."""

import time
from collections.abc import Callable
from datetime import date

from emotion.journal.jobs import RUNNING, Job
from emotion.journal.journal import Journal
from emotion.journal.schema import ANALYZING, WAITING, Entry

PATIENCE_S = 60


def until(is_true: Callable[[], bool]) -> None:
    """Wait until something is true, at most `PATIENCE_S`."""
    end_s = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def all_entries(journal: Journal) -> list[Entry]:
    """Return the entries of all people."""
    return [
        entry
        for person in journal.people()
        for entry in journal.entries(person.id, date(1, 1, 1), date(9999, 12, 31))
    ]


def analyzed(journal: Journal) -> None:
    """Wait until all entries are analyzed and judged by the profiles as they are."""

    def is_done() -> bool:
        assert not journal.fault, journal.fault
        waits = any(entry.state in (WAITING, ANALYZING) for entry in all_entries(journal))
        return not waits and not any(person.num_changes for person in journal.people())

    until(is_done)


def finished(journal: Journal, job: Job) -> Job:
    """Wait for a job."""
    until(lambda: journal.job(job.id).state != RUNNING)
    return journal.job(job.id)
