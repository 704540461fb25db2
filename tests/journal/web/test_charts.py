"""Charts have the numbers of the rows."""

from datetime import date, timedelta

import numpy as np

from emotion.journal.schema import Entry
from emotion.journal.trends import Share, WeekdayShare, moving_shares
from emotion.journal.web import charts
from emotion.journal.web.dates import Dates

LABELS = ["Neutral", "Happy"]
COLOR = {"Neutral": "neutral", "Happy": "happy"}
DATES = Dates.of_header("en-GB")
FIRST = date(2025, 12, 30)


def test_shares_are_stacked_to_one_on_each_day():
    rows = list(moving_shares([(FIRST, "Happy"), (FIRST + timedelta(2), "Neutral")], LABELS, 7))
    figure = charts.shares_figure(rows, [], LABELS, COLOR, DATES)
    neutral, happy, marks = figure["data"]
    assert neutral["x"] == happy["x"] == ["2025-12-30", "2025-12-31", "2026-01-01"]
    assert happy["y"] == [1.0, 1.0, 0.5]
    assert np.allclose(np.add(neutral["y"], happy["y"]), 1)
    assert marks["x"] == []
    assert figure["layout"]["xaxis"]["ticktext"] == ["30 Dec<br>2025", "31 Dec", "1 Jan<br>2026"]


def test_an_entry_is_a_mark_that_leads_to_it_and_keeps_its_note_private():
    moment = date(2026, 3, 1)
    entry = Entry(id="e", person_id="p", day=moment, recorded_at="2026-03-01T21:05:00",
                  label="Happy", probability=0.81, note="secret")  # fmt: skip
    from datetime import datetime

    entry.recorded_at = datetime(2026, 3, 1, 21, 5)
    marks = charts.shares_figure([], [entry], LABELS, COLOR, DATES)["data"][-1]
    assert marks["customdata"] == ["/people/p/entries/e"]
    assert marks["text"] == ["Sunday, 1 March 2026, 21:05<br>Happy 81 %"]
    assert marks["marker"]["color"] == ["happy"]


def test_weekdays_follow_the_locale():
    rows = [WeekdayShare(weekday=6, emotion="Happy", count=3, share=0.75, num_entries=4)]
    british = charts.weekday_shares(rows, LABELS, DATES)
    american = charts.weekday_shares(rows, LABELS, Dates.of_header("en-US"))
    assert british[6] == american[0] == ("Sun", 4, [0.0, 0.75])
    assert british[0] == ("Mon", 0, [0.0, 0.0])


def test_the_table_has_one_row_a_week_latest_first():
    rows = [Share(FIRST + timedelta(day), "Happy", day / 20, 1) for day in range(20)]
    table = charts.table_of_shares(rows, LABELS)
    assert [day for day, _ in table] == [FIRST + timedelta(place) for place in (19, 12, 5)]
    assert table[0][1] == [0.0, 0.95]
