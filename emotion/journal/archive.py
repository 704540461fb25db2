"""Write a journal to one ZIP file, and read such a file into an empty journal.

It holds `entries.json` (everything in the database, scores as numbers), `entries.csv` (for
spreadsheets), `clips/`, `covers/`, and `profiles/` (for `predict.py person=FILE`; an import builds
the profiles from the entries). The same journal always gives the same bytes. Reading trusts
nothing: only files that `entries.json` names are read, under names that are made here, and their
sizes and digests must agree.
"""

import csv
import json
import os
import shutil
import stat
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Annotated, BinaryIO, Literal
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from pydantic import (
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    ValidationError,
    field_validator,
    model_validator,
)

from emotion.clips.drive import kind_flaw_of
from emotion.errors import UserError, first_problem, is_machine_fault
from emotion.escape import for_spreadsheet, for_terminal
from emotion.evaluation.predictions import PROBABILITY
from emotion.files import CHUNK_BYTES, ZIP_ERRORS, unfinished
from emotion.journal.folder import HEAD_BYTES, MAX_CLIP_BYTES, Folder, sniff, sync
from emotion.journal.jobs import Report
from emotion.journal.schema import (
    STATES,
    WAITING,
    Entry,
    EntryFields,
    Observation,
    Person,
)
from emotion.journal.words import clean_name, clean_note, clean_tags

FORMAT = 1
ROWS, TABLE = "entries.json", "entries.csv"
MAX_ROWS_BYTES = 1 << 30
MAX_COVER_BYTES = 4 << 20
JPEG = b"\xff\xd8\xff"
EPOCH = (1980, 1, 1, 0, 0, 0)  # of ZIP files
REMEDY = "use a file that the journal's export wrote"


Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Strict(BaseModel):
    """A part of `entries.json`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ArchivedPart(Strict):
    """A part of a timeline."""

    start_s: float
    stop_s: float
    probabilities: dict[str, float]


class ArchivedObservation(Strict):
    """Features, as bytes in base64: float64 and float32, little-endian."""

    model: str
    features: Base64Bytes
    parts: Base64Bytes
    in_profile: bool


class ArchivedPerson(Strict):
    """A person."""

    id: Id
    name: str
    created_at: NaiveDatetime

    @field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        """Apply the rules of names."""
        return clean_name(name)


class ArchivedEntry(EntryFields):
    """An entry. Its id and suffix become the name of a file."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    id: Id
    person_id: Id
    suffix: Annotated[str, Field(pattern=r"^\.[a-z0-9]{3,4}$")]  # see `sniff`
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1, le=MAX_CLIP_BYTES)]
    state: Literal[STATES]
    timeline: list[ArchivedPart] = Field(default_factory=list)
    observation: ArchivedObservation | None = None

    @field_validator("note")
    @classmethod
    def check_note(cls, note: str) -> str:
        """Apply the rules of notes."""
        return clean_note(note)

    @field_validator("tags")
    @classmethod
    def check_tags(cls, tags: list[str]) -> list[str]:
        """Apply the rules of tags."""
        return clean_tags(tags)

    @model_validator(mode="after")
    def check(self) -> "ArchivedEntry":
        """Check what depends on other values."""
        if self.observation:
            values = (
                np.frombuffer(self.observation.features),
                np.frombuffer(self.observation.parts, np.float32),
            )
            if not all(np.isfinite(each).all() for each in values):
                raise ValueError("features are not finite")
            if len(values[1]) not in (0, len(self.timeline) * len(values[0])):
                raise ValueError("features do not fit the timeline")
        return self

    @property
    def clip(self) -> str:
        """The name of the clip in the archive."""
        return f"clips/{self.clip_name}"

    @property
    def cover(self) -> str:
        """The name of the cover in the archive."""
        return f"covers/{self.cover_name}"


class Rows(Strict):
    """The content of `entries.json`."""

    format: int
    people: list[ArchivedPerson]
    entries: list[ArchivedEntry]

    @model_validator(mode="after")
    def check(self) -> "Rows":
        """Check what the tables demand."""
        people = {person.id for person in self.people}
        keys = {person.name.casefold() for person in self.people}
        ids = {entry.id for entry in self.entries}
        contents = {(entry.person_id, entry.sha256) for entry in self.entries}
        covers = [(entry.person_id, entry.day) for entry in self.entries if entry.is_cover]
        if not len(people) == len(keys) == len(self.people):
            raise ValueError("two people have the same id or name")
        if not len(ids) == len(contents) == len(self.entries):
            raise ValueError("two entries have the same id or clip")
        if len(set(covers)) < len(covers):
            raise ValueError("a day has two covers")
        if any(entry.person_id not in people for entry in self.entries):
            raise ValueError("an entry belongs to no person")
        return self


def archived(people: Iterable[Person], entries: Iterable[tuple[Entry, Observation | None]]) -> Rows:
    """Make the content of `entries.json` of rows."""
    return Rows.model_construct(
        format=FORMAT,
        people=[
            ArchivedPerson(id=person.id, name=person.name, created_at=person.created_at)
            for person in people
        ],
        entries=[archived_entry(*pair) for pair in entries],
    )


def archived_entry(entry: Entry, observation: Observation | None) -> ArchivedEntry:
    """Make a part of `entries.json` of rows. An analysis under way has to be repeated."""
    values = entry.model_dump(exclude={"version"})
    if entry.state not in STATES[2:]:
        values["state"] = WAITING
    if observation is not None:
        values["observation"] = {
            "model": observation.model,
            "features": b64encode(observation.features),
            "parts": b64encode(observation.parts),
            "in_profile": observation.in_profile,
        }
    return ArchivedEntry.model_validate(values)


def linked(rows: Rows, folder: Folder, into: Path) -> dict[str, Path]:
    """Link all clips and covers into a new folder, so that they last while they are written.

    Returns:
        Their names in the archive -> paths; the files themselves where links are not possible.
    """
    files = {}
    for entry in rows.entries:
        names = {entry.clip: folder.clips / entry.clip_name}
        if entry.has_picture:
            names[entry.cover] = folder.covers / entry.cover_name
        for name, path in names.items():
            try:
                os.link(path, into / path.name)
                files[name] = into / path.name
            except FileNotFoundError:
                raise UserError(f"{path} is missing: restore it, or delete its entry") from None
            except OSError:
                files[name] = path
    return files


def write_archive(rows: Rows, files: Mapping[str, Path], path: Path, report: Report) -> None:
    """Write an archive, atomically.

    Raises:
        UserError: there is too little space, or a file was removed meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = rows.model_dump_json(indent=1, exclude_defaults=False).encode()
    sizes = {name: file.stat().st_size for name, file in files.items()}
    check_space(path.parent, sum(sizes.values()) + len(content))
    moments = {}
    for entry in rows.entries:
        moments[entry.clip] = moments[entry.cover] = entry.recorded_at
    done, total = 0, max(1, sum(sizes.values()))
    with unfinished(path) as temporary, ZipFile(temporary, "w", allowZip64=True) as archive:
        archive.writestr(member(ROWS), content, ZIP_DEFLATED)
        archive.writestr(member(TABLE), table(rows), ZIP_DEFLATED)
        for name, file in files.items():
            info = member(name, moments.get(name))
            info.file_size = sizes[name]
            try:
                source = file.open("rb")
            except FileNotFoundError:
                raise UserError("an entry was deleted during the export: export again") from None
            with source, archive.open(info, "w") as copy:
                while chunk := source.read(CHUNK_BYTES):
                    copy.write(chunk)
                    done += len(chunk)
                    report(done / total)
        archive.close()
        with temporary.open("rb") as written:
            os.fsync(written.fileno())


def profile_name(person_id: str) -> str:
    """Return the name of a person's profile in the archive."""
    return f"profiles/{person_id}.json"


def member(name: str, moment: datetime | None = None) -> ZipInfo:
    """Make the header of a file in an archive, with mode 600."""
    when = moment.timetuple()[:6] if moment else EPOCH
    info = ZipInfo(name, when if EPOCH <= when < (2108,) else EPOCH)
    info.compress_type = ZIP_STORED
    info.external_attr = (stat.S_IFREG | 0o600) << 16
    return info


def table(rows: Rows) -> str:
    """Write the entries as CSV, a row for each."""
    names = {person.id: person.name for person in rows.people}
    labels = sorted({label for entry in rows.entries for label in entry.probabilities or {}})
    columns = [
        *("id", "person", "day", "recorded_at", "emotion", "correction", "label", "probability"),
        *("runner_up", "unsure", "found", "state", "model", "note", "tags", "is_cover"),
        *("duration_s", "clip"),
        *(PROBABILITY + label for label in labels),
    ]
    text = StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for entry in rows.entries:
        values = {name: getattr(entry, name) for name in columns if hasattr(entry, name)}
        values |= {
            "person": names[entry.person_id],
            "recorded_at": entry.recorded_at.isoformat(),
            "tags": "; ".join(entry.tags),
            **{PROBABILITY + label: p for label, p in (entry.probabilities or {}).items()},
        }
        writer.writerow(
            {k: for_spreadsheet(v) if isinstance(v, str) else v for k, v in values.items()}
        )
    return text.getvalue()


def check_space(folder: Path, needed: int) -> None:
    """Raise a UserError if a folder's disk has less space."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{needed / 1e6:.0f} MB are needed in {folder}, {free / 1e6:.0f} MB are free: make room"
        )


@dataclass(frozen=True)
class Archive:
    """An archive whose rows were read and checked."""

    rows: Rows
    _file: ZipFile
    _resources: ExitStack

    @classmethod
    def open(cls, path: Path) -> "Archive":
        """Read the rows, and check which files there are.

        Raises:
            UserError: it is no archive of a journal, or damaged.
        """
        with ExitStack() as closing:
            with damage_reported("it is no ZIP file, or damaged"):
                archive = closing.enter_context(ZipFile(path))
                infos = archive.infolist()
                names = [info.filename for info in infos]
            for info in infos:
                if flaw := "is a folder" if info.is_dir() else kind_flaw_of(info):
                    name = shown(info.filename)
                    raise UserError(f"{name} is no plain file, it {flaw}: {REMEDY}")
            if len(set(names)) < len(names):
                raise UserError(f"two files in it have the same name: {REMEDY}")
            if ROWS not in names:
                raise UserError(f"it has no {ROWS}: {REMEDY}")
            rows = read_rows(read_member(archive, ROWS, MAX_ROWS_BYTES))
            expected = {ROWS, TABLE, *(entry.clip for entry in rows.entries)}
            expected |= {entry.cover for entry in rows.entries if entry.has_picture}
            expected |= {profile_name(person.id) for person in rows.people}
            for name in sorted(expected.symmetric_difference(names)):
                what = "is missing" if name in expected else "belongs to no entry"
                raise UserError(f"{shown(name)} {what}: {REMEDY}")
            return cls(rows, archive, closing.pop_all())

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def extract(self, folder: Folder, report: Report) -> None:
        """Write the clips to `pending` and the covers to their place, through to the disk.

        Raises:
            UserError: there is too little space, or a file is not as `entries.json` says.
        """
        total = max(1, sum(entry.size for entry in self.rows.entries))
        check_space(folder.root, total)
        done = 0
        for entry in self.rows.entries:
            head = self._extract_clip(entry, folder.pending / entry.clip_name)
            if sniff(head) != (entry.media_type, entry.suffix):
                raise UserError(f"{entry.clip} is no {entry.media_type}: {REMEDY}")
            if entry.has_picture:
                content = read_member(self._file, entry.cover, MAX_COVER_BYTES)
                if not content.startswith(JPEG):
                    raise UserError(f"{entry.cover} is no JPEG: {REMEDY}")
                with unfinished(folder.covers / entry.cover_name) as temporary:
                    temporary.write_bytes(content)
            done += entry.size
            report(done / total)
        sync(folder.pending)
        sync(folder.covers)

    def _extract_clip(self, entry: ArchivedEntry, path: Path) -> bytes:
        """Write a clip and return its first bytes."""
        hasher, size, head = sha256(), 0, b""
        for chunk, copy in self._copied(entry.clip, path):
            head = (head + chunk)[:HEAD_BYTES]
            size += len(chunk)
            if size > entry.size:
                break
            hasher.update(chunk)
            copy.write(chunk)
        if (size, hasher.hexdigest()) != (entry.size, entry.sha256):
            raise UserError(f"{entry.clip} is not the clip that was exported: {REMEDY}")
        return head

    def _copied(self, name: str, path: Path) -> Iterator[tuple[bytes, BinaryIO]]:
        with (
            damage_reported(f"{name} is damaged"),
            self._file.open(name) as source,
            path.open("wb") as copy,
        ):
            while chunk := source.read(CHUNK_BYTES):
                yield chunk, copy
            copy.flush()
            os.fsync(copy.fileno())


def read_rows(content: bytes) -> Rows:
    """Parse and check `entries.json`, or raise a UserError."""
    try:
        number = json.loads(content).get("format")
    except (ValueError, AttributeError, RecursionError):
        number = None
    if number != FORMAT:
        raise UserError(
            f"{ROWS}: its format is {shown(repr(number))}, this version reads {FORMAT}: {REMEDY}, "
            "or the version of the journal that wrote it"
        )
    try:
        return Rows.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"{ROWS}: {shown(first_problem(error))}: {REMEDY}") from None


def read_member(archive: ZipFile, name: str, limit: int) -> bytes:
    """Read a file in an archive, or raise a UserError if it has more than `limit` bytes."""
    with damage_reported(f"{name} is damaged"), archive.open(name) as source:
        content = source.read(limit + 1)
    if len(content) > limit:
        raise UserError(f"{name} has more than {limit >> 20} MiB: {REMEDY}")
    return content


@contextmanager
def damage_reported(what: str) -> Iterator[None]:
    """Raise what `zipfile` raises for damaged files as a UserError."""
    try:
        yield
    except UserError:
        raise
    except ZIP_ERRORS as error:
        raise UserError(f"{what} ({shown(str(error))}): {REMEDY}") from None
    except OSError as error:  # such as a seek before the start
        if is_machine_fault(error) or error.filename:
            raise
        raise UserError(f"{what} ({error.strerror}): {REMEDY}") from None


def shown(text: str) -> str:
    """Return a foreign text, shortened, for an error."""
    return for_terminal(text if len(text) <= 200 else f"{text[:200]}...").replace("\n", " ")
