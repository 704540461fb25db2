"""Dates as the reader's browser prefers them, from the Accept-Language header, by Babel's CLDR."""

from calendar import Calendar, monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from babel import Locale, UnknownLocaleError, negotiate_locale
from babel.dates import format_date, format_skeleton, format_time, get_day_names, get_month_names
from babel.localedata import locale_identifiers

FALLBACK = "en"
MAX_LANGUAGES = 10  # of a header


@dataclass(frozen=True)
class Dates:
    """Formats dates and lays out months for one locale."""

    locale: Locale

    @classmethod
    def of_header(cls, accept_language: str) -> "Dates":
        """Choose the first locale of an Accept-Language header that CLDR has, else English."""
        tags = [part.partition(";")[0].strip() for part in accept_language[:500].split(",")]
        wanted = [tag.replace("-", "_") for tag in tags if tag.replace("-", "").isalnum()][
            :MAX_LANGUAGES
        ]
        found = negotiate_locale(wanted, locale_identifiers())
        try:
            return cls(Locale.parse(found or FALLBACK))
        except (UnknownLocaleError, ValueError):
            return cls(Locale.parse(FALLBACK))

    @property
    def language(self) -> str:
        """The language tag of the dates, for the `lang` attribute."""
        return str(self.locale).replace("_", "-")

    def full(self, day: date) -> str:
        """Format a day with its weekday, such as `Saturday, November 28, 2026`."""
        return format_date(day, "full", locale=self.locale)

    def long(self, day: date) -> str:
        """Format a day, such as `November 28, 2026`."""
        return format_date(day, "long", locale=self.locale)

    def short(self, day: date) -> str:
        """Format a day without its year, such as `Nov 28`."""
        return format_skeleton("MMMd", datetime(day.year, day.month, day.day), locale=self.locale)

    def month(self, day: date) -> str:
        """Format a month with its year, such as `November 2026`."""
        text = format_skeleton("yMMMM", datetime(day.year, day.month, 1), locale=self.locale)
        return text[0].upper() + text[1:]

    def time(self, moment: datetime) -> str:
        """Format a time of day, such as `9:30 PM`, as the clock showed it at the recording."""
        return format_time(moment.replace(tzinfo=None), "short", locale=self.locale)

    def month_names(self) -> Sequence[str]:
        """List the short names of the 12 months."""
        names = get_month_names("abbreviated", "stand-alone", self.locale)
        return [names[month] for month in range(1, 13)]

    def weekdays(self) -> Sequence[tuple[int, str, str]]:
        """List number (0 is Monday), short and long name of the weekdays, as the locale orders."""
        short = get_day_names("abbreviated", "stand-alone", self.locale)
        long = get_day_names("wide", "stand-alone", self.locale)
        order = [(self.locale.first_week_day + place) % 7 for place in range(7)]
        return [(number, short[number], long[number]) for number in order]

    def weeks(self, month: date) -> Sequence[Sequence[date]]:
        """List the weeks of a month, seven days each, with days of the months beside it."""
        return Calendar(self.locale.first_week_day).monthdatescalendar(month.year, month.month)


def next_month(month: date, step: int = 1) -> date:
    """Return the first day of the month `step` months later."""
    number = 12 * month.year + month.month - 1 + step
    return date(number // 12, number % 12 + 1, 1)


def last_of_month(month: date) -> date:
    """Return the last day of a month."""
    return month.replace(day=monthrange(month.year, month.month)[1])
