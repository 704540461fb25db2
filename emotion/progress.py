"""How far a long step is: a bar in a terminal, a line every tenth of the way in a log file."""

import logging
import time
from types import TracebackType

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


class ProgressBar:
    """Shows how many of a known number of things are done. Use it in a `with` statement."""

    def __init__(self, title: str, total: int, unit: str = "") -> None:
        """Prepare a bar.

        Args:
            title: what is being done.
            total: how many things there are to do.
            unit: what the work inside the things is counted in, if its speed is to be shown.
        """
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self.work = 0
        self.start_s = time.monotonic()
        console = Console(stderr=True)
        self._bar = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[speed]}"),
                console=console,
            )
            self._bar.add_task(title, total=total, speed="")

    def __enter__(self) -> "ProgressBar":
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar where it stands."""
        if self._bar:
            self._bar.stop()

    @property
    def speed(self) -> str:
        """The work done a second, in words; "" where none is counted."""
        if not self.unit:
            return ""
        return f"{self.work / max(1e-3, time.monotonic() - self.start_s):.0f} {self.unit}/s"

    def advance(self, work: int = 0) -> None:
        """Count one more thing as done, and the work that was in it."""
        self.done += 1
        self.work += work
        if self._bar:
            self._bar.update(self._bar.task_ids[0], advance=1, speed=self.speed)
        elif self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            left_s = (time.monotonic() - self.start_s) / self.done * (self.total - self.done)
            speed = f", {self.speed}" if self.unit else ""
            log.info(
                "%s: %d of %d%s, %.0f s left", self.title, self.done, self.total, speed, left_s
            )


def duration(seconds: float) -> str:
    """Write a time span with one unit, two significant digits: 40 s, 3.5 min, 12 h."""
    for unit, unit_s in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * unit_s:
            amount = seconds / unit_s
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds:.0f} s"
