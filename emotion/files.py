"""Files that are whole or not there: whoever finds one under its name can trust it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give a hidden temporary name beside a file; rename it to the file once all is written.

    Args:
        path: the file; its folder is made.

    Yields:
        Where to write. Removed again if writing fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def writer_lives(path: Path) -> bool:
    """Tell whether the process that writes a temporary file of `unfinished` is still there.

    Args:
        path: a hidden file, named by `unfinished` on this machine; others count as alive.
    """
    number = path.stem.rpartition(".")[2]
    if not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is there, and somebody else's
    return True
