"""Progress of a long step: a bar in a terminal, a log line per tenth elsewhere."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def progress_bar(title: str, total: int, unit: str = "") -> Iterator[Callable[..., None]]:
    """Show how many items are done, and the speed in units of work if there is a `unit`.

    Yields:
        A function to call after each item, with the work in it.
    """
    with terminal_bar() as bar:
        bar.add_task(title, total=total, speed="")
        (task,) = bar.tasks
        work_done = 0

        def advance(work: int = 0) -> None:
            nonlocal work_done
            work_done += work
            taken_s = max(1e-3, task.elapsed)
            speed = f"{work_done / taken_s:.0f} {unit}/s" if unit else ""
            bar.update(task.id, advance=1, speed=speed)
            done = int(task.completed)
            if bar.disable and done * 10 // total > (done - 1) * 10 // total:
                count = f"{done} of {total}" + (f", {speed}" if speed else "")
                log.info("%s: %s, %.0f s left", title, count, taken_s / done * (total - done))

        yield advance


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
