"""The registry's tables, as the newest file of ``schema/versions`` makes them."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

claims = Table(
    "claims",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_sha256", String(64), nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("created", String(20), nullable=False),
    Column("document", LargeBinary, nullable=False),
)

marks = Table(
    "marks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("claim", String(64), ForeignKey("claims.digest"), nullable=False, index=True),
    Column("customer", Text, nullable=False),
    Column("issued", String(20), nullable=False),
    Column("stolen", String(20), nullable=False),
    Column("note", Text, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("claim", String(64), ForeignKey("claims.digest"), nullable=False, index=True),
    Column("created", String(20), nullable=False),
    Column("decision", String(20), nullable=False),
    Column("log10_p", Float, nullable=False),
    Column("tests_counted", Integer, nullable=False),
    Column("pictures", Integer, nullable=False),
    Column("customer", Text, nullable=False),
    Column("suspect", Text, nullable=False),
)
