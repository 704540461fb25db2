"""Long work in threads: exports, imports, films and old clips, with progress."""

import shutil
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from emotion.errors import UserError, is_machine_fault
from emotion.journal.events import Events
from emotion.journal.old_clips import OldClip
from emotion.journal.schema import new_id

RUNNING, DONE, FAILED = "running", "done", "failed"
STEP = 0.01  # of the progress, from one event to the next


@dataclass(frozen=True)
class Job:
    """The state of a job."""

    id: str
    kind: str  # export, import, film, scan or keep
    person_id: str | None = None
    progress: float = 0.0  # 0 to 1
    state: str = RUNNING
    message: str = ""  # what was done, or why it failed
    path: Path | None = None  # the file that it made, alone in a folder; None if it was removed
    found: Sequence[OldClip] = ()  # of a scan


class Stopped(Exception):
    """The journal is being closed."""


class Report(Protocol):
    """Takes note of the progress, 0 to 1; raises `Stopped` if the work must end."""

    def __call__(self, progress: float) -> None:
        """Take note."""


class Jobs:
    """All jobs since the start. Those of one journal that use many processes run one at a time."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._jobs: dict[str, Job] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def list(self) -> list[Job]:
        """Return all jobs, latest first."""
        with self._lock:
            return list(self._jobs.values())[::-1]

    def get(self, job_id: str) -> Job | None:
        """Return a job."""
        return self._jobs.get(job_id)

    def start(
        self,
        kind: str,
        work: Callable[[str, Report], dict[str, Any]],
        person_id: str | None = None,
    ) -> Job:
        """Start a job.

        Args:
            kind: see `Job`.
            work: takes the job's id and a `Report`; returns fields of the `Job` when it is done.
            person_id: whose job it is.
        """
        job = Job(new_id(), kind, person_id)
        thread = threading.Thread(target=self._run, args=(job, work), name=kind, daemon=True)
        with self._lock:
            self._jobs[job.id] = job
            self._threads.append(thread)
        thread.start()
        return job

    def _run(self, job: Job, work: Callable[[str, Report], dict[str, Any]]) -> None:
        reported = 0.0

        def report(progress: float) -> None:
            nonlocal reported
            if self._is_closed:
                raise Stopped
            if progress - reported >= STEP:
                reported = progress
                self._update(job.id, progress=progress)

        try:
            fields = work(job.id, report)
        except Stopped:
            self._update(job.id, state=FAILED, message="the journal was closed")
        except UserError as error:
            self._update(job.id, state=FAILED, message=str(error))
        except Exception as error:
            if not is_machine_fault(error):
                traceback.print_exc()
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            self._update(job.id, state=FAILED, message=reason)
        else:
            if path := fields.get("path"):
                self._remove_older(job, path)
            self._update(job.id, state=DONE, progress=1.0, **fields)

    def _remove_older(self, job: Job, path: Path) -> None:
        """Remove the files of earlier exports, or of earlier films of the same days."""
        for other in self.list():
            if other.path is None or (other.kind, other.person_id) != (job.kind, job.person_id):
                continue
            if job.kind == "export" or other.path.name == path.name:
                self._update(other.id, path=None)
                shutil.rmtree(other.path.parent, ignore_errors=True)

    def _update(self, job_id: str, **fields: Any) -> None:
        with self._lock:
            job = self._jobs[job_id] = replace(self._jobs[job_id], **fields)
        self._events.send(
            "job",
            id=job.id,
            job_kind=job.kind,
            person_id=job.person_id,
            progress=job.progress,
            state=job.state,
            message=job.message,
        )

    def close(self) -> None:
        """End all jobs at their next report."""
        self._is_closed = True
        for thread in self._threads:
            thread.join()
