"""Export a journal to an archive, and import one into an empty journal."""

from pathlib import Path
from tempfile import TemporaryDirectory

from sqlmodel import col, delete, select

from emotion.errors import UserError
from emotion.journal.analyst import Analyst
from emotion.journal.archive import Archive, Rows, archived, linked, profile_name, write_archive
from emotion.journal.database import Database
from emotion.journal.folder import Folder
from emotion.journal.jobs import Report
from emotion.journal.learning import make_profile
from emotion.journal.schema import Entry, Observation, Person


class Transfer:
    """Exports and imports one journal."""

    def __init__(self, database: Database, folder: Folder, analyst: Analyst) -> None:
        self._database, self._folder, self._analyst = database, folder, analyst

    def export(self, path: Path, report: Report) -> int:
        """Write everything to an archive; return the number of entries."""
        with TemporaryDirectory(prefix="export-", dir=self._folder.pending) as links:
            with self._database.lock:
                rows = self._archived()
                files = linked(rows, self._folder, Path(links))
                files |= self._profiles(Path(links))
            write_archive(rows, files, path, report)
        return len(rows.entries)

    def read(self, path: Path, report: Report) -> int:
        """Read an archive, whole or not at all; return the number of entries."""
        with Archive.open(path) as archive:
            self._import(archive, report)
            return len(archive.rows.entries)

    def _profiles(self, folder: Path) -> dict[str, Path]:
        """Write all profiles into a folder; return their names in the archive -> paths."""
        files = {}
        with self._database.reading() as session:
            people = session.exec(select(Person)).all()
        for person in people:
            with self._database.reading() as session:
                history = self._analyst.history(session, person.id)
                query = select(Entry.id, Entry.sha256).where(Entry.person_id == person.id)
                contents = dict(session.exec(query).all())
            name = profile_name(person.id)
            files[name] = folder / Path(name).name
            make_profile(self._analyst.judge, history, contents).write(files[name])
        return files

    def _import(self, archive: Archive, report: Report) -> None:
        self._check_empty()
        rows = archive.rows
        for entry in rows.entries:
            observation = entry.observation
            if (
                observation
                and observation.model == self._analyst.features
                and len(observation.features) != 8 * len(self._analyst.judge.model.center)
            ):
                raise UserError(f"{entry.clip}: its features are not those of {observation.model}")
        try:
            archive.extract(self._folder, report)
            with self._database.lock:
                self._check_empty()
                with self._database.writing() as session:
                    session.exec(delete(Person))
                    session.add_all(
                        Person(**person.model_dump(), key=person.name.casefold())
                        for person in rows.people
                    )
                    session.flush()
                    entries = [
                        Entry(**entry.model_dump(exclude={"observation"})) for entry in rows.entries
                    ]
                    session.add_all(entries)
                    session.flush()
                    session.add_all(
                        Observation(entry_id=entry.id, **vars(entry.observation))
                        for entry in rows.entries
                        if entry.observation
                    )
                    session.flush()
                    self._analyst.analyze_foreign(session)
        except BaseException:
            for entry in rows.entries:
                (self._folder.pending / entry.clip_name).unlink(missing_ok=True)
                (self._folder.covers / entry.cover_name).unlink(missing_ok=True)
            raise
        self._folder.keep(entries)
        self._analyst.write_list()

    def _check_empty(self) -> None:
        with self._database.reading() as session:
            if session.exec(select(Entry.id).limit(1)).first():
                raise UserError(
                    "an archive can only be imported into a journal without entries: start with "
                    "another folder (--folder), or delete everything first"
                )

    def _archived(self) -> Rows:
        with self._database.reading() as session:
            people = session.exec(select(Person).order_by(col(Person.created_at), col(Person.id)))
            people = list(people)
            pairs = session.exec(
                select(Entry, Observation)
                .join(Observation, isouter=True)
                .order_by(col(Entry.added_at), col(Entry.id))
            ).all()
        return archived(people, pairs)
