"""The pages: what a person sees. Changes are in `actions.py`."""

from collections import Counter
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response

from emotion.errors import UserError
from emotion.journal.journal import Journal, NotFound
from emotion.journal.schema import Entry
from emotion.journal.web import charts
from emotion.journal.web.dates import Dates, last_of_month, next_month
from emotion.journal.web.templating import emotion_class, render

PERSON_COOKIE = "journal_person"  # who used this browser last
COOKIE_S = 400 * 24 * 3600  # the longest that browsers keep
PAGE_ENTRIES = 30  # of a search
MAX_TEXT = 200  # characters of a search
Text = Annotated[str, Query(max_length=MAX_TEXT)]

router = APIRouter()


def journal_of(request: Request) -> Journal:
    """Return the open journal."""
    return request.app.state.journal


def entry_of(journal: Journal, person_id: str, entry_id: str) -> Entry:
    """Return an entry of a person; raise NotFound for an entry of someone else."""
    entry = journal.entry(entry_id)
    if entry.person_id != person_id:
        raise NotFound("there is no such entry")
    return entry


def show(request: Request, person_id: str, template: str, section: str, **values: Any) -> Response:
    """Render a page of a person, and remember who it was."""
    journal = journal_of(request)
    person, people = journal.person(person_id), journal.people()
    response = render(request, template, person=person, people=people, section=section, **values)
    if request.cookies.get(PERSON_COOKIE) != person_id:
        response.set_cookie(
            PERSON_COOKIE, person_id, max_age=COOKIE_S, httponly=True, samesite="strict"
        )
    return response


@router.get("/")
def home(request: Request) -> Response:
    """Redirect to the calendar of the last person of this browser, or show the welcome page."""
    people = journal_of(request).people()
    if not people:
        return render(request, "welcome.html")
    last = request.cookies.get(PERSON_COOKIE)
    chosen = next((person for person in people if person.id == last), people[0])
    return RedirectResponse(f"/people/{chosen.id}", 303)


@router.get("/people/{person_id}")
def calendar(request: Request, person_id: str, month: str = "") -> Response:
    """Show a month: the cover of each day, framed in its emotion's color."""
    journal, today = journal_of(request), date.today()
    first = parse_day(f"{month}-01" if month else None, today).replace(day=1)
    entries = journal.glances(person_id, first, last_of_month(first))
    return show(
        request, person_id, "calendar.html", "calendar",
        month=first, today=today, previous=next_month(first, -1), following=next_month(first),
        covers={entry.day: entry for entry in entries if entry.is_cover},
        counts=Counter(entry.day for entry in entries),
        past=journal.on_this_day(person_id, today),
        is_empty=not entries and journal.span(person_id) is None,
    )  # fmt: skip


def parse_day(text: str | None, default: date) -> date:
    """Read a day of an address; raise UserError if it is none."""
    if not text:
        return default
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise UserError(f"{text!r} is not a date such as 2026-11-28") from None
    check_year(day.year)
    return day


def check_year(year: int) -> None:
    """Raise NotFound for years whose calendar does not fit into Python's dates."""
    if not 1 < year < 9999:
        raise NotFound(f"there is no calendar of the year {year}")


@router.get("/people/{person_id}/days/{day}")
def show_day(request: Request, person_id: str, day: date) -> Response:
    """Show the entries of a day; a single one at once."""
    journal = journal_of(request)
    entries = journal.entries(person_id, day, day)
    if len(entries) == 1:
        return RedirectResponse(f"/people/{person_id}/entries/{entries[0].id}", 303)
    return show(request, person_id, "day.html", "calendar", day=day, entries=entries)  # fmt: skip


@router.get("/people/{person_id}/years/{year}")
def year_in_pixels(request: Request, person_id: str, year: int) -> Response:
    """Show a year: one square for each day."""
    check_year(year)
    journal, first, last = journal_of(request), date(year, 1, 1), date(year, 12, 31)
    found = {
        entry.day: entry for entry in journal.glances(person_id, first, last) if entry.is_cover
    }
    months = []
    for number in range(1, 13):
        start = date(year, number, 1)
        days = range((last_of_month(start) - start).days + 1)
        months.append([(day := start + timedelta(place), found.get(day)) for place in days])
    counts = Counter(entry.emotion for entry in found.values())
    return show(request, person_id, "year.html", "year", year=year, months=months, counts=counts,
                num_covers=len(found), today=date.today())  # fmt: skip


@router.get("/people/{person_id}/entries/{entry_id}")
def show_entry(request: Request, person_id: str, entry_id: str) -> Response:
    """Show an entry: the clip, what was found, why, and how to correct it."""
    journal = journal_of(request)
    entry = entry_of(journal, person_id, entry_id)
    siblings = journal.entries(person_id, entry.day, entry.day)
    probabilities = sorted((entry.probabilities or {}).items(), key=lambda item: -item[1])
    return show(
        request, person_id, "entry.html", "calendar", entry=entry, siblings=siblings,
        fault=journal.fault, probabilities=probabilities, timeline=timeline(entry),
    )  # fmt: skip


def timeline(entry: Entry) -> list[dict[str, Any]]:
    """Return the parts of a clip's timeline: place and width in percent of the clip, and label."""
    parts = [part for part in entry.timeline or () if part["probabilities"]]
    end = max([entry.duration_s or 0.0, *(part["stop_s"] for part in parts)], default=0.0)
    found = []
    for place, part in enumerate(parts):
        label = max(part["probabilities"], key=part["probabilities"].__getitem__)
        stop_s = parts[place + 1]["start_s"] if place + 1 < len(parts) else part["stop_s"]
        stop_s = max(stop_s, part["start_s"])
        found.append({
            "label": label, "share": part["probabilities"][label], "start_s": part["start_s"],
            "x": 100 * part["start_s"] / end, "width": 100 * (stop_s - part["start_s"]) / end,
        })  # fmt: skip
    return found


@router.get("/people/{person_id}/add")
def add_page(request: Request, person_id: str, day: date | None = None) -> Response:
    """Record a clip, choose a file, or choose many old clips."""
    return show(request, person_id, "add.html", "add", day=day, today=date.today())


@router.get("/people/{person_id}/search")
def search(
    request: Request, person_id: str, text: Text = "", emotion: Text = "", tag: Text = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:  # fmt: skip
    """Find entries by note, emotion and tag."""
    journal = journal_of(request)
    found = journal.search(
        person_id, text=text, emotion=emotion or None, tag=tag or None,
        limit=PAGE_ENTRIES + 1, offset=(page - 1) * PAGE_ENTRIES,
    )  # fmt: skip
    return show(
        request, person_id, "search.html", "search", text=text, emotion=emotion, tag=tag,
        page=page, entries=found[:PAGE_ENTRIES], has_more=len(found) > PAGE_ENTRIES,
        tags=journal.tags(person_id),
    )  # fmt: skip


@router.get("/people/{person_id}/trends")
def trends(request: Request, person_id: str) -> Response:
    """Show moods over time, by weekday, and how well the person is known."""
    journal = journal_of(request)
    dates = Dates.of_header(request.headers.get("accept-language", ""))
    weekdays = charts.weekday_shares(journal.by_weekday(person_id), journal.labels, dates)
    recognition = journal.recognition(person_id)
    return show(
        request, person_id, "trends.html", "trends", weekdays=weekdays,
        weeks=charts.table_of_shares(journal.shares(person_id, 7), journal.labels),
        latest=recognition[-1] if recognition else None, is_empty=journal.span(person_id) is None,
    )  # fmt: skip


@router.get("/people/{person_id}/trends/{name}.json")
def trends_figure(request: Request, person_id: str, name: str) -> Response:
    """Return the data of a chart for Plotly."""
    journal = journal_of(request)
    dates = Dates.of_header(request.headers.get("accept-language", ""))
    color = {label: emotion_class(label, journal.labels)[2:] for label in journal.labels}
    if name in ("7", "30"):
        days = int(name)
        rows = journal.shares(person_id, days)
        entries = journal.search(person_id, limit=charts.MAX_MARKS)
        figure = charts.shares_figure(rows, entries, journal.labels, color, dates)
    elif name == "weekdays":
        rows = charts.weekday_shares(journal.by_weekday(person_id), journal.labels, dates)
        figure = charts.weekday_figure(rows, journal.labels, color)
    elif name == "recognition":
        figure = charts.recognition_figure(journal.recognition(person_id))
    else:
        raise NotFound(f"there is no chart {name}")
    return JSONResponse(figure)


@router.get("/people/{person_id}/profile")
def profile(request: Request, person_id: str) -> Response:
    """Show what was learned of a person, and how to rebuild or forget it."""
    summary = journal_of(request).profile_summary(person_id)
    return show(request, person_id, "profile.html", "profile", summary=summary)


@router.get("/about")
def about(request: Request) -> Response:
    """Show what the journal may be used for, and how often it is right."""
    return render(request, "about.html", people=journal_of(request).people())


@router.get("/household")
def household(request: Request) -> Response:
    """Show the people, export and import, the jobs, and what the journal promises."""
    journal = journal_of(request)
    return render(
        request, "household.html", section="household", people=journal.people(),
        jobs=journal.jobs(), problems=journal.problems, folder=journal.folder.root,
    )  # fmt: skip


@router.get("/people/{person_id}/film")
def film(request: Request, person_id: str, month: str = "") -> Response:
    """Choose the days of a film."""
    first = parse_day(f"{month}-01" if month else None, date.today()).replace(day=1)
    jobs = [
        job
        for job in journal_of(request).jobs()
        if job.kind == "film" and job.person_id == person_id
    ]
    return show(request, person_id, "film.html", "film", month=first,
                last=last_of_month(first), jobs=jobs)  # fmt: skip


@router.get("/media/{entry_id}/{kind}")
def media(request: Request, entry_id: str, kind: str) -> Response:
    """Send a clip, in parts if the browser wants, or its cover."""
    journal = journal_of(request)
    if kind not in ("clip", "cover"):
        raise NotFound(f"an entry has a clip and a cover, no {kind}")
    entry = journal.entry(entry_id)
    path = journal.media(entry, kind)
    media_type = "image/jpeg" if kind == "cover" else entry.media_type
    return FileResponse(path, media_type=media_type, headers={"Cache-Control": "private, no-cache"})
