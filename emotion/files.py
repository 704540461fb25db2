"""Files that are whole or not there: whoever finds one under its name can trust it."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MACHINE = "".join(filter(str.isalnum, socket.gethostname())) or "unnamed"
STALE_S = 3600  # no file takes an hour to write


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give a hidden temporary name beside a file; rename it to the file once all is written.

    Args:
        path: the file; its folder is made.

    Yields:
        Where to write. Removed again if writing fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{MACHINE}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def writer_lives(path: Path) -> bool:
    """Tell whether the process that writes a temporary file of `unfinished` may still be there.

    Args:
        path: a hidden file, named by `unfinished`; others count as alive.

    Returns:
        For a file of another machine, whether it was written within the last hour.
    """
    machine, _, number = path.stem.rpartition(".")[2].rpartition("-")
    if not machine or not number.isdigit():
        return True
    if machine != MACHINE:
        try:
            return time.time() - path.stat().st_mtime < STALE_S
        except FileNotFoundError:
            return False
    try:
        os.kill(int(number), 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is there, and somebody else's
    return True
