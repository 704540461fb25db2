"""Renders the pages from their templates, with what all pages show."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from emotion.journal.web.dates import Dates

KNOWN = ("Neutral", "Sad", "Happy", "Shock", "Anger")  # those with a color and a drawn face
NUM_OTHER_COLORS = 4
ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def emotion_class(label: str | None, labels: Sequence[str] = ()) -> str:
    """Return the style class of an emotion; a label without a color of its own gets one by index.

    >>> emotion_class("Happy"), emotion_class(None), emotion_class("Fear", ["Sad", "Fear"])
    ('e-happy', 'e-none', 'e-other-2')
    """
    if label is None:
        return "e-none"
    if label in KNOWN:
        return f"e-{label.lower()}"
    index = labels.index(label) if label in labels else 0
    return f"e-other-{index % NUM_OTHER_COLORS + 1}"


def percent(share: float | None) -> str:
    """Format a share, such as `81 %`; a dash for None."""
    return "–" if share is None else f"{100 * share:.0f} %"


def face(css_class: str) -> Markup:
    """Return the drawn face of a style class of `emotion_class`."""
    name = css_class.split("-")[1]
    svg = '<svg class="face {}" viewBox="0 0 24 24" aria-hidden="true">'
    return Markup(svg + '<use href="/static/faces.svg#{}"/></svg>').format(css_class, name)


def query_of_page(query: Mapping[str, str], page: int) -> str:
    """Return the query string of another page of a search."""
    return urlencode({**query, "page": page})


ENVIRONMENT.filters |= {"percent": percent, "query_of_page": query_of_page}


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template; `values` are added to what all pages have."""
    journal = request.app.state.journal
    common = {
        "dates": Dates.of_header(request.headers.get("accept-language", "")),
        "labels": journal.labels,
        "people": [],
        "person": None,
        "section": "",
        "emotion_class": lambda label: emotion_class(label, journal.labels),
        "face": lambda label: face(emotion_class(label, journal.labels)),
        "this_year": date.today().year,
        "has_password": request.app.state.sessions is not None,
        "status": status,
    }
    html = ENVIRONMENT.get_template(template).render(common | values)
    return HTMLResponse(html, status)
