"""The tables of a journal. A change needs a migration in `migrations/versions`."""

from datetime import date
from typing import Any
from uuid import uuid4

from pydantic import NaiveDatetime
from sqlalchemy import JSON, Index, LargeBinary, UniqueConstraint, text
from sqlmodel import Field, SQLModel

WAITING, ANALYZING, DONE = "waiting", "analyzing", "done"
NO_FACE, BROKEN = "no_face", "broken"
STATES = (WAITING, ANALYZING, DONE, NO_FACE, BROKEN)
MAX_NAME, MAX_NOTE, MAX_TAG, MAX_TAGS = 80, 20_000, 50, 30  # characters, and tags of an entry


def new_id() -> str:
    """Return a random id, 32 hexadecimal digits."""
    return uuid4().hex


class Person(SQLModel, table=True):
    """A person with a calendar and a profile."""

    id: str = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=MAX_NAME)
    key: str = Field(unique=True)  # the name for comparisons: two names may not differ in case only
    created_at: NaiveDatetime
    num_changes: int = 0  # of the profile, by which entries have not been judged again yet


class EntryFields(SQLModel):
    """What an archive holds of an entry."""

    id: str = Field(default_factory=new_id, primary_key=True)
    person_id: str = Field(foreign_key="person.id", ondelete="CASCADE")
    day: date
    recorded_at: NaiveDatetime  # local time
    added_at: NaiveDatetime
    media_type: str
    suffix: str  # of the clip's file
    sha256: str
    size: int  # bytes
    duration_s: float | None = None
    state: str = WAITING
    # the answer, judged again when the profile has changed
    label: str | None = None
    probability: float | None = None
    runner_up: str | None = None
    probabilities: dict[str, float] | None = Field(default=None, sa_type=JSON)
    unsure: bool = False
    reasons: list[str] = Field(default_factory=list, sa_type=JSON)  # for the label, or for none
    # of each part: start_s, stop_s, probabilities
    timeline: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    model: str | None = None  # that answered
    # the answer when the entry came
    found: str | None = None
    found_unsure: bool = False
    # what the person says
    correction: str | None = None
    corrected_at: NaiveDatetime | None = None
    note: str = Field(default="", max_length=MAX_NOTE)
    tags: list[str] = Field(default_factory=list, sa_type=JSON)
    is_cover: bool = False  # of its day
    has_picture: bool = False

    @property
    def emotion(self) -> str | None:
        """The correction, or else the label."""
        return self.correction or self.label

    @property
    def clip_name(self) -> str:
        """The name of the clip's file."""
        return f"{self.id}{self.suffix}"

    @property
    def cover_name(self) -> str:
        """The name of the cover's file."""
        return f"{self.id}.jpg"


class Entry(EntryFields, table=True):
    """A clip, what was found in it, and what the person says about it."""

    __table_args__ = (
        UniqueConstraint("person_id", "sha256"),
        Index("entry_days", "person_id", "day"),
        Index("one_cover", "person_id", "day", unique=True, sqlite_where=text("is_cover")),
        Index("unfinished", "added_at", sqlite_where=text("state IN ('waiting', 'analyzing')")),
    )

    version: int = 1  # grows with each change by the person


class Observation(SQLModel, table=True):
    """The features of an entry's clip, for its person's profile."""

    entry_id: str = Field(primary_key=True, foreign_key="entry.id", ondelete="CASCADE")
    model: str  # whose features they are
    features: bytes = Field(sa_type=LargeBinary)  # (D,) float64, of the clip
    parts: bytes = Field(sa_type=LargeBinary)  # (P, D) float32, of the parts of its timeline
    in_profile: bool = True  # False once the profile was forgotten
