"""Progress of a long step: a bar in a terminal, a log line per tenth elsewhere."""

import logging
import time
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)


def terminal_bar(transient: bool = False) -> Progress:
    """Return a bar that shows on a terminal's stderr only; its tasks have a field `speed`."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[speed]}"),
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    )


class ProgressBar:
    """A context manager that shows how many of a known number of items are done."""

    def __init__(self, title: str, total: int, unit: str = "") -> None:
        """Prepare a bar; it shows the speed in units of work if there is a `unit`."""
        self.title, self.total, self.unit = title, total, unit
        self.done = self.work = 0
        self.start_s = time.monotonic()
        self._bar = terminal_bar()
        self._task = self._bar.add_task(title, total=total, speed="")

    def __enter__(self) -> "ProgressBar":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the bar."""
        self._bar.stop()

    def advance(self, work: int = 0) -> None:
        """Count one more item as done, and the work in it."""
        self.done += 1
        self.work += work
        taken_s = max(1e-3, time.monotonic() - self.start_s)
        speed = f"{self.work / taken_s:.0f} {self.unit}/s" if self.unit else ""
        self._bar.update(self._task, advance=1, speed=speed)
        if self._bar.disable and self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            left_s = taken_s / self.done * (self.total - self.done)
            count = f"{self.done} of {self.total}" + (f", {speed}" if speed else "")
            log.info("%s: %s, %.0f s left", self.title, count, left_s)


def duration(seconds: float) -> str:
    """Format a time span with one unit and two significant digits: 40 s, 3.5 min, 12 h."""
    for unit, unit_s in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * unit_s:
            amount = seconds / unit_s
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds:.0f} s"


def when(left_s: float) -> str:
    """Return the time of day in `left_s` seconds, with the date if it is another day."""
    now = datetime.now()
    end = now + timedelta(seconds=left_s)
    return f"at {end:%H:%M}" if end.date() == now.date() else f"on {end:%a %d %b at %H:%M}"
