"""Processes that are killed, disks that are full, memory that runs out: said, and nothing broken.

Each command is killed a few times here; `make faults` does so BIRTHMARK_KILLS (50) times each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from birthmark import claim as claim_module
from birthmark import verdict as verdict_module
from birthmark.bundle import recheck
from birthmark.calibration import Calibration
from birthmark.claim import Claim, from_time, to_time
from birthmark.cli import shared
from birthmark.errors import InvalidClaim, InvalidVerdict
from birthmark.keys import OwnerKey
from birthmark.mark import provision
from birthmark.verdict import verify
from conftest import Published

KILLS = int(os.environ.get("BIRTHMARK_KILLS", "2"))
PASSPHRASE = "word"
SURROGATE = "surrogate --inputs photos --outputs published --student espcn --steps 130"
COMMANDS = {
    "protect": "protect --model espcn_x2.onnx --mark m.mark photos -o out/made",
    "embed": "embed --mark m.mark published -o out/made",
    "surrogate": f"{SURROGATE} --checkpoint out/state -o out/made",
    "verify": "verify --key owner.key --claim claim.json published --report out/r.html"
    " --verdict out/made",
}


# With what it leaves behind when it is killed, for the next run to go on from.
KILLED = {**COMMANDS, "checkpoint": f"{COMMANDS['verify']} --checkpoint out/state"}


@dataclass(frozen=True)
class Case:
    """A folder with everything that the commands read, and a folder `out` of the test's own."""

    folder: Path

    def start(self, line: str, prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        environment = {**os.environ, shared.PASSPHRASE_VARIABLE: PASSPHRASE, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "birthmark", *line.split()],
            cwd=self.folder,
            env=environment,
            preexec_fn=prepare,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, line: str, prepare: Callable[[], None] | None = None) -> tuple[int, str]:
        """Exit code, and the last line of standard error: the one that is no progress."""
        child = self.start(line, prepare)
        _, said = child.communicate(timeout=300)
        return child.returncode, said.rstrip("\n").split("\n")[-1]

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def holds(self) -> list[str]:
        return sorted(os.listdir(self.out))


@pytest.fixture(scope="module")
def everything(
    tmp_path_factory: pytest.TempPathFactory,
    models_folder: Path,
    session_claim: tuple[OwnerKey, Claim, Calibration],
    published: Published,
) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    key, claim, _ = session_claim
    key.save(folder / "owner.key", PASSPHRASE)
    claim.save(folder / "claim.json")
    provision(key, claim).save(folder / "m.mark")
    shutil.copy(models_folder / "espcn_x2.onnx", folder)
    for name, pictures in (("photos", published.inputs), ("published", published.marked)):
        (folder / name).mkdir()
        for i, picture in enumerate(pictures):
            small = picture[:160, :160] if name == "photos" else picture[:320, :320]
            cv2.imwrite(str(folder / name / f"p{i}.png"), small[..., ::-1])
    return folder


@pytest.fixture
def case(everything: Path) -> Iterator[Case]:
    (everything / "out").mkdir()
    yield Case(everything)
    shutil.rmtree(everything / "out")


def content(path: Path) -> object:
    """What a finished output holds, less the time of a verdict."""
    if path.is_dir():
        return {p.name: p.read_bytes() for p in path.iterdir()}
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    recheck(path)
    with zipfile.ZipFile(path) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    signed = {"verdict.json", "manifest.json", "manifest.sig"}
    rest: dict[str, object] = {n: data for n, data in members.items() if n not in signed}
    return {**rest, "verdict": {**json.loads(members["verdict.json"]), "created": ""}}


def is_temporary(name: str) -> bool:
    return name.startswith(".birthmark-") and name.endswith(".tmp")


@pytest.mark.parametrize("command", KILLED)
def test_a_command_that_is_killed_at_any_moment_and_run_again(case: Case, command: str) -> None:
    """Nothing half-written has its final name, and the end is as if nothing had happened."""
    line, made = KILLED[command], case.out / "made"
    began = time.monotonic()
    assert case.run(line)[0] in (0, 1)
    took_s = time.monotonic() - began
    expected, holds = content(made), case.holds()
    rng = random.Random(command)

    def begin_anew() -> None:
        for path in case.out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    begin_anew()
    killed = 0
    for _ in range(3 * KILLS):
        child = case.start(line)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(rng.uniform(0.1, 1) * took_s)
        child.kill()
        child.communicate()
        killed += child.returncode == -signal.SIGKILL
        for name in case.holds():
            assert is_temporary(name) or name in {*holds, "state"}, name
        if made.exists():
            assert content(made) == expected
        if (case.out / "r.html").exists():
            assert (case.out / "r.html").read_text().endswith("</html>\n")
        if made.exists() or (case.out / "r.html").exists():
            begin_anew()  # nothing that is whole is overwritten
        if killed == KILLS:
            break
    assert killed == KILLS
    code, said = case.run(line)
    assert code in (0, 1), said
    assert content(made) == expected
    assert case.holds() == holds, "what was killed left something behind"


def test_a_verdict_goes_on_from_what_was_measured_before_it_was_killed(case: Case) -> None:
    """The pictures that were measured need not even be readable any more."""
    line, state = KILLED["checkpoint"].replace("published", "out/many"), case.out / "state"
    (case.out / "many").mkdir()
    large = cv2.imread(str(case.folder / "published" / "p0.png"))
    for i in range(40):
        cv2.imwrite(
            str(case.out / "many" / f"{i:02}.png"), np.roll(np.tile(large, (3, 3, 1)), i, 0)
        )
    assert case.run(line)[0] in (0, 1)
    expected = content(case.out / "made")
    for name in ("made", "r.html"):
        (case.out / name).unlink()
    child = case.start(line)
    while child.poll() is None and (not state.exists() or state.stat().st_size < 30_000):
        time.sleep(0.01)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL, "it was done before it could be killed"
    for i in range(5):
        first = case.out / "many" / f"{i:02}.png"
        times = first.stat()
        first.write_bytes(bytes(times.st_size))
        os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert case.run(line)[0] in (0, 1)
    assert content(case.out / "made") == expected
    assert case.holds() == ["made", "many", "r.html"]


def test_a_disk_that_is_full_of_its_checkpoint(case: Case) -> None:
    """What was measured till then stays, and counts once there is room."""
    line = KILLED["checkpoint"].replace("out/state", "out/disk/state")
    (case.out / "disk").mkdir()
    with mounted(case.out / "disk", "size=8k"):
        code, said = case.run(line)
        assert code == 2
        assert said == "birthmark: error: out/disk/state: No space left on device"
        shutil.copy(case.out / "disk" / "state", case.out / "state")
    assert case.run(KILLED["checkpoint"])[0] in (0, 1)
    assert case.holds() == ["disk", "made", "r.html"]


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system in memory over the folder, where this machine lets us."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only the superuser may mount")
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(case: Case, command: str) -> None:
    with mounted(case.out, "size=16k"):
        code, said = case.run(COMMANDS[command].replace("130", "3"))
        assert code == 2
        assert said.startswith("birthmark: error: ") and "No space left on device" in said
        assert case.holds() == []


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_may_not_grow(case: Case, command: str) -> None:
    """As by `ulimit -f`: the system refuses what is too large."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    code, said = case.run(COMMANDS[command].replace("130", "3"), limit)
    assert code == 2
    assert said.startswith("birthmark: error: out/") and said.endswith("File too large")
    assert case.holds() == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_may_only_be_read(case: Case, command: str) -> None:
    def refused(reason: str) -> None:
        code, said = case.run(COMMANDS[command].replace("130", "3"))
        assert code == 2
        assert said.startswith("birthmark: error: out/") and said.endswith(reason)
        assert case.holds() == []

    if os.geteuid() == 0:
        with mounted(case.out, "ro"):
            refused("Read-only file system")
    else:
        case.out.chmod(0o500)
        try:
            refused("Permission denied")
        finally:
            case.out.chmod(0o700)


@pytest.mark.parametrize("command", ["protect", "embed", "verify"])
def test_too_little_memory(case: Case, command: str) -> None:
    """Wherever it runs out, there is an error in one line, or all is well."""
    large = np.tile(cv2.imread(str(case.folder / "published" / "p0.png")), (8, 8, 1))
    (case.out / "large").mkdir()
    cv2.imwrite(str(case.out / "large" / "p0.png"), large)
    line = COMMANDS[command].replace("published", "out/large").replace("photos", "out/large")
    failed = 0
    for megabytes in (330, 400, 500, 700):

        def limit(most: int = megabytes << 20) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        code, said = case.run(line, limit)
        failed += code == 2
        assert code in (0, 1, 2), (megabytes, said)
        if code == 2:
            assert said.startswith("birthmark: error: "), said
            assert "memory" in said or "failed to map" in said, said
        for name in set(case.holds()) - {"large"}:  # is whole
            path = case.out / name
            assert name in ("made", "r.html")
            content(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert failed


def test_two_processes_that_write_to_one_folder(case: Case) -> None:
    """One of them makes it, whole; the other says that it is there."""
    line = COMMANDS["embed"]
    assert case.run(line)[0] == 0
    expected = content(case.out / "made")
    for _ in range(KILLS):
        shutil.rmtree(case.out / "made")
        both = [case.start(line) for _ in range(2)]
        said = [child.communicate(timeout=300)[1] for child in both]
        codes = [child.returncode for child in both]
        assert sorted(codes) == [0, 2], said
        assert "out/made: output folder exists and is not empty" in said[codes.index(2)]
        assert content(case.out / "made") == expected
        assert case.holds() == ["made"]


def test_two_processes_that_write_one_file(case: Case) -> None:
    line = "provision --key owner.key --claim claim.json -o out/m"
    for _ in range(KILLS):
        both = [case.start(line) for _ in range(2)]
        said = [child.communicate(timeout=300)[1] for child in both]
        assert sorted(child.returncode for child in both)[0] == 0, said
        assert case.holds() == ["m"]
        assert (case.out / "m").read_bytes() == (case.folder / "m.mark").read_bytes()
        (case.out / "m").unlink()


def test_a_crash_writes_no_core_file_once_there_are_secrets(tmp_path: Path) -> None:
    code = (
        "import argparse, os\n"
        "from birthmark.cli import shared\n"
        "shared.passphrase(argparse.Namespace(passphrase_fd=None))\n"
        "os.abort()\n"
    )

    def allow() -> None:
        most = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))

    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, shared.PASSPHRASE_VARIABLE: PASSPHRASE},
        preexec_fn=allow,
    )
    status = os.waitpid(child.pid, 0)[1]
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == -signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("hours", [-30, -20, 0, 24 * 365 * 40])
def test_a_clock_that_was_moved(
    case: Case, monkeypatch: pytest.MonkeyPatch, published: Published, hours: int
) -> None:
    """A day is forgiven, for machines that disagree; what is judged then can be rechecked."""
    key = OwnerKey.load(case.folder / "owner.key", PASSPHRASE)
    claim = Claim.load(case.folder / "claim.json")
    moved = from_time(claim.created) + timedelta(hours=hours)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return moved

    for module in (claim_module, verdict_module):
        monkeypatch.setattr(module, "datetime", Clock)
    if hours < -24:
        with pytest.raises(InvalidClaim, match="from the future"):
            verify(published.marked, claim, key)
        return
    verdict = verify(published.marked, claim, key)
    assert verdict.created == to_time(moved)
    verdict.save(case.out / "v.zip", key)
    assert not recheck(case.out / "v.zip", key).needs_key
    early = dataclasses.replace(verdict, created=to_time(moved - timedelta(hours=hours + 25)))
    for created in (early.created, "soon", ""):
        dataclasses.replace(verdict, created=created).save(case.out / "changed.zip", key)
        with pytest.raises(InvalidVerdict, match="created"):
            recheck(case.out / "changed.zip", key)
