"""The registry on SQLite and on a real PostgreSQL: many writers, a crash, no secret in it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from authority import Authority
from birthmark import cli
from birthmark.claim import Claim
from birthmark.errors import InvalidClaim, InvalidCustomer, RegistryError
from birthmark.keys import OwnerKey
from birthmark.mark import provision
from birthmark.registry import Registry, tables
from birthmark.stamp import request_stamp
from birthmark.verdict import Verdict, verify

Owned = tuple[OwnerKey, Claim, Any]
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that was made for these tests; it refuses to run as root."""
    if not _POSTGRES:
        pytest.skip("no PostgreSQL (Debian's package postgresql) on this machine")
    folder = tmp_path_factory.mktemp("postgres")
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        folder = Path("/tmp") / f"birthmark-postgres-{os.getpid()}"
        folder.mkdir(mode=0o700)
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "cwd": folder}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet: dict[str, Any] = {"capture_output": True, "check": True, **user}
    data = folder / "data"
    subprocess.run([_POSTGRES[-1] / "initdb", "-D", data, "-U", "owner", "-A", "trust"], **quiet)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    server = [_POSTGRES[-1] / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
    subprocess.run([*server, "-o", options, "start"], **quiet)
    try:
        yield f"postgresql+psycopg://owner@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*server, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "marks.db")
    url: str = request.getfixturevalue("postgres")
    name = f"test_{os.urandom(6).hex()}"
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return url.replace("/postgres", f"/{name}")


@pytest.fixture(scope="module")
def verdict(session_claim: Owned, published) -> Verdict:
    return verify(published.marked, session_claim[1], session_claim[0])


def test_what_is_recorded_is_there_when_opened_again(
    where: str, session_claim: Owned, verdict: Verdict
) -> None:
    key, claim, _ = session_claim
    with Registry(where) as registry:
        for name in ("Zo\u00eb", "Acme", None):
            registry.add_mark(claim, provision(key, claim, name), name)
        registry.add_verdict(verdict, "pictures of a rival")
    with Registry(where) as registry:
        assert registry.claims() == [claim]
        assert registry.customers(claim) == ["Acme", "Zo\u00eb"]
        assert {m.id for m in registry.marks(claim)} == {
            provision(key, claim, name).id for name in ("Zo\u00eb", "Acme", None)
        }
        (given,) = registry.verdicts(claim)
        assert given.decision == "MARKED" and given.suspect == "pictures of a rival"
        assert given.log10_p == pytest.approx(verdict.log10_p)


def test_a_mark_counts_from_its_first_day_and_a_theft_once(
    where: str, session_claim: Owned
) -> None:
    key, claim, _ = session_claim
    mark = provision(key, claim, "Acme")
    with Registry(where) as registry:
        registry.add_mark(claim, mark, "Acme")
        (before,) = registry.marks(claim)
        registry.report_stolen(mark.id, "device 7")
        registry.add_mark(claim, mark, "Acme")
        (after,) = registry.marks(claim)
        assert after.issued == before.issued and after.stolen and after.note == "device 7"
        with pytest.raises(RegistryError, match="not reported stolen"):
            registry.report_stolen(mark.id, "again")
        with pytest.raises(RegistryError, match="no mark"):
            registry.report_stolen("0" * 32, "x")


def test_many_writers_at_once_lose_nothing(where: str, session_claim: Owned) -> None:
    key, claim, _ = session_claim
    names = [f"customer {i}" for i in range(24)]
    marks = [provision(key, claim, name) for name in names]

    def write(which: int) -> None:
        with Registry(where) as registry:  # each opens it anew: the schema is made once
            for i in range(which % 3, len(names), 3):  # and each mark is written by two
                registry.add_mark(claim, marks[i], names[i])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    with Registry(where) as registry:
        assert registry.customers(claim) == sorted(names)


def test_a_crash_in_the_middle_leaves_nothing_of_it(where: str, session_claim: Owned) -> None:
    claim = session_claim[1]
    code = """
import os, sys
from birthmark.registry import Registry, tables
registry = Registry(sys.argv[1])
with registry._transaction() as connection:
    connection.execute(tables.claims.insert().values(digest="0" * 64, owner="half", model_name="m",
        model_sha256="0", public_key="0", created="now", document=b"x"))
    os._exit(9)
"""
    with Registry(where) as registry:
        registry.add_claim(claim)
        done = subprocess.run([sys.executable, "-c", code, where], check=False)
        assert done.returncode == 9
        assert registry.claims() == [claim]


def test_the_migrations_make_what_the_tables_say(where: str) -> None:
    with Registry(where) as registry, registry._engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), tables.metadata)
    assert difference == []


def test_a_tampered_claim_is_noticed(where: str, session_claim: Owned) -> None:
    with Registry(where) as registry:
        registry.add_claim(session_claim[1])
        document = session_claim[1].to_bytes().replace(b"Owner", b"Thief")
        with registry._transaction() as connection:
            connection.execute(tables.claims.update().values(document=document))
        with pytest.raises(InvalidClaim):
            registry.claims()


def test_a_stamp_is_not_forgotten(where: str, session_claim: Owned, tmp_path: Path) -> None:
    authority, claim = Authority(tmp_path), session_claim[1]
    with authority.served() as url:
        stamped = claim.stamped(request_stamp(claim.canonical_form(), url))
    with Registry(where) as registry:
        for known in (claim, stamped, claim):
            registry.add_claim(known)
        assert registry.claims() == [stamped]


def test_nobody_to_trace(where: str, session_claim: Owned) -> None:
    with Registry(where) as registry, pytest.raises(InvalidCustomer, match="no customer"):
        registry.customers(session_claim[1])


@pytest.mark.parametrize(
    "where",
    [
        "/nowhere/at/all/marks.db",
        "nonsense://x",
        "postgresql+psycopg://owner:hunter2@127.0.0.1:9/x",
        "://",
    ],
)
def test_what_cannot_be_opened_is_one_line_without_the_password(where: str) -> None:
    with pytest.raises(RegistryError) as caught:
        Registry(where)
    assert "\n" not in str(caught.value) and "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["marks?a=b.db", "50%41.db"])
def test_a_file_is_the_one_that_is_named(tmp_path: Path, session_claim: Owned, name: str) -> None:
    for _ in range(2):
        with Registry(str(tmp_path / name)) as registry:
            registry.add_claim(session_claim[1])
            assert registry.claims() == [session_claim[1]]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RegistryError, match=r"x\.db"):
        Registry(str(tmp_path / "x.db"))
    assert (tmp_path / "x.db").read_bytes() == b"not a database" * 100


def test_the_commands_record_and_trace_says_who_was_robbed(
    session_claim: Owned,
    published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, claim, _ = session_claim
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIRTHMARK_PASSPHRASE", "correct horse")
    key.save("owner.key", "correct horse")
    claim.save("claim.json")
    monkeypatch.setenv("BIRTHMARK_REGISTRY", "marks.db")
    secrets = [key._secret, claim.claim_key(key)._secret, claim.mark_key(key)._secret]
    secrets.append(claim.mark_key(key).customer("Acme")._secret)

    def run(line: str) -> tuple[int, str, str]:
        code = cli.main(line.split())
        return code, *capsys.readouterr()

    owned = "--key owner.key --claim claim.json "
    code, out, _ = run(f"provision {owned}--customer Acme -o acme.mark")
    assert code == 0
    run(f"provision {owned}--customer Bolt -o bolt.mark")
    assert run(f"report-stolen --mark {out.split()[-1]} --note Lyon")[0] == 0
    code, out, _ = run(f"trace {owned}--mark-file acme.mark")
    assert code == 0 and "named  Acme" in out and "reported stolen" in out and "Lyon" in out
    from birthmark.pictures import write_png

    write_png(tmp_path / "p.png", published.plain[0])
    assert run(f"verify {owned}p.png")[0] == 1
    code, out, _ = run("registry")
    assert code == 0 and "STOLEN" in out and "UNMARKED" in out and "p.png" in out
    data = b"".join(p.read_bytes() for p in tmp_path.glob("marks.db*"))
    assert b"Acme" in data
    for secret in secrets:
        assert secret not in data and secret.hex().encode() not in data
    monkeypatch.setenv("BIRTHMARK_REGISTRY", "/nowhere/x.db")
    code, _, error = run(f"provision {owned}--customer Cog -o cog.mark")
    assert code == 2 and error.count("\n") == 1 and not (tmp_path / "cog.mark").exists()
    monkeypatch.delenv("BIRTHMARK_REGISTRY")
    for line in ("registry", "report-stolen --mark x --note y", f"trace {owned}p.png"):
        code, _, error = run(line)
        assert code == 2 and "--registry" in error
