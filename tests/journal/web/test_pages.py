"""The pages show what is there, of one person only, and never run what somebody wrote."""

import re
from datetime import date, timedelta
from html.parser import HTMLParser

import pytest

from emotion.journal.web import pages

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' {{ 7*7 }}"
INLINE = re.compile(r"<script(?![^>]*\ssrc=)|\sstyle=|<style|\son\w+=|javascript:", re.I)


class Elements(HTMLParser):
    """Collects the start tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def ada(journal):
    return journal.add_person("Ada").id


def all_paths(person_id, entry_id, day):
    own = f"/people/{person_id}"
    return [
        own, f"{own}?month=2024-02", f"{own}/years/2026", f"{own}/add", f"{own}/search",
        f"{own}/trends", f"{own}/film", f"{own}/profile", f"{own}/days/{day}",
        f"{own}/entries/{entry_id}", "/household", "/about",
    ]  # fmt: skip


def test_an_empty_journal_explains_itself(client, journal):
    welcome = client.get("/").text
    assert "Record" in welcome and "nothing is sent" in welcome.lower()
    response = client.post("/people", data={"name": "Ada"})
    assert "calendar is empty" in client.get(response.headers["location"]).text


def test_markup_in_names_notes_and_tags_is_shown_as_text(client, journal, add_entry):
    person = journal.add_person(MARKUP[:80])
    entry = add_entry(person.id, note=MARKUP, tags=["<b>bold</b>"])
    for path in all_paths(person.id, entry.id, entry.day):
        response = client.get(path)
        page = response.text
        assert response.status_code in (200, 303), path
        elements = Elements(page)
        assert all(script["src"].startswith("/static/") for script in elements.of("script"))
        names = {name for _, attributes in elements.found for name in attributes}
        assert not any(name.startswith("on") for name in names)
        assert "<b>bold" not in page


def test_no_page_has_inline_scripts_or_styles(client, journal, ada, add_entry):
    entry = add_entry(ada)
    for path in [*all_paths(ada, entry.id, entry.day), "/nowhere"]:
        assert not INLINE.search(client.get(path).text), path


def test_people_are_never_mixed(client, journal, ada, add_entry):
    eve = journal.add_person("Eve").id
    entry = add_entry(ada, note="Only of Ada")
    assert client.get(f"/people/{ada}/entries/{entry.id}").status_code == 200
    assert client.get(f"/people/{eve}/entries/{entry.id}").status_code == 404
    for action in ("correct", "edit", "cover", "delete"):
        data = {"label": "Happy", "version": 1, "day": "2020-01-01", "note": "Eve's"}
        response = client.post(f"/people/{eve}/entries/{entry.id}/{action}", data=data)
        assert response.status_code == 404, action
    assert journal.entry(entry.id).note == "Only of Ada"
    for path in ("", "/search", f"/days/{entry.day}", f"/years/{entry.day.year}"):
        assert entry.id not in client.get(f"/people/{eve}{path}").text
    assert entry.id in client.get(f"/people/{ada}/search").text


def test_home_leads_to_whoever_was_here_last(client, journal, ada):
    eve = journal.add_person("Eve").id
    assert client.get("/").headers["location"] == f"/people/{ada}"
    client.get(f"/people/{eve}")
    assert client.get("/").headers["location"] == f"/people/{eve}"


def test_the_calendar_shows_each_day_once_with_its_cover(client, journal, ada, add_entry):
    day = date.today().replace(day=1)
    entries = [add_entry(ada, day) for _ in range(3)]
    journal.edit(entries[1].id, is_cover=True)
    page = client.get(f"/people/{ada}?month={day:%Y-%m}").text
    cells = [
        cell for cell in Elements(page).of("a") if cell.get("href", "").endswith(f"/days/{day}")
    ]
    assert len(cells) == 1 and "3 entries" in cells[0]["aria-label"]


def test_a_month_and_a_year_of_any_date_are_shown(client, ada):
    for month in ("0002-01", "9998-12", "2024-02"):
        assert client.get(f"/people/{ada}?month={month}").status_code == 200, month
    for year in (2, 2024, 9998):
        page = client.get(f"/people/{ada}/years/{year}").text
        assert len(Elements(page).of("li")) >= 365
    assert client.get(f"/people/{ada}?month=2024-13").status_code == 400
    assert client.get(f"/people/{ada}/years/9999").status_code == 404


def test_two_tabs_lose_no_note(client, journal, ada, add_entry):
    entry = add_entry(ada)
    form = {"version": entry.version, "day": str(entry.day), "tags": ""}
    url = f"/people/{ada}/entries/{entry.id}/edit"
    assert client.post(url, data={**form, "note": "first"}).status_code == 303
    assert client.post(url, data={**form, "note": "second"}).status_code == 409
    assert journal.entry(entry.id).note == "first"


def test_search_goes_from_page_to_page(client, ada, add_entry, monkeypatch):
    monkeypatch.setattr(pages, "PAGE_ENTRIES", 3)
    first = date(2026, 1, 1)
    for number in range(5):
        add_entry(ada, first + timedelta(number), note=f"walk & talk {number}", tags=["sea"])
    first_page = client.get(f"/people/{ada}/search", params={"text": "walk & talk", "tag": "sea"})
    older = [a["href"] for a in Elements(first_page.text).of("a") if a.get("rel") == "next"]
    second = client.get(f"/people/{ada}/search{older[0]}").text
    notes = re.findall(r"walk &amp; talk (\d+)<", first_page.text + second)
    assert [int(note) for note in notes] == list(range(4, -1, -1))


def test_unknown_addresses_say_so(client, ada):
    for path in (
        "/nowhere",
        "/people/x",
        f"/people/{ada}/entries/x",
        "/media/x/clip",
        "/jobs/x/file",
    ):
        response = client.get(path)
        assert response.status_code == 404 and "<h1>Not found</h1>" in response.text, path
    assert client.get("/people/x", headers={"Accept": "*/*"}).text.count("\n") == 0


def test_everything_is_deleted_only_when_asked_in_words(client, journal, ada, add_entry):
    path = journal.media(add_entry(ada), "clip")
    assert client.post("/delete-everything", data={"sure": "yes"}).status_code == 400
    assert path.is_file()
    assert client.post("/delete-everything", data={"sure": "delete"}).status_code == 303
    assert journal.people() == [] and not path.exists()
