"""End a process whose decoder hangs in C code, where no exception reaches it."""

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path

from emotion.escape import for_terminal
from emotion.stopping import end_command, is_command

PATIENCE_S = 60.0
REASON = f"its decoder crashes, or gives no frame for {PATIENCE_S:.0f} s"


class Watchdog:
    """Ends a process that shows no progress for `PATIENCE_S`.

    The executor of a worker process reports the clip. In the main process of a command, the command
    ends. Where this package is only imported, nothing is watched.
    """

    _armed_s: float | None = None
    _idle_polls = 0
    _nowhere: int  # file descriptor, for the stack trace

    @contextmanager
    def watch(self, clip: Path, remedy: str) -> Iterator[None]:
        """Watch the work on a clip in this context; a command ends with a line that names both."""
        if parent_process() is not None:
            with self._watch_worker():
                yield
        elif is_command():
            with self._watch_command(f"{clip} gives no frame for {PATIENCE_S:.0f} s; {remedy}"):
                yield
        else:
            yield

    def progress(self) -> None:
        """Restart the clock of a worker, at most once a second, or of a command."""
        self._idle_polls = 0
        if self._armed_s is not None and time.monotonic() - self._armed_s > 1:
            self._arm()

    @contextmanager
    def _watch_worker(self) -> Iterator[None]:
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        self._arm()
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._armed_s = None
            os.close(self._nowhere)

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(PATIENCE_S, exit=True, file=self._nowhere)
        self._armed_s = time.monotonic()

    @contextmanager
    def _watch_command(self, line: str) -> Iterator[None]:
        done = threading.Event()

        def poll() -> None:
            while not done.wait(1):
                self._idle_polls += 1  # polls, because time also passes in a suspended process
                if self._idle_polls > PATIENCE_S:
                    end_command(1, f"error: {for_terminal(line)}")

        self._idle_polls = 0
        threading.Thread(target=poll, name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            done.set()


watchdog = Watchdog()
