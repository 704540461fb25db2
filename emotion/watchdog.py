"""End a worker process whose decoder hangs in C code, where no exception reaches it."""

import faulthandler
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process

PATIENCE_S = 60.0
REASON = f"its decoder crashes, or gives no frame for {PATIENCE_S:.0f} s"


class Watchdog:
    """Ends a worker process that shows no progress for `PATIENCE_S`; its executor reports that."""

    _armed_s: float | None = None
    _nowhere: int  # file descriptor, for the stack trace

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch the work in this context, unless it runs in the main process."""
        if parent_process() is None:
            yield
            return
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        self._arm()
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._armed_s = None
            os.close(self._nowhere)

    def progress(self) -> None:
        """Restart the clock, at most once a second."""
        if self._armed_s is not None and time.monotonic() - self._armed_s > 1:
            self._arm()

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(PATIENCE_S, exit=True, file=self._nowhere)
        self._armed_s = time.monotonic()


watchdog = Watchdog()
