"""Analyze waiting entries, and judge entries again when their person's profile has changed."""

import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import bindparam
from sqlmodel import Session, col, select, update

from emotion.errors import is_machine_fault
from emotion.inference.judge import Verdict
from emotion.inference.profile import MAX_CLIPS
from emotion.journal.analysis import Finding, Worker, analyze_clips
from emotion.journal.data_set import write_list
from emotion.journal.database import Database
from emotion.journal.events import Events
from emotion.journal.folder import Folder
from emotion.journal.learning import History, load_judge
from emotion.journal.rows import found
from emotion.journal.schema import (
    ANALYZING,
    BROKEN,
    DONE,
    NO_FACE,
    WAITING,
    Entry,
    Observation,
    Person,
)
from emotion.models.person_model import Person as Posterior

RETRY_S = 10.0  # after a fault of the machine, such as a full disk
RECENT = 50  # entries that are judged again by a changed profile
JUDGED = (
    update(Entry.__table__)
    .where(Entry.__table__.c.id == bindparam("entry_id"), col(Entry.correction).is_(None))
    .values(
        {
            name: bindparam(name)
            for name in (
                *("label", "probability", "runner_up", "probabilities", "unsure", "reasons"),
                "timeline",
            )
        }
    )
)


class Analyst:
    """A thread that gives entries their answers, with a model in a process of its own.

    Attributes:
        judge: of the model.
        model: its name.
        features: whose features are used: the model's fingerprint.
        fault: why entries cannot be analyzed at the moment; "" if they can.
    """

    def __init__(self, database: Database, folder: Folder, events: Events, model: str) -> None:
        """Load the judge of a model, or raise a UserError."""
        self._database, self._folder, self._events = database, folder, events
        self.judge, self.model, self.fault = load_judge(model), model, ""
        self.features = self.judge.model.fingerprint
        self._wake, self._is_closed = threading.Event(), False

    def start(self) -> None:
        """Start the thread and the process."""
        self._worker = Worker(analyze_clips, self.model)
        self._thread = threading.Thread(target=self._analyze_all, name="analyst", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look for work."""
        self._wake.set()

    def close(self) -> None:
        """End the thread and the process; an analysis under way will be repeated."""
        self._is_closed = True
        self._wake.set()
        self._worker.close()
        self._thread.join()

    def history(self, session: Session, person_id: str) -> History:
        """Read what a person's profile learns from: corrected entries first, then the latest."""
        query = (
            select(Entry.id, Observation.features, Entry.correction)
            .join(Observation)
            .where(
                Entry.person_id == person_id,
                col(Observation.in_profile),
                Observation.model == self.features,
            )
            .order_by(col(Entry.correction).is_(None), col(Entry.added_at).desc(), col(Entry.id))
            .limit(MAX_CLIPS)
        )
        return History.of(session.exec(query).all())

    def _analyze_all(self) -> None:
        """Analyze waiting entries, and judge those of stale people; the analyst's thread."""
        while not self._is_closed:
            self._wake.clear()
            try:
                worked = self._judge_stale() or self._analyze_next()
            except Exception as error:
                if self._is_closed:
                    return
                if not is_machine_fault(error):
                    traceback.print_exc()
                self.fault = str(error)
                self._events.send("fault", message=self.fault)
                self._wake.wait(RETRY_S)
                continue
            self.fault = ""
            if not worked:
                self._wake.wait()

    def _analyze_next(self) -> bool:
        """Analyze the entry that waits since last; return whether there was one."""
        with self._database.writing() as session:
            query = select(Entry).where(Entry.state == WAITING).order_by(col(Entry.added_at).desc())
            entry = session.exec(query.limit(1)).first()
            if entry is None:
                return False
            entry.state = ANALYZING
        self._events.entry_changed(entry)
        picture = self._folder.pending / entry.cover_name
        finding = self._worker.analyze(self._folder.clip(entry), picture)
        try:
            if isinstance(finding, Exception):
                raise finding
            if not self._is_closed:
                self._record(entry.id, finding, picture)
        except BaseException:
            if not self._is_closed:
                with self._database.writing() as session:
                    session.exec(
                        update(Entry)
                        .where(col(Entry.id) == entry.id, Entry.state == ANALYZING)
                        .values(state=WAITING)
                    )
            raise
        return True

    def _record(self, entry_id: str, finding: Finding, picture: Path) -> None:
        """Keep what was found in an entry's clip; the entry may have been deleted meanwhile."""
        with self._database.writing() as session:
            entry = session.get(Entry, entry_id)
            if entry is None:
                picture.unlink(missing_ok=True)
                return
            if finding.has_picture:
                picture.replace(self._folder.cover(entry))
                entry.has_picture = True
            entry.duration_s, entry.model = finding.duration_s, self.model
            if finding.features is None:
                entry.state = BROKEN if finding.is_broken else NO_FACE
                entry.reasons = list(finding.reasons)
            else:
                entry.state = DONE
                history = self.history(session, entry.person_id)
                posterior = history.person(self.judge, without=entry_id)
                verdict = self.judge.verdict(posterior, finding.features)
                for name, value in columns_of(verdict).items():
                    setattr(entry, name, value)
                entry.reasons += finding.reasons
                entry.timeline = self._retold(posterior, finding.timeline, finding.parts)
                if entry.found is None:
                    entry.found, entry.found_unsure = verdict.label, verdict.unsure
                known = session.get(Observation, entry_id)
                if known is not None and known.model != self.features:
                    self._count_change(session, entry)
                session.merge(
                    Observation(
                        entry_id=entry_id,
                        model=self.features,
                        features=finding.features.astype(np.float64).tobytes(),
                        parts=finding.parts.astype(np.float32).tobytes(),
                        in_profile=known is None or known.in_profile,
                    )
                )
        self._events.entry_changed(entry)

    def _count_change(self, session: Session, entry: Entry) -> None:
        """Have a person's entries judged again once the last one is analyzed by this model."""
        waits = select(Entry.id).where(
            Entry.person_id == entry.person_id, Entry.state == WAITING, Entry.id != entry.id
        )
        if session.exec(waits.limit(1)).first() is None:
            found(session, Person, entry.person_id).num_changes += 1

    def _judge_stale(self) -> bool:
        """Judge entries of a person whose profile has changed; return whether there was one.

        Those are the latest `RECENT` uncorrected entries. Each is judged without itself in the
        history: a clip of unknown emotion would pull the person's offset towards itself.
        """
        with self._database.reading() as session:
            person = session.exec(select(Person).where(Person.num_changes > 0).limit(1)).first()
            if person is None:
                return False
            history = self.history(session, person.id)
            query = (
                select(Entry.id, Entry.timeline, Observation.features, Observation.parts)
                .join(Observation)
                .where(
                    Entry.person_id == person.id,
                    col(Entry.correction).is_(None),
                    Observation.model == self.features,
                )
                .order_by(col(Entry.added_at).desc())
                .limit(RECENT)
            )
            rows = session.exec(query).all()
        changes = [self._judged(history, *row) for row in rows]
        with self._database.writing() as session:
            if changes:
                session.connection().execute(JUDGED, changes)
            session.exec(
                update(Person)
                .where(col(Person.id) == person.id)
                .values(num_changes=Person.num_changes - person.num_changes)
            )
        self.write_list()
        self._events.send("judged", person_id=person.id)
        return True

    def analyze_foreign(self, session: Session) -> None:
        """Analyze the entries again whose features are of another model."""
        others = select(Observation.entry_id).where(Observation.model != self.features)
        session.exec(
            update(Entry).where(col(Entry.id).in_(others.scalar_subquery())).values(state=WAITING)
        )

    def _judged(
        self,
        history: History,
        entry_id: str,
        timeline: Sequence[dict[str, Any]],
        features: bytes,
        parts: bytes,
    ) -> dict[str, Any]:
        """Judge an observation; return the parameters of `JUDGED`."""
        posterior = history.person(self.judge, without=entry_id)
        verdict = self.judge.verdict(posterior, np.frombuffer(features))
        timeline = self._retold(posterior, timeline, np.frombuffer(parts, np.float32))
        return {"entry_id": entry_id, "timeline": timeline, **columns_of(verdict)}

    def _retold(
        self, posterior: Posterior, timeline: Sequence[dict[str, Any]], parts: np.ndarray
    ) -> list[dict[str, Any]]:
        """Judge the parts of a timeline by their features, if there are any."""
        if not parts.size:
            return list(timeline)
        probabilities = self.judge.probabilities(posterior, parts.reshape(len(timeline), -1))
        return [
            part | {"probabilities": values}
            for part, values in zip(timeline, probabilities, strict=True)
        ]

    def write_list(self) -> None:
        """Write the list of corrected clips."""
        with self._database.reading() as session:
            query = (
                select(Entry)
                .where(col(Entry.correction).is_not(None))
                .order_by(col(Entry.added_at), col(Entry.id))
            )
            write_list(session.exec(query), self._folder.root)


def columns_of(verdict: Verdict) -> dict[str, Any]:
    """Return the columns of an entry that a verdict sets."""
    return {
        "label": verdict.label,
        "probability": verdict.probabilities[verdict.label],
        "runner_up": verdict.runner_up,
        "probabilities": dict(verdict.probabilities),
        "unsure": verdict.unsure,
        "reasons": [reason.words for reason in verdict.why],
    }
