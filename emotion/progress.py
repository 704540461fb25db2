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


def terminal_bar(transient: bool = False) -> Progress:
    """Make a bar on stderr that shows in a terminal alone.

    Args:
        transient: it disappears when it stops.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    )


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
        self._bar = terminal_bar()
        self._task = self._bar.add_task(title, total=total)

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
        """Leave the bar where it stands."""
        self._bar.stop()

    def advance(self) -> None:
        """Count one more thing as done."""
        self.done += 1
        self._bar.advance(self._task)
        if self._bar.disable and self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            log.info("%s: %d of %d", self.title, self.done, self.total)
