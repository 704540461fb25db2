"""Import of old clips: files are uploaded one by one, looked through, shown, and kept if chosen."""

import io
import os
import secrets
import shutil
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from emotion.errors import UserError
from emotion.journal.jobs import Job
from emotion.journal.journal import NotFound
from emotion.journal.web.actions import CHUNK_BYTES, MAX_CLIP_BYTES, Upload, go
from emotion.journal.web.pages import journal_of, show

MAX_FILES = 2000  # of one import
MAX_NAME_BYTES = 200  # of a file; file systems allow 255
MAX_MS = 253_402_214_400_000  # the end of the year 9999

router = APIRouter(prefix="/people/{person_id}/old-clips")


@router.post("")
def begin(request: Request, person_id: str) -> Response:
    """Make room for files; answer with the address to send them to."""
    journal = journal_of(request)
    journal.person(person_id)
    token = secrets.token_hex(16)
    request.app.state.staged[token] = person_id, journal.staging()
    return JSONResponse({"url": f"/people/{person_id}/old-clips/{token}"}, 201)


def staged(request: Request, person_id: str, token: str) -> Path:
    """Return the folder of an import that `begin` started for this person."""
    owner, folder = request.app.state.staged.get(token, (None, None))
    if owner != person_id:
        raise NotFound("there is no such import: choose the files again")
    return folder


def plain_name(name: str) -> str:
    r"""Return the name of a file without folders, and without what a file system may refuse.

    >>> plain_name("../a/b.mp4"), plain_name("..\\x\0.mov"), plain_name("..")
    ('b.mp4', 'x.mov', 'clip')
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    last = "".join(c for c in last if c.isprintable()).strip(". ")
    stem, suffix = os.path.splitext(last)
    room = MAX_NAME_BYTES - len(os.fsencode(suffix))
    return os.fsencode(stem)[: max(0, room)].decode(errors="ignore") + suffix[:20] or "clip"


@router.post("/{token}/files")
async def add_file(
    request: Request,
    person_id: str,
    token: str,
    name: Annotated[str, Query(max_length=1000)],
    modified: Annotated[int, Query(ge=0, le=MAX_MS)],
) -> Response:
    """Receive a file; `modified` are milliseconds since 1970, which may date the clip."""

    def receive() -> None:
        folder = staged(request, person_id, token)
        place = folder / f"{sum(1 for _ in folder.iterdir()):04d}"
        if place.name > f"{MAX_FILES:04d}":
            raise UserError(f"an import may have {MAX_FILES} files: choose fewer at a time")
        place.mkdir()
        body = io.BufferedReader(Upload(request, MAX_CLIP_BYTES), CHUNK_BYTES)
        path = place / plain_name(name)
        try:
            with open(path, "xb") as file:
                shutil.copyfileobj(body, file, CHUNK_BYTES)
            os.utime(path, (modified / 1000, modified / 1000))
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    await anyio.to_thread.run_sync(receive)
    return JSONResponse({}, 201)


@router.post("/{token}/scan")
def scan(request: Request, person_id: str, token: str) -> Response:
    """Look through the files; answer with the address of the page that shows them."""
    folder = staged(request, person_id, token)
    del request.app.state.staged[token]
    job = journal_of(request).start_old_clips(person_id, folder)
    return JSONResponse({"url": f"/people/{person_id}/old-clips/{job.id}"}, 201)


@router.get("/{job_id}")
def show_found(request: Request, person_id: str, job_id: str) -> Response:
    """Show the clips with their dates, before any is kept."""
    job = job_of(request, person_id, job_id)
    return show(request, person_id, "old_clips.html", "add", job=job)


def job_of(request: Request, person_id: str, job_id: str) -> Job:
    """Return the search through old clips of a person; raise NotFound if there is none."""
    job = journal_of(request).job(job_id)
    if job.person_id != person_id:
        raise NotFound("there is no such import")
    return job


@router.post("/{job_id}")
async def keep(request: Request, person_id: str, job_id: str) -> Response:
    """Keep the chosen clips, with the dates of the form."""
    job_of(request, person_id, job_id)
    async with request.form(max_fields=2 * MAX_FILES + 10) as form:
        chosen = [int(text) for text in form.getlist("chosen") if str(text).isdecimal()]
        typed = {index: read_moment(str(form.get(f"date-{index}", ""))) for index in chosen}
    dates = {index: moment for index, moment in typed.items() if moment is not None}
    start = partial(journal_of(request).start_keeping, job_id, chosen, dates)
    await anyio.to_thread.run_sync(start)
    return go("/household#jobs")


def read_moment(text: str) -> datetime | None:
    """Read a date with time of a form; None if the field is empty."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None) if text else None
    except ValueError:
        raise UserError(f"{text!r} is not a date with time") from None
