"""What a person does: each request changes the journal, or starts a job that does.

Forms answer with a redirect to a page. Uploads come as raw bodies, which are read as they arrive:
no part of a clip is kept in memory, and nothing is kept of an upload that breaks off.
"""

import asyncio
import io
import json
import shutil
from collections.abc import AsyncIterator
from datetime import date, datetime
from functools import partial
from typing import Annotated

import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from emotion.errors import UserError
from emotion.journal.journal import NotFound
from emotion.journal.web.dates import Dates
from emotion.journal.web.pages import entry_of, journal_of

MAX_CLIP_BYTES = 500 << 20  # a minute of a phone's 4K video
CHUNK_BYTES = 1 << 20
POLL_S = 0.2  # how often waiting events are looked for
HEARTBEAT_S = 15  # a comment, so that a closed page is noticed

router = APIRouter()
Text = Annotated[str, Form()]


class Upload(io.RawIOBase):
    """The body of a request as a file, for a thread of the server's pool.

    Raises:
        UserError: the body is larger than `max_bytes`, or the browser has disconnected.
    """

    def __init__(self, request: Request, max_bytes: int):
        self.chunks = request.stream().__aiter__()
        self.max_bytes = max_bytes
        self.rest = b""
        self.num_bytes = 0
        self.check(int(request.headers.get("content-length", "0")))

    def check(self, num_bytes: int) -> None:
        """Raise UserError if the body is, or claims to be, too large."""
        if num_bytes > self.max_bytes:
            raise UserError(f"a clip may have {self.max_bytes >> 20} MiB at most: cut it shorter")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Read up to the buffer's size; 0 at the end."""
        from starlette.requests import ClientDisconnect

        while not self.rest:
            try:
                self.rest = anyio.from_thread.run(self.chunks.__anext__)
            except StopAsyncIteration:
                return 0
            except ClientDisconnect:
                raise UserError("the upload was broken off: nothing was kept") from None
            self.num_bytes += len(self.rest)
            self.check(self.num_bytes)
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


def go(path: str) -> RedirectResponse:
    """Send the browser to a page."""
    return RedirectResponse(path, 303)


@router.post("/people")
def add_person(request: Request, name: Text) -> Response:
    """Add a person."""
    return go(f"/people/{journal_of(request).add_person(name).id}")


@router.post("/people/{person_id}/name")
def rename_person(request: Request, person_id: str, name: Text) -> Response:
    """Rename a person."""
    journal_of(request).rename_person(person_id, name)
    return go("/household")


@router.post("/people/{person_id}/delete")
def delete_person(request: Request, person_id: str) -> Response:
    """Delete a person with all entries."""
    journal_of(request).delete_person(person_id)
    return go("/household")


@router.post("/people/{person_id}/entries")
async def add_entry(
    request: Request,
    person_id: str,
    name: Annotated[str, Query(max_length=1000)] = "clip",
    recorded_at: datetime | None = None,
    note: Annotated[str, Query(max_length=20_000)] = "",
    tags: Annotated[str, Query(max_length=2000)] = "",
) -> Response:
    """Keep a clip, the body of the request; answer with the address of its entry."""
    journal = journal_of(request)
    upload = io.BufferedReader(Upload(request, MAX_CLIP_BYTES), CHUNK_BYTES)
    receive = partial(
        journal.receive, person_id, upload, name, recorded_at, note=note, tags=split_tags(tags)
    )
    entry = await anyio.to_thread.run_sync(receive)
    return JSONResponse({"id": entry.id, "url": f"/people/{person_id}/entries/{entry.id}"}, 201)


def split_tags(text: str) -> list[str]:
    """Split tags at commas and drop empty and repeated ones.

    >>> split_tags("sea, with Ada,,sea")
    ['sea', 'with Ada']
    """
    words = (" ".join(tag.split()) for tag in text.split(","))
    return list(dict.fromkeys(word for word in words if word))


@router.post("/people/{person_id}/entries/{entry_id}/correct")
def correct(request: Request, person_id: str, entry_id: str, label: Text = "") -> Response:
    """Set the right emotion; an empty label takes the correction back."""
    journal = journal_of(request)
    entry_of(journal, person_id, entry_id)
    journal.correct(entry_id, label or None)
    return go(f"/people/{person_id}/entries/{entry_id}")


@router.post("/people/{person_id}/entries/{entry_id}/edit")
def edit(
    request: Request, person_id: str, entry_id: str, version: Annotated[int, Form()],
    day: Annotated[date, Form()], note: Text = "", tags: Text = "",
) -> Response:  # fmt: skip
    """Change the note, the tags and the day; refused if another tab changed them meanwhile."""
    journal = journal_of(request)
    entry_of(journal, person_id, entry_id)
    journal.edit(entry_id, note=note, tags=split_tags(tags), day=day, version=version)
    return go(f"/people/{person_id}/entries/{entry_id}")


@router.post("/people/{person_id}/entries/{entry_id}/cover")
def make_cover(request: Request, person_id: str, entry_id: str) -> Response:
    """Make an entry the cover of its day."""
    journal = journal_of(request)
    entry_of(journal, person_id, entry_id)
    journal.edit(entry_id, is_cover=True)
    return go(f"/people/{person_id}/entries/{entry_id}")


@router.post("/people/{person_id}/entries/{entry_id}/delete")
def delete(request: Request, person_id: str, entry_id: str) -> Response:
    """Delete an entry with its files."""
    journal = journal_of(request)
    day = entry_of(journal, person_id, entry_id).day
    journal.delete(entry_id)
    return go(f"/people/{person_id}?month={day:%Y-%m}")


@router.post("/people/{person_id}/profile/rebuild")
def rebuild_profile(request: Request, person_id: str) -> Response:
    """Learn again from all entries."""
    journal_of(request).rebuild_profile(person_id)
    return go(f"/people/{person_id}/profile")


@router.post("/people/{person_id}/profile/forget")
def forget_profile(request: Request, person_id: str) -> Response:
    """Forget what was learned; entries and corrections stay."""
    journal_of(request).forget_profile(person_id)
    return go(f"/people/{person_id}/profile")


@router.post("/delete-everything")
def delete_everything(request: Request, sure: Text = "") -> Response:
    """Delete all people, entries and files, if the person typed `delete`."""
    if sure.strip().lower() != "delete":
        raise UserError("nothing was deleted: type the word delete to delete everything")
    journal_of(request).delete_everything()
    return go("/")


@router.post("/export")
def export(request: Request) -> Response:
    """Start writing everything to a ZIP."""
    journal_of(request).start_export()
    return go("/household#jobs")


@router.post("/import")
async def import_archive(request: Request) -> Response:
    """Start importing an exported ZIP, the body of the request."""
    journal = journal_of(request)

    def receive() -> None:
        folder = journal.staging()
        path = folder / "import.zip"
        try:
            free = shutil.disk_usage(folder).free
            with open(path, "xb") as file:
                shutil.copyfileobj(io.BufferedReader(Upload(request, free)), file, CHUNK_BYTES)
            journal.start_import(path)
        except BaseException:
            shutil.rmtree(folder)
            raise

    await anyio.to_thread.run_sync(receive)
    return JSONResponse({"url": "/household#jobs"}, 201)


@router.post("/people/{person_id}/film")
def start_film(
    request: Request, person_id: str, first: Annotated[date, Form()], last: Annotated[date, Form()]
) -> Response:
    """Start making a film of some days, one second a day."""
    locale = str(Dates.of_header(request.headers.get("accept-language", "")).locale)
    journal_of(request).start_film(person_id, first, last, locale)
    return go(f"/people/{person_id}/film?month={first:%Y-%m}")


@router.get("/jobs/{job_id}/file")
def job_file(request: Request, job_id: str) -> Response:
    """Send what a job has made."""
    path = journal_of(request).job(job_id).path
    if path is None or not path.is_file():
        raise NotFound("this job has no file")
    kind = "video/mp4" if path.suffix == ".mp4" else "application/zip"
    return FileResponse(path, media_type=kind, filename=path.name)


@router.get("/events")
async def events(request: Request) -> Response:
    """Push what happens in the background: states of entries, progress of jobs."""
    subscription = journal_of(request).events()

    async def stream() -> AsyncIterator[str]:
        waited_s = 0.0
        try:
            yield ": connected\n\n"
            while True:
                for event in subscription.drain():
                    waited_s = 0.0
                    yield f"data: {json.dumps(event)}\n\n"
                await asyncio.sleep(POLL_S)
                waited_s += POLL_S
                if waited_s > HEARTBEAT_S:
                    waited_s = 0.0
                    yield ": still here\n\n"
        finally:
            subscription.close()

    return StreamingResponse(stream(), media_type="text/event-stream")
