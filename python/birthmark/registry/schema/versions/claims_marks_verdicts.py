"""Claims, marks and verdicts."""

import sqlalchemy as sa
from alembic import op

revision = "claims_marks_verdicts"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "claims",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_sha256", sa.String(64), nullable=False),
        sa.Column("public_key", sa.String(64), nullable=False),
        sa.Column("created", sa.String(20), nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "marks",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("claim", sa.String(64), sa.ForeignKey("claims.digest"), nullable=False),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("issued", sa.String(20), nullable=False),
        sa.Column("stolen", sa.String(20), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_index("ix_marks_claim", "marks", ["claim"])
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("claim", sa.String(64), sa.ForeignKey("claims.digest"), nullable=False),
        sa.Column("created", sa.String(20), nullable=False),
        sa.Column("decision", sa.String(20), nullable=False),
        sa.Column("log10_p", sa.Float, nullable=False),
        sa.Column("tests_counted", sa.Integer, nullable=False),
        sa.Column("pictures", sa.Integer, nullable=False),
        sa.Column("customer", sa.Text, nullable=False),
        sa.Column("suspect", sa.Text, nullable=False),
    )
    op.create_index("ix_verdicts_claim", "verdicts", ["claim"])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("verdicts", "marks", "claims"):
        op.drop_table(table)
