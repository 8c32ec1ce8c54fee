"""The registry: an owner's claims, customers, marks issued and verdicts, in a database.

SQLite in a file by default, PostgreSQL or any other by its URL (SQLAlchemy). It holds no secret:
whoever reads it learns who the customers are, and cannot make or recognise a mark. Every change is
one transaction. The schema is kept by Alembic and brought up to date when a registry is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birthmark.claim import Claim, to_time
from birthmark.errors import InvalidCustomer, RegistryError
from birthmark.keys import check_customer
from birthmark.mark import Mark
from birthmark.verdict import Verdict

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_BUSY_S = 30
_SCHEMA = Path(__file__).parent / "schema"


@dataclass(frozen=True)
class IssuedMark:
    """A mark that was provisioned.

    Attributes:
        id: its public name, as the mark file holds it (32 hex digits).
        customer: whose it is; empty for the claim's own mark.
        issued: when it was first recorded; UTC, ISO 8601.
        stolen: when its file was reported stolen; empty if it was not.
        note: what was said then.
    """

    id: str
    customer: str
    issued: str
    stolen: str
    note: str


@dataclass(frozen=True)
class GivenVerdict:
    """A verdict that was given. ``log10_p`` counts ``tests_counted`` tests."""

    created: str
    decision: str
    log10_p: float
    tests_counted: int
    pictures: int
    customer: str
    suspect: str


class Registry:
    """An open registry; close it, or use it as a context.

    Args:
        where: a SQLite file's path (made if missing), or a database's URL.

    Raises:
        RegistryError: SQLAlchemy or Alembic is not installed, or the database cannot be used.
    """

    def __init__(self, where: str) -> None:
        try:
            import sqlalchemy
        except ImportError:
            raise RegistryError("a registry needs pip install 'birthmark[registry]'") from None
        try:
            if "://" in where:
                url = sqlalchemy.make_url(where)
            else:  # in a URL's text "?" and "%" would not be the file's name
                url = sqlalchemy.URL.create("sqlite", database=where)
            self.name = url.render_as_string(hide_password=True)
            self._engine = _engine(url)
        except Exception as error:  # a malformed URL, or a driver that is not installed
            raise RegistryError(f"no registry can be there: {_line(error)}") from None
        with self._reported():
            _upgrade(self._engine)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def __enter__(self) -> Registry:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def add_claim(self, claim: Claim) -> None:
        """Record a claim. The same with a stamp takes its place, the same without one does not."""
        from birthmark.registry.tables import claims

        values = {
            "owner": claim.owner,
            "model_name": claim.model_name,
            "model_sha256": claim.model_sha256,
            "public_key": claim.public_key.hex(),
            "created": claim.created,
            "document": claim.to_bytes(),
        }
        with self._transaction() as connection:
            digest, stamped = {"digest": claim.digest.hex()}, claim.stamp is not None
            self._put(connection, claims, digest, values, replace=stamped)

    def add_mark(self, claim: Claim, mark: Mark, customer: str | None = None) -> None:
        """Record that a mark was issued; the first time counts.

        Raises:
            InvalidCustomer: the name cannot be one.
        """
        from birthmark.registry.tables import marks

        self.add_claim(claim)
        values = {
            "claim": claim.digest.hex(),
            "customer": "" if customer is None else check_customer(customer),
            "issued": _now(),
            "stolen": "",
            "note": "",
        }
        with self._transaction() as connection:
            self._put(connection, marks, {"id": mark.id}, values, replace=False)

    def report_stolen(self, mark_id: str, note: str) -> None:
        """Record that a mark's file was stolen.

        Raises:
            RegistryError: no such mark, or it was reported before.
        """
        from birthmark.registry.tables import marks

        with self._transaction() as connection:
            chosen = marks.update().where(marks.c.id == mark_id, marks.c.stolen == "")
            if connection.execute(chosen.values(stolen=_now(), note=note)).rowcount != 1:
                raise RegistryError(f"no mark {mark_id} that was not reported stolen before")

    def add_verdict(self, verdict: Verdict, suspect: str) -> None:
        """Record a verdict on a suspect, who is named in words."""
        from birthmark.registry.tables import verdicts

        self.add_claim(verdict.claim)
        with self._transaction() as connection:
            connection.execute(
                verdicts.insert().values(
                    claim=verdict.claim.digest.hex(),
                    created=verdict.created,
                    decision=str(verdict.decision),
                    log10_p=verdict.log10_p,
                    tests_counted=verdict.tests_counted,
                    pictures=verdict.pictures,
                    customer=verdict.customer or "",
                    suspect=suspect,
                )
            )

    def marks(self, claim: Claim) -> list[IssuedMark]:
        """All marks issued under a claim, by customer."""
        from birthmark.registry.tables import marks

        wanted = marks.select().where(marks.c.claim == claim.digest.hex())
        with self._transaction() as connection:
            rows = connection.execute(wanted.order_by(marks.c.customer)).mappings().all()
        return [
            IssuedMark(r["id"], r["customer"], r["issued"], r["stolen"], r["note"]) for r in rows
        ]

    def customers(self, claim: Claim) -> list[str]:
        """Names of all customers with a mark under a claim.

        Raises:
            InvalidCustomer: there is none.
        """
        names = [mark.customer for mark in self.marks(claim) if mark.customer]
        if not names:
            raise InvalidCustomer(f"{self.name}: no customer has a mark under this claim")
        return names

    def verdicts(self, claim: Claim) -> list[GivenVerdict]:
        """All verdicts on a claim, in the order in which they were given."""
        from birthmark.registry.tables import verdicts

        wanted = verdicts.select().where(verdicts.c.claim == claim.digest.hex())
        with self._transaction() as connection:
            rows = connection.execute(wanted.order_by(verdicts.c.id)).mappings().all()
        return [
            GivenVerdict(**{k: v for k, v in row.items() if k not in ("id", "claim")})
            for row in rows
        ]

    def claims(self) -> list[Claim]:
        """All claims, by digest; their signatures are verified.

        Raises:
            InvalidClaim: the database was tampered with.
        """
        from birthmark.registry.tables import claims

        with self._transaction() as connection:
            rows = connection.execute(claims.select().order_by(claims.c.digest)).mappings().all()
        return [Claim.from_bytes(row["document"]) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._reported(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reported(self) -> Iterator[None]:
        from alembic.util import CommandError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, CommandError) as error:
            raise RegistryError(f"{self.name}: {_line(error)}") from None

    def _put(
        self,
        connection: Connection,
        table: Any,
        key: dict[str, str],
        values: dict[str, Any],
        *,
        replace: bool,
    ) -> None:
        """Insert, or if the key is there replace or leave it; whoever else writes meanwhile."""
        from sqlalchemy.exc import IntegrityError

        (name, value), *_ = key.items()
        try:
            with connection.begin_nested():
                connection.execute(table.insert().values(**key, **values))
        except IntegrityError:
            if replace:
                connection.execute(table.update().where(table.c[name] == value).values(**values))


def _engine(url: Any) -> Engine:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, hide_parameters=True)
    if url.get_backend_name() != "sqlite":
        return engine

    # Python's driver begins transactions late and only for writing; these lines, from SQLAlchemy's
    # manual, leave that to us, so that a writer waits for another instead of failing in the middle.
    @sqlalchemy.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_S * 1000}")
        connection.execute("PRAGMA foreign_keys = ON")

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _upgrade(engine: Engine) -> None:
    """Bring the schema up to date, in one transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCHEMA).replace("%", "%%"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # two who open it at once must not both make it
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7246372)")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _now() -> str:
    return to_time(datetime.now(UTC))


def _line(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]
