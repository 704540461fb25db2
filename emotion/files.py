"""Atomic writes and locks: a file under its own name is always complete."""

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
    """Yield a hidden temporary file, renamed to the file when written, removed if that fails.

    The folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{MACHINE}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def writer_lives(path: Path) -> bool:
    """Return whether the process that writes a temporary file of `unfinished` may still run.

    A process of another machine may run if the file was written within the last hour. Other hidden
    files count as in use.
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
        os.kill(int(number), 0)  # signal 0 only checks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True


@contextmanager
def claimed(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock that no other process can hold at the same time, and that dies with this one.

    It is a record lock: children do not inherit it (an orphan of a killed run must not hold it),
    and a shared file system shows it to other machines. Its file remains. If another process holds
    it, wait for that process, or raise a UserError that names the process and `what` is locked.
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
    """Return the process that holds the lock of `claimed`; None if there is none.

    Not for a lock that this process holds itself: checking would release it.
    """
    try:
        with open(path, "r+", encoding="utf-8") as file:
            return None if try_lock(file) else file.read() or "another process"
    except FileNotFoundError:
        return None


def try_lock(file: TextIO, wait: bool = False) -> bool:
    """Lock an open file until it is closed; return False if another process has locked it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):  # POSIX allows either
        return False
    except OSError:
        pass  # a file system without locks: continue as if alone
    return True
