"""The database of a journal: SQLite with write-ahead log, migrated when it is opened."""

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError
from sqlmodel import Session

from emotion.errors import DamagedFile, UserError

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_S = 30.0


def open_database(path: Path) -> Engine:
    """Open or create a database, check it, and bring its tables up to date.

    Raises:
        DamagedFile: it is no intact database.
        UserError: a newer version has written it.
        OSError: it cannot be written.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin_immediately)
    try:
        with engine.connect() as connection:
            flaws = connection.execute(text("PRAGMA quick_check")).scalars().all()
            if flaws != ["ok"]:
                raise damaged(path, flaws[0])
        with engine.begin() as connection:
            migrate(connection)
            broken = connection.execute(text("PRAGMA foreign_key_check")).first()
            if broken:
                raise damaged(path, f"a row of {broken[0]} refers to a missing one")
    except CommandError as error:
        engine.dispose()
        raise UserError(
            f"{path} cannot be opened ({error}): a newer version has written it; use that version"
        ) from None
    except DatabaseError as error:
        engine.dispose()
        raise explained(error, path) from None
    except BaseException:
        engine.dispose()
        raise
    return engine


class Database:
    """The database; several threads may use it."""

    def __init__(self, path: Path) -> None:
        """Open or create it; raises as `open_database`."""
        self._path = path
        self._engine = open_database(path)
        self._readers = self._engine.execution_options(reads=True)
        self.lock = threading.RLock()  # writers of this process wait here, in turn

    def close(self) -> None:
        """Close it."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Begin a transaction that only reads; rows remain usable after it."""
        with self._translated(), Session(self._readers, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Begin a transaction, which is committed at the end, or rolled back by an exception."""
        with (
            self.lock,
            self._translated(),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def forget(self, everything: bool = False) -> None:
        """Remove deleted content from the files, except what another connection is reading.

        Args:
            everything: make the database as small as it can be.
        """
        with self.lock, self._translated(), self._engine.connect() as connection:
            raw = connection.connection.driver_connection
            if everything:
                raw.execute("VACUUM")
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise explained(error, self._path) from error


def set_up(connection: sqlite3.Connection, _: Any) -> None:
    """Set up a new connection."""
    connection.isolation_level = None  # `begin_immediately` begins transactions
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # a commit survives a power failure
        "foreign_keys=ON",
        "secure_delete=ON",  # deleted notes are overwritten
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")
    connection.create_function("casefold", 1, str.casefold, deterministic=True)


def begin_immediately(connection: Any) -> None:
    """Begin a transaction; one that may write takes the lock at once, so that it cannot fail later.

    Connections with the execution option `reads` do not wait for a writer.
    """
    reads = connection.get_execution_options().get("reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def migrate(connection: Any) -> None:
    """Run the migrations that the database lacks, in the transaction of a connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def damaged(path: Path, why: object) -> DamagedFile:
    """Make the error for a database that is not intact."""
    return DamagedFile(
        f"{path} is damaged ({why}): move it away with its -wal and -shm files and import an export"
    )


def explained(error: DatabaseError, path: Path) -> Exception:
    """Return the error of SQLite as one of ours: a machine's fault as OSError, else damage."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    name = getattr(error.orig, "sqlite_errorname", "")
    number = {
        "SQLITE_FULL": errno.ENOSPC,
        "SQLITE_READONLY": errno.EROFS,
        "SQLITE_CANTOPEN": errno.EACCES,
        "SQLITE_IOERR": errno.EIO,
        "SQLITE_NOMEM": errno.ENOMEM,
    }
    for prefix, value in number.items():
        if name.startswith(prefix):
            return OSError(value, os.strerror(value), str(path))
    return damaged(path, error.orig if code is not None else error)
