"""The migrations make the tables of the schema."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlmodel import SQLModel

import emotion.journal.schema  # noqa: F401 registers the tables
from emotion.errors import DamagedFile, UserError
from emotion.journal.database import open_database


def test_migrations_make_the_tables_of_the_schema(tmp_path: Path):
    engine = open_database(tmp_path / "journal.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path):
    engine = open_database(tmp_path / "journal.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(UserError, match="newer"):
        open_database(tmp_path / "journal.db")


@pytest.mark.parametrize("content", [b"no database at all" * 500, None])
def test_a_damaged_database_is_refused(tmp_path: Path, content: bytes | None):
    path = tmp_path / "journal.db"
    if content is None:
        engine = open_database(path)
        with engine.connect() as connection:
            connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
        content = path.read_bytes()
        content = content[:4096] + b"\xff" * 4096 + content[8192:]
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match="import an export"):
        open_database(path)
