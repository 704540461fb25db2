"""Atomic writes, sealed records and locks: a file under its own name is always complete.

A sealed record is a JSON object whose last key, `digest`, is the SHA-256 of all before it. It
detects damage and accidental edits. It is no protection: a changed record can be sealed again.
"""

import fcntl
import hashlib
import os
import re
import socket
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar
from zipfile import BadZipFile

from emotion.errors import DamagedFile, UserError, first_problem

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Value = TypeVar("Value")

MACHINE = "".join(filter(str.isalnum, socket.gethostname())) or "unnamed"
STALE_S = 3600  # no file takes an hour to write
MAX_NAME_BYTES = 255  # of a file system
MAX_RECORD_BYTES = 64 << 20  # larger files are no records of ours
# What zipfile raises for archives that are damaged, encrypted or of a newer kind
ZIP_ERRORS = (BadZipFile, EOFError, RuntimeError, ValueError, zlib.error, struct.error)
CHUNK_BYTES = 1 << 20
SEAL = re.compile(rb',\s*"digest":\s*"([0-9a-f]{64})"\s*\}\s*$')


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Yield a hidden temporary file, renamed to the file when written, removed if that fails.

    The folder is made. An OSError of writing, such as that of a full disk, names the file.
    """
    writer = f"{MACHINE}-{os.getpid()}{path.suffix}"
    temporary = path.with_name(f".{path.stem}.{writer}")
    if len(os.fsencode(temporary.name)) > MAX_NAME_BYTES:
        temporary = path.with_name(f".{digest(os.fsencode(path.stem))[:16]}.{writer}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.is_dir() and not path.is_symlink():
            path.rmdir()  # in the place of a file of ours; fails if it holds files
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # of a write, or of the temporary file
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):  # on a read-only file system there is none
            temporary.unlink()


def digest(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    hasher = hashlib.sha256()
    with open(path, "rb", opener=open_regular) as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def open_regular(path: str, flags: int) -> int:
    """Open a regular file, as the `opener` of `open`; raise an OSError for a pipe or device.

    Opening a pipe would wait for its writer, and reading a device may never end.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "not a regular file", path)


def read_whole(path: Path, max_bytes: int = MAX_RECORD_BYTES) -> bytes:
    """Read a file of ours.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is a folder, a pipe or a device, is larger than `max_bytes`, or must not be
            read.
    """
    try:
        with open(path, "rb", opener=open_regular) as file:
            content = file.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise DamagedFile(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > max_bytes:
        raise DamagedFile(f"{path} has more than {max_bytes >> 20} MiB")
    return content


def write_sealed(path: Path, adapter: "TypeAdapter[Value]", value: Value) -> None:
    """Write a value, a JSON object, as a sealed record, atomically."""
    body = adapter.dump_json(value, indent=2).removesuffix(b"\n}")
    assert body.startswith(b"{\n")
    with unfinished(path) as temporary:
        temporary.write_bytes(body + b',\n  "digest": "' + digest(body).encode() + b'"\n}\n')


def read_sealed(path: Path, adapter: "TypeAdapter[Value]") -> Value:
    """Read what `write_sealed` wrote; raises as `read_whole`, and DamagedFile if it has changed."""
    from pydantic import ValidationError

    content = read_whole(path)
    seal = SEAL.search(content)
    body = content[: seal.start()] if seal else content
    try:
        value = adapter.validate_json(body + b"\n}" if seal else content)
    except ValidationError as error:
        raise DamagedFile(f"{path}: {first_problem(error)}") from None
    if seal is None or seal[1].decode() != digest(body):
        raise DamagedFile(f"{path}: digest: it has changed since it was written")
    return value


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
    import psutil  # 20 ms, and `--help` imports this module

    try:  # a killed process whose parent does not wait for it stays as a zombie
        lives: bool = psutil.Process(int(number)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return lives


@contextmanager
def claimed(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock that no other process can hold at the same time, and that dies with this one.

    It is a record lock: children do not inherit it (an orphan of a killed run must not hold it),
    and a shared file system shows it to other machines. Its file remains. If another process holds
    it, wait for that process, or raise a UserError that names the process and `what` is locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_no_file(path)
    with open(path, "a+", encoding="utf-8") as file:
        if not try_lock(file, wait):
            raise UserError(f"{what} is in use by {holder(path)}: wait for it, or stop it")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def refuse_no_file(path: Path) -> None:
    """Raise a UserError if a folder, a pipe or a device is in the place of a lock."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} must be a file, which is made anew: remove what is there")


def holder(path: Path) -> str | None:
    """Return the process that holds the lock of `claimed`; None if there is none.

    Not for a lock that this process holds itself: checking would release it.
    """
    refuse_no_file(path)
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
