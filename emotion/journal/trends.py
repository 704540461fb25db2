"""Moods over time, from rows."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import sqrt

LAST = 20  # entries
Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Share:
    """The share of an emotion among the entries of the days up to one."""

    day: date
    emotion: str
    share: float  # 0 to 1
    num_entries: int  # with any emotion


@dataclass(frozen=True)
class WeekdayShare:
    """The share of an emotion among the entries of a weekday."""

    weekday: int  # 0 for Monday
    emotion: str
    count: int
    share: float  # 0 to 1
    num_entries: int  # with any emotion


@dataclass(frozen=True)
class Recognition:
    """How many of the last entries were right before correction."""

    entry_id: str  # the last of them
    day: date
    share: float  # 0 to 1
    low: float  # 95 % interval
    high: float
    num_entries: int  # at most `LAST`


def moving_shares(
    emotions: Iterable[tuple[date, str]], labels: Sequence[str], days: int
) -> Iterator[Share]:
    """Yield the shares of all labels for each day from the first to the last entry.

    Args:
        emotions: of the entries, in the order of their days.
        labels: to report; the shares of others are missing.
        days: length of the period that ends with a day. A day whose period has no entry is left
            out.
    """
    rows = list(emotions)
    if not rows:
        return
    counts: Counter[str] = Counter()
    begin = end = 0
    day = rows[0][0]
    while day <= rows[-1][0]:
        while end < len(rows) and rows[end][0] <= day:
            counts[rows[end][1]] += 1
            end += 1
        while begin < end and rows[begin][0] <= day - timedelta(days):
            counts[rows[begin][1]] -= 1
            begin += 1
        if total := end - begin:
            for label in labels:
                yield Share(day, label, counts[label] / total, total)
        day += timedelta(1)


def weekday_shares(
    emotions: Iterable[tuple[date, str]], labels: Sequence[str]
) -> Iterator[WeekdayShare]:
    """Yield the shares of all labels for each weekday that has an entry."""
    counts: dict[int, Counter[str]] = {}
    for day, emotion in emotions:
        counts.setdefault(day.weekday(), Counter())[emotion] += 1
    for weekday in sorted(counts):
        total = counts[weekday].total()
        for label in labels:
            count = counts[weekday][label]
            yield WeekdayShare(weekday, label, count, count / total, total)


def recognition(answers: Iterable[tuple[str, date, bool]]) -> Iterator[Recognition]:
    """Yield the share of right answers among the last `LAST`, after each.

    Args:
        answers: id and day of an entry, and whether its answer was right, in order of arrival.
    """
    recent: list[bool] = []
    for entry_id, day, is_right in answers:
        recent = [*recent, is_right][-LAST:]
        low, high = wilson(sum(recent), len(recent))
        yield Recognition(entry_id, day, sum(recent) / len(recent), low, high, len(recent))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson (JASA 22, 1927).

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    """
    share = successes / trials
    middle = share + Z**2 / (2 * trials)
    spread = Z * sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    scale = 1 + Z**2 / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
