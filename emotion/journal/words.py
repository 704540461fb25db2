"""The rules for what a person writes: names, notes and tags."""

from collections.abc import Iterable

from emotion.errors import UserError
from emotion.journal.schema import MAX_NAME, MAX_NOTE, MAX_TAG, MAX_TAGS


def clean_name(name: str) -> str:
    """Return the name of a person without needless blanks, or raise a UserError."""
    name = " ".join(storable(name).split())
    if not 0 < len(name) <= MAX_NAME:
        raise UserError(f"a name must have 1 to {MAX_NAME} characters, got {len(name)}")
    return name


def clean_note(note: str) -> str:
    """Return a note as it is kept, or raise a UserError."""
    note = storable(note).replace("\r\n", "\n").strip()
    if len(note) > MAX_NOTE:
        raise UserError(f"a note may have {MAX_NOTE} characters, got {len(note)}: shorten it")
    return note


def clean_tags(tags: Iterable[str]) -> list[str]:
    """Return tags without needless blanks and repetitions, or raise a UserError."""
    kept: dict[str, str] = {}
    for tag in tags:
        if tag := " ".join(storable(tag).split()):
            kept.setdefault(tag.casefold(), tag)
    if len(kept) > MAX_TAGS or any(len(tag) > MAX_TAG for tag in kept.values()):
        raise UserError(f"an entry may have {MAX_TAGS} tags of up to {MAX_TAG} characters each")
    return list(kept.values())


def storable(text: str) -> str:
    """Replace what SQLite or UTF-8 cannot hold."""
    return text.encode(errors="replace").decode().replace("\0", "")
