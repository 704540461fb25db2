"""People, entries and observations.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "person",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("key", sa.String(), nullable=False, unique=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("num_changes", sa.Integer(), nullable=False),
    )
    op.create_table(
        "entry",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column(
            "person_id",
            sa.String(),
            sa.ForeignKey("person.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(), nullable=False),
        sa.Column("added_at", sa.DateTime(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("suffix", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("duration_s", sa.Float()),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("label", sa.String()),
        sa.Column("probability", sa.Float()),
        sa.Column("runner_up", sa.String()),
        sa.Column("probabilities", sa.JSON()),
        sa.Column("unsure", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("timeline", sa.JSON(), nullable=False),
        sa.Column("model", sa.String()),
        sa.Column("found", sa.String()),
        sa.Column("found_unsure", sa.Boolean(), nullable=False),
        sa.Column("correction", sa.String()),
        sa.Column("corrected_at", sa.DateTime()),
        sa.Column("note", sa.String(20_000), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("is_cover", sa.Boolean(), nullable=False),
        sa.Column("has_picture", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.UniqueConstraint("person_id", "sha256"),
    )
    op.create_index("entry_days", "entry", ["person_id", "day"])
    op.create_index(
        "one_cover", "entry", ["person_id", "day"], unique=True, sqlite_where=sa.text("is_cover")
    )
    op.create_index(
        "unfinished",
        "entry",
        ["added_at"],
        sqlite_where=sa.text("state IN ('waiting', 'analyzing')"),
    )
    op.create_table(
        "observation",
        sa.Column(
            "entry_id",
            sa.String(),
            sa.ForeignKey("entry.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("features", sa.LargeBinary(), nullable=False),
        sa.Column("parts", sa.LargeBinary(), nullable=False),
        sa.Column("in_profile", sa.Boolean(), nullable=False),
    )
