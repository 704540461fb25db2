"""How far a long step is: a bar in a terminal, a line every tenth of the way in a log file."""

import logging
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

    def __init__(self, title: str, total: int) -> None:
        """Prepare a bar.

        Args:
            title: what is being done.
            total: how many things there are to do.
        """
        self.title = title
        self.total = total
        self.done = 0
        console = Console(stderr=True)
        self._bar = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )
            self._bar.add_task(title, total=total)

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

    def advance(self) -> None:
        """Count one more thing as done."""
        self.done += 1
        if self._bar:
            self._bar.advance(self._bar.task_ids[0])
        elif self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            log.info("%s: %d of %d", self.title, self.done, self.total)


def duration(seconds: float) -> str:
    """Write a time span with one unit, two significant digits: 40 s, 3.5 min, 12 h."""
    for unit, unit_s in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * unit_s:
            amount = seconds / unit_s
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds:.0f} s"
