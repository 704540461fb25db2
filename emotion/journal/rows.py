"""Work on rows in a transaction, for all parts of a journal."""

from datetime import date, datetime
from typing import TypeVar

from sqlmodel import Session, col, select, update

from emotion.errors import UserError
from emotion.journal.schema import Entry, Person

Row = TypeVar("Row", Person, Entry)


class NotFound(UserError):
    """There is no such person, entry or job."""


class Conflict(UserError):
    """Another page has changed the entry meanwhile."""


def found(session: Session, table: type[Row], row_id: str) -> Row:
    """Return a row by its id."""
    row = session.get(table, row_id)
    if row is None:
        raise NotFound(f"there is no such {table.__name__.lower()}: it may have been deleted")
    return row


def choose_cover(
    session: Session,
    person_id: str,
    day: date,
    preferred: str | None = None,
    avoided: str | None = None,
) -> None:
    """Make one entry the cover of a person's day, if there is any.

    That is the preferred one, or the cover so far, or the latest one with a picture; not the
    avoided one unless it is the only one.
    """
    of_day = (Entry.person_id == person_id, Entry.day == day)
    query = (
        select(Entry.id)
        .where(*of_day)
        .order_by(
            (col(Entry.id) == preferred).desc(),
            (col(Entry.id) == avoided).asc(),
            col(Entry.is_cover).desc(),
            col(Entry.has_picture).desc(),
            col(Entry.recorded_at).desc(),
        )
    )
    chosen = session.exec(query.limit(1)).first()
    for is_chosen in (False, True):  # there may not be two at any time
        session.exec(
            update(Entry)
            .where(*of_day, (col(Entry.id) == chosen) == is_chosen)
            .values(is_cover=is_chosen)
        )


def check_new_name(session: Session, name: str) -> None:
    """Raise a UserError if there is a person of this name."""
    if session.exec(select(Person).where(Person.key == name.casefold())).first():
        raise UserError(f"there is already a person named {name!r}: choose another name")


def local(moment: datetime) -> datetime:
    """Convert a moment with a time zone to local time; without one, it is local already."""
    return moment.astimezone().replace(tzinfo=None) if moment.tzinfo else moment
