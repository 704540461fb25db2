"""The journal: people, entries, what was found in them, and what is learned from corrections."""

import os
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Literal, NamedTuple

from babel.dates import format_date
from sqlalchemy import func, or_, text
from sqlmodel import col, delete, select, update

from emotion.errors import UserError
from emotion.files import claimed, open_regular
from emotion.journal import trends
from emotion.journal.analysis import STARTER
from emotion.journal.analyst import Analyst
from emotion.journal.database import Database
from emotion.journal.events import Events, Subscription
from emotion.journal.film import Scene, best_second, make_film
from emotion.journal.folder import Folder
from emotion.journal.jobs import Job, Jobs, Report
from emotion.journal.learning import shifts
from emotion.journal.old_clips import OldClip, find_old_clips
from emotion.journal.rows import Conflict, NotFound, check_new_name, choose_cover, found, local
from emotion.journal.schema import ANALYZING, WAITING, Entry, Observation, Person, new_id
from emotion.journal.transfer import Transfer
from emotion.journal.words import clean_name, clean_note, clean_tags

DATABASE = "journal.db"
EMOTION = func.coalesce(Entry.correction, Entry.label)  # `Entry.emotion`


class Glance(NamedTuple):
    """What a calendar shows of an entry, see `Entry`."""

    id: str
    day: date
    recorded_at: datetime
    state: str
    unsure: bool
    correction: str | None
    is_cover: bool
    has_picture: bool
    emotion: str | None


GLANCE = [name for name in Glance._fields if name != "emotion"]


@dataclass(frozen=True)
class ProfileSummary:
    """What a person's profile consists of."""

    model: str
    corrected: dict[str, int]  # label -> number of corrected entries that it learns from
    history: int  # uncorrected entries
    unused: int  # entries before the profile was forgotten, or of another model
    shifts: list[tuple[str, float]]  # see `Judge.shifts`


class Journal:
    """All of it; methods may be called from several threads.

    Raises of most methods: `NotFound`, a `UserError` for a wrong argument, an OSError for a fault
    of the machine. Nothing has changed then.
    """

    def __init__(self, folder: Folder, database: Database, model: str) -> None:
        """Use `open`."""
        self.problems: list[str] = []  # what the check at the start could not mend
        self.folder = folder
        self.changes = Events()
        self._database, self._resources = database, ExitStack()
        self._heavy = threading.Lock()  # jobs with worker processes run one at a time
        self._jobs = Jobs(self.changes)
        self._analyst = Analyst(database, folder, self.changes, model)
        self._transfer = Transfer(database, folder, self._analyst)
        self._settle()
        self._analyst.start()

    @classmethod
    def open(cls, folder: Path, model: str = STARTER) -> "Journal":
        """Open the journal in a folder, or begin one.

        Raises:
            UserError: another process has it open, its database is damaged, or the model cannot be
                used.
            OSError: of the machine.
        """
        files = Folder(Path(folder).expanduser().absolute())
        files.create()
        with ExitStack() as resources:
            resources.enter_context(claimed(files.root / "lock", f"the journal {files.root}"))
            database = Database(files.root / DATABASE)
            resources.callback(database.close)
            journal = cls(files, database, model)
            journal._resources = resources.pop_all()
            return journal

    def close(self) -> None:
        """End the analysis and free the folder; does nothing the second time."""
        self._jobs.close()
        self._analyst.close()
        self._resources.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def labels(self) -> list[str]:
        """The emotions that an entry can have."""
        return list(self._analyst.judge.labels)

    @property
    def fault(self) -> str:
        """Why entries cannot be analyzed at the moment; "" if they can."""
        return self._analyst.fault

    def events(self) -> Subscription:
        """Subscribe to changes: `entry`, `judged` and `job`."""
        return self.changes.subscribe()

    # people

    def people(self) -> list[Person]:
        """List all people by the time they were added."""
        with self._database.reading() as session:
            return list(session.exec(select(Person).order_by(col(Person.created_at))))

    def person(self, person_id: str) -> Person:
        """Return a person."""
        with self._database.reading() as session:
            return found(session, Person, person_id)

    def add_person(self, name: str) -> Person:
        """Add a person."""
        name = clean_name(name)
        with self._database.writing() as session:
            check_new_name(session, name)
            person = Person(name=name, key=name.casefold(), created_at=datetime.now())
            session.add(person)
        return person

    def rename_person(self, person_id: str, name: str) -> Person:
        """Give a person another name."""
        name = clean_name(name)
        with self._database.writing() as session:
            person = found(session, Person, person_id)
            if name.casefold() != person.key:
                check_new_name(session, name)
            person.name, person.key = name, name.casefold()
        return person

    def delete_person(self, person_id: str) -> None:
        """Delete a person with all entries and files."""
        with self._database.lock:
            with self._database.reading() as session:
                found(session, Person, person_id)
                entries = session.exec(select(Entry).where(Entry.person_id == person_id)).all()
            with self.folder.removing(entries), self._database.writing() as session:
                session.exec(delete(Person).where(col(Person.id) == person_id))
            self._analyst.write_list()
            self._database.forget()
        self.changes.send("deleted", person_id=person_id)

    # entries

    def receive(
        self,
        person_id: str,
        file: BinaryIO,
        name: str = "",
        recorded_at: datetime | None = None,
        note: str = "",
        tags: Iterable[str] = (),
    ) -> Entry:
        """Add an entry; its clip is analyzed soon.

        Args:
            person_id: whose entry it is.
            file: the clip, is read to its end.
            name: of the file, for errors.
            recorded_at: when; now if None. With a time zone, it is converted to local time.
            note: in words.
            tags: words.

        Returns:
            The new entry, or the one that has this clip already.
        """
        note, tags = clean_note(note), clean_tags(tags)
        self.person(person_id)
        entry_id, now = new_id(), datetime.now()
        received = self.folder.receive(file, entry_id)
        moment = local(recorded_at) if recorded_at else now
        entry = Entry(
            id=entry_id,
            person_id=person_id,
            day=moment.date(),
            recorded_at=moment.replace(microsecond=0),
            added_at=now,
            media_type=received.media_type,
            suffix=received.suffix,
            sha256=received.sha256,
            size=received.size,
            note=note,
            tags=tags,
        )
        try:
            with self._database.writing() as session:
                found(session, Person, person_id)
                known = session.exec(
                    select(Entry).where(
                        Entry.person_id == person_id, Entry.sha256 == received.sha256
                    )
                ).first()
                if known is None:
                    session.add(entry)
                    session.flush()
                    choose_cover(session, person_id, entry.day)
        except BaseException:
            received.path.unlink(missing_ok=True)
            raise
        if known is not None:
            received.path.unlink()
            return known
        self.folder.keep([entry])
        self.changes.entry_changed(entry)
        self._analyst.wake()
        return self.entry(entry_id)

    def entry(self, entry_id: str) -> Entry:
        """Return an entry."""
        with self._database.reading() as session:
            return found(session, Entry, entry_id)

    def entries(self, person_id: str, first: date, last: date) -> list[Entry]:
        """List a person's entries of some days, in order of time."""
        with self._database.reading() as session:
            query = (
                select(Entry)
                .where(Entry.person_id == person_id, col(Entry.day).between(first, last))
                .order_by(col(Entry.day), col(Entry.recorded_at), col(Entry.added_at))
            )
            return list(session.exec(query))

    def glances(self, person_id: str, first: date, last: date) -> list[Glance]:
        """List what a calendar shows of a person's entries, in order of time; fast for years."""
        query = (
            select(*(getattr(Entry, name) for name in GLANCE), EMOTION)
            .where(Entry.person_id == person_id, col(Entry.day).between(first, last))
            .order_by(col(Entry.day), col(Entry.recorded_at), col(Entry.added_at))
        )
        with self._database.reading() as session:
            return [Glance(*row) for row in session.exec(query)]

    def search(
        self,
        person_id: str,
        text: str = "",
        emotion: str | None = None,
        tag: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> list[Entry]:
        """List a person's entries, latest first.

        Args:
            person_id: whose entries.
            text: a part of the note, in any case.
            emotion: the correction, or else the label.
            tag: one of the tags.
            limit: how many entries.
            offset: how many to skip.
        """
        query = select(Entry).where(Entry.person_id == person_id)
        if text := text.strip():
            query = query.where(func.instr(func.casefold(Entry.note), text.casefold()) > 0)
        if emotion:
            query = query.where(emotion == EMOTION)
        if tag:
            tags = func.json_each(Entry.tags).table_valued("value")
            query = query.where(select(1).where(tags.c.value == tag).exists())
        query = query.order_by(
            col(Entry.day).desc(), col(Entry.recorded_at).desc(), col(Entry.added_at).desc()
        )
        with self._database.reading() as session:
            return list(session.exec(query.limit(limit).offset(offset)))

    def on_this_day(self, person_id: str, day: date) -> list[Entry]:
        """List a person's entries of the same day in other years, latest first."""
        query = (
            select(Entry)
            .where(
                Entry.person_id == person_id,
                func.strftime("%m-%d", Entry.day) == day.strftime("%m-%d"),
                Entry.day != day,
            )
            .order_by(col(Entry.day).desc(), col(Entry.recorded_at))
        )
        with self._database.reading() as session:
            return list(session.exec(query))

    def tags(self, person_id: str) -> list[str]:
        """List a person's tags, most used first."""
        query = text(
            "SELECT value FROM entry, json_each(entry.tags) WHERE person_id = :person "
            "GROUP BY value ORDER BY count(*) DESC, value"
        )
        with self._database.reading() as session:
            return list(session.execute(query, {"person": person_id}).scalars())

    def span(self, person_id: str) -> tuple[date, date] | None:
        """Return the first and the last day that has an entry."""
        query = select(func.min(Entry.day), func.max(Entry.day)).where(Entry.person_id == person_id)
        with self._database.reading() as session:
            first, last = session.exec(query).one()
        return None if first is None else (first, last)

    def media(self, entry: Entry, kind: Literal["clip", "cover"]) -> Path:
        """Return the path of an entry's clip or cover, which exists."""
        path = self.folder.clip(entry) if kind == "clip" else self.folder.cover(entry)
        if not path.is_file():
            raise NotFound(f"the {kind} of {entry.day} is missing: {path}")
        return path

    def correct(self, entry_id: str, label: str | None) -> Entry:
        """Set the emotion of an entry, or remove the correction; the profile learns from it."""
        if label is not None and label not in self.labels:
            raise UserError(f"the emotion must be one of {', '.join(self.labels)}, got {label!r}")
        with self._database.writing() as session:
            entry = found(session, Entry, entry_id)
            entry.correction = label
            entry.corrected_at = None if label is None else datetime.now()
            observation = session.get(Observation, entry_id)
            if observation is not None:
                observation.in_profile = True
            found(session, Person, entry.person_id).num_changes += 1
        self.changes.entry_changed(entry)
        self._analyst.wake()
        return entry

    def edit(
        self,
        entry_id: str,
        note: str | None = None,
        tags: Iterable[str] | None = None,
        day: date | None = None,
        is_cover: bool | None = None,
        version: int | None = None,
    ) -> Entry:
        """Change what is given of an entry.

        Args:
            entry_id: of the entry.
            note: in words.
            tags: words.
            day: in the calendar.
            is_cover: True makes it the cover of its day; False lets another entry be it.
            version: that the change was based on; None not to check.

        Raises:
            Conflict: the entry has another version.
        """
        note = None if note is None else clean_note(note)
        tags = None if tags is None else clean_tags(tags)
        with self._database.writing() as session:
            entry = found(session, Entry, entry_id)
            if version is not None and version != entry.version:
                raise Conflict(
                    "the entry was changed in another window: look at it again, then repeat the "
                    "change"
                )
            if note is not None:
                entry.note = note
            if tags is not None:
                entry.tags = tags
            if day is not None and day != entry.day:
                former, entry.day, entry.is_cover = entry.day, day, False
                session.flush()
                choose_cover(session, entry.person_id, former)
                choose_cover(session, entry.person_id, day)
            if is_cover is not None and is_cover != entry.is_cover:
                choose_cover(
                    session,
                    entry.person_id,
                    entry.day,
                    entry_id if is_cover else None,
                    None if is_cover else entry_id,
                )
            entry.version += 1
            session.flush()
            session.refresh(entry)
        self.changes.entry_changed(entry)
        return entry

    def delete(self, entry_id: str) -> None:
        """Delete an entry and its files."""
        with self._database.lock:
            entry = self.entry(entry_id)
            with self.folder.removing([entry]), self._database.writing() as session:
                session.exec(delete(Entry).where(col(Entry.id) == entry_id))
                choose_cover(session, entry.person_id, entry.day)
                session.exec(
                    update(Person)
                    .where(col(Person.id) == entry.person_id)
                    .values(num_changes=Person.num_changes + 1)
                )
            self._database.forget()
        self.changes.send("deleted", id=entry_id, person_id=entry.person_id)
        self._analyst.wake()

    def delete_everything(self) -> None:
        """Delete all people, entries and files."""
        with self._database.lock:
            entries = self._all_entries()
            with self.folder.removing(entries), self._database.writing() as session:
                session.exec(delete(Person))
            self._analyst.write_list()
            self._database.forget(everything=True)
        self.changes.send("deleted")

    # looking back

    def shares(self, person_id: str, days: Literal[7, 30]) -> list[trends.Share]:
        """Return the share of each emotion in the `days` up to each day."""
        return list(trends.moving_shares(self._emotions(person_id), self.labels, days))

    def by_weekday(self, person_id: str) -> list[trends.WeekdayShare]:
        """Return the share of each emotion on each weekday."""
        return list(trends.weekday_shares(self._emotions(person_id), self.labels))

    def recognition(self, person_id: str) -> list[trends.Recognition]:
        """Return the share of the last 20 entries that were right before correction, after each.

        An uncorrected entry counts as right; it is left out if the answer was unsure.
        """
        query = (
            select(Entry.id, Entry.day, Entry.found, Entry.correction, Entry.found_unsure)
            .where(Entry.person_id == person_id, col(Entry.found).is_not(None))
            .order_by(col(Entry.added_at))
        )
        with self._database.reading() as session:
            rows = session.exec(query).all()
        answers = [
            (entry_id, day, correction in (None, label))
            for entry_id, day, label, correction, unsure in rows
            if not (unsure and correction is None)
        ]
        return list(trends.recognition(answers))

    def _emotions(self, person_id: str) -> list[tuple[date, str]]:
        query = (
            select(Entry.day, EMOTION)
            .where(Entry.person_id == person_id, EMOTION.is_not(None))
            .order_by(col(Entry.day))
        )
        with self._database.reading() as session:
            return [tuple(row) for row in session.exec(query)]

    # the profile

    def profile_summary(self, person_id: str) -> ProfileSummary:
        """Return what a person's profile consists of."""
        with self._database.reading() as session:
            found(session, Person, person_id)
            query = (
                select(Observation.model, Observation.in_profile, Entry.correction)
                .join(Entry)
                .where(Entry.person_id == person_id)
            )
            rows = session.exec(query).all()
            posterior = self._analyst.history(session, person_id).person(self._analyst.judge)
        used = [
            label for model, is_used, label in rows if is_used and model == self._analyst.features
        ]
        counts = {label: used.count(label) for label in self.labels if label in used}
        return ProfileSummary(
            self._analyst.model,
            counts,
            used.count(None),
            len(rows) - len(used),
            shifts(self._analyst.judge, posterior),
        )

    def rebuild_profile(self, person_id: str) -> None:
        """Learn from all entries, those before the profile was forgotten too."""
        self._set_in_profile(person_id, True)

    def forget_profile(self, person_id: str) -> None:
        """Learn from no entry so far; corrections remain, and those made later are learned from."""
        self._set_in_profile(person_id, False)

    def _set_in_profile(self, person_id: str, is_used: bool) -> None:
        with self._database.writing() as session:
            found(session, Person, person_id).num_changes += 1
            entries = select(Entry.id).where(Entry.person_id == person_id).scalar_subquery()
            session.exec(
                update(Observation)
                .where(col(Observation.entry_id).in_(entries))
                .values(in_profile=is_used)
            )
        self._analyst.wake()

    # jobs

    def jobs(self) -> list[Job]:
        """List all jobs since the start, latest first."""
        return self._jobs.list()

    def job(self, job_id: str) -> Job:
        """Return a job."""
        if job := self._jobs.get(job_id):
            return job
        raise NotFound("there is no such job: its result was removed when the journal was closed")

    def start_export(self) -> Job:
        """Write everything to a ZIP file; see `archive`."""

        def export(job_id: str, report: Report) -> dict[str, Any]:
            path = self.folder.results / job_id / f"emotion-journal-{date.today()}.zip"
            num_entries = self._transfer.export(path, report)
            return {"path": path, "message": f"{num_entries} entries"}

        return self._jobs.start("export", export)

    def start_import(self, archive: Path) -> Job:
        """Read an archive into this journal, which has no entries, whole or not at all.

        People without entries are removed. If the archive lies in `staging`, its folder is removed.
        """

        def read(_: str, report: Report) -> dict[str, Any]:
            try:
                num_entries = self._transfer.read(archive, report)
            finally:
                self._unstage(archive.parent)
            self.changes.send("imported")
            self._analyst.wake()
            return {"message": f"{num_entries} entries"}

        return self._jobs.start("import", read)

    def start_film(self, person_id: str, first: date, last: date, locale: str = "en") -> Job:
        """Make a film of the covers of some days; see `film`.

        Args:
            person_id: whose days.
            first: day.
            last: day.
            locale: of the dates in the film.
        """
        with self._database.reading() as session:
            found(session, Person, person_id)
            query = (
                select(Entry)
                .where(
                    Entry.person_id == person_id,
                    col(Entry.is_cover),
                    col(Entry.has_picture),
                    col(Entry.day).between(first, last),
                )
                .order_by(col(Entry.day))
            )
            entries = session.exec(query).all()
        if not entries:
            raise UserError(f"no clips from {first} to {last}: choose other days")
        scenes = [
            Scene(
                self.folder.clip(entry),
                best_second(entry.timeline, entry.emotion, entry.duration_s),
                format_date(entry.day, "long", locale),
            )
            for entry in entries
        ]

        def make(job_id: str, report: Report) -> dict[str, Any]:
            path = self.folder.results / job_id / f"film-{first}-{last}.mp4"
            num_workers = max(1, (os.cpu_count() or 1) - 1)
            missing: list[str] = []
            with (
                self._heavy,
                TemporaryDirectory(prefix="film-", dir=self.folder.pending) as folder,
            ):
                for tried, failed in make_film(scenes, path, Path(folder), num_workers):
                    report(tried / len(scenes))
                    missing = failed
            message = f"{len(scenes) - len(missing)} days"
            if missing:
                message += f"; these clips cannot be read: {', '.join(missing)}"
            return {"path": path, "message": message}

        return self._jobs.start("film", make, person_id)

    def staging(self) -> Path:
        """Create a folder for uploads of `start_old_clips` or `start_import`."""
        return self.folder.staging()

    def start_old_clips(self, person_id: str, folder: Path) -> Job:
        """Find the clips in a folder; nothing is kept before `start_keeping`."""
        self.person(person_id)
        with self._database.reading() as session:
            known = set(session.exec(select(Entry.sha256).where(Entry.person_id == person_id)))
        folder = folder.expanduser()

        def scan(_: str, report: Report) -> dict[str, Any]:
            clips: list[OldClip] = []
            with self._heavy:
                for total, clips in find_old_clips(folder, known):
                    report(len(clips) / total)
            return {"found": tuple(clips), "message": f"{len(clips)} files"}

        return self._jobs.start("scan", scan, person_id)

    def start_keeping(
        self, scan_id: str, chosen: Sequence[int], dates: Mapping[int, datetime] | None = None
    ) -> Job:
        """Add clips that `start_old_clips` has found.

        Args:
            scan_id: of its job.
            chosen: places in `Job.found`.
            dates: place -> when it was recorded, where it differs from what was found.
        """
        scan = self.job(scan_id)
        if scan.kind != "scan" or not all(0 <= place < len(scan.found) for place in chosen):
            raise UserError("these clips were not found: search the folder again")

        def keep(_: str, report: Report) -> dict[str, Any]:
            missing = []
            for number, place in enumerate(chosen):
                clip = scan.found[place]
                try:
                    with open(clip.path, "rb", opener=open_regular) as file:
                        moment = (dates or {}).get(place, clip.recorded_at)
                        self.receive(scan.person_id, file, clip.name, moment)
                except (UserError, FileNotFoundError) as error:
                    missing.append(f"{clip.name}: {error}")
                report((number + 1) / len(chosen))
            if chosen:
                self._unstage(scan.found[chosen[0]].path.parent)
            message = f"{len(chosen) - len(missing)} clips"
            return {"message": "; ".join([message, *missing])}

        return self._jobs.start("keep", keep, scan.person_id)

    def _unstage(self, folder: Path) -> None:
        """Remove a folder of `staging`, given it or one below it."""
        for each in (folder, *folder.parents):
            if each.parent == self.folder.pending:
                shutil.rmtree(each, ignore_errors=True)

    # the start

    def _all_entries(self) -> list[Entry]:
        with self._database.reading() as session:
            return list(session.exec(select(Entry)))

    def _settle(self) -> None:
        """Make files and rows agree, and continue what was interrupted."""
        self.problems, lost = self.folder.settle(self._all_entries())
        with self._database.writing() as session:
            again = or_(Entry.state == ANALYZING, col(Entry.id).in_([each.id for each in lost]))
            session.exec(update(Entry).where(again).values(state=WAITING))
            self._analyst.analyze_foreign(session)
        self._analyst.write_list()
