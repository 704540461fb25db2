"""Files that are whole or not there: whoever finds one under its name can trust it."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from emotion.errors import UserError

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


@contextmanager
def claimed(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock that no other process can have at the same time, and that dies with this one.

    A record lock, for children do not inherit it (an orphan of a killed run must not keep it), and
    a shared file system shows it to other machines.

    Args:
        path: the lock's file, which stays there.
        what: what is locked, for the message.
        wait: wait for another process to release it, instead of raising.

    Raises:
        UserError: another process has it; names that process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        if not try_lock(file, wait):
            raise UserError(f"{what} is in use by {holder(path)}: wait for it, or stop it")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def holder(path: Path) -> str | None:
    """Name the process that holds the lock of `claimed`, None if nobody does.

    Not for a lock that this process holds itself: to ask would give it up.
    """
    try:
        with open(path, "r+", encoding="utf-8") as file:
            return None if try_lock(file) else file.read() or "another process"
    except FileNotFoundError:
        return None


def try_lock(file: TextIO, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False if another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):  # POSIX leaves open which of them
        return False
    except OSError:
        pass  # a file system without locks: go on as if alone
    return True
