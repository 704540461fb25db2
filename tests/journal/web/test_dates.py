"""Dates are written as the browser prefers."""

from datetime import date, datetime

import pytest

from emotion.journal.web.dates import Dates, last_of_month, next_month

DAY = date(2026, 3, 1)  # a Sunday


@pytest.mark.parametrize(
    ("header", "language", "text", "first_weekday"),
    [
        ("en-US,en;q=0.9", "en-US", "Sunday, March 1, 2026", 6),
        ("en-GB,en;q=0.9", "en-GB", "Sunday, 1 March 2026", 0),
        ("de-DE,de;q=0.9,en;q=0.8", "de-DE", "Sonntag, 1. März 2026", 0),
        ("tlh, pt-BR", "pt-BR", "domingo, 1 de março de 2026", 6),
        ("", "en", "Sunday, March 1, 2026", 0),
        ("../../etc, *;q=0.1, " + "x" * 9000, "en", "Sunday, March 1, 2026", 0),
    ],
)
def test_the_first_known_locale_is_used(header, language, text, first_weekday):
    dates = Dates.of_header(header)
    assert (dates.language, dates.full(DAY)) == (language, text)
    if language != "en":
        assert dates.weekdays()[0][0] == first_weekday
        assert dates.weeks(DAY)[0][0].weekday() == first_weekday


def test_times_show_the_clock_of_the_recording():
    moment = datetime(2026, 3, 1, 21, 5)
    assert Dates.of_header("de").time(moment) == "21:05"
    assert Dates.of_header("en-US").time(moment).replace("\u202f", " ") == "9:05 PM"


def test_months_follow_each_other():
    assert next_month(date(2026, 12, 31)) == date(2027, 1, 1)
    assert next_month(date(2026, 1, 31), -1) == date(2025, 12, 1)
    assert [last_of_month(date(2024, month, 1)).day for month in (1, 2, 4, 12)] == [31, 29, 30, 31]
