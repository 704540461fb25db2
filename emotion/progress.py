"""Progress of a long step: a bar in a terminal, a log line per tenth elsewhere."""

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


def terminal_bar(transient: bool = False) -> Progress:
    """Return a bar that shows on a terminal's stderr only; its tasks have a field `speed`.

    Args:
        transient: whether it disappears when it stops.
    """
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
        """Prepare a bar.

        Args:
            title: the name of the step.
            total: the number of items.
            unit: of the work in an item, whose speed is shown; "" shows none.
        """
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self.work = 0
        self.start_s = time.monotonic()
        self._bar = terminal_bar()
        self._task = self._bar.add_task(title, total=total, speed="")

    def __enter__(self) -> "ProgressBar":
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the bar."""
        self._bar.stop()

    @property
    def speed(self) -> str:
        """The work per second with its unit; "" without a unit."""
        if not self.unit:
            return ""
        return f"{self.work / max(1e-3, time.monotonic() - self.start_s):.0f} {self.unit}/s"

    def advance(self, work: int = 0) -> None:
        """Count one more item as done, and the work in it."""
        self.done += 1
        self.work += work
        self._bar.update(self._task, advance=1, speed=self.speed)
        if self._bar.disable and self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            left_s = (time.monotonic() - self.start_s) / self.done * (self.total - self.done)
            speed = f", {self.speed}" if self.unit else ""
            log.info(
                "%s: %d of %d%s, %.0f s left", self.title, self.done, self.total, speed, left_s
            )


def duration(seconds: float) -> str:
    """Format a time span with one unit and two significant digits: 40 s, 3.5 min, 12 h."""
    for unit, unit_s in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * unit_s:
            amount = seconds / unit_s
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds:.0f} s"
