"""Nothing half-written stays, secrets are private from the first byte, nothing is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from birthmark.errors import OutputExists
from birthmark.files import (
    folder_atomically,
    locked,
    new_folder,
    remove_abandoned,
    write_atomically,
)


def test_writes_and_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"one")
    write_atomically(path, memoryview(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_refuses_to_overwrite_when_told(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"one", overwrite=False)
    with pytest.raises(OutputExists, match=r"a\.bin"):
        write_atomically(path, b"two", overwrite=False)
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("umask", [0, 0o077])
def test_mode_is_never_wider_than_asked(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "secret", b"x", mode=0o600)
        write_atomically(tmp_path / "new", b"x", mode=0o600, overwrite=False)
    finally:
        os.umask(before)
    for name in ("secret", "new"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "no space"), KeyboardInterrupt()])
@pytest.mark.parametrize("overwrite", [True, False])
def test_failure_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    failure: BaseException,
    overwrite: bool,
) -> None:
    def fail(*_: object) -> None:
        raise failure

    old = tmp_path / "old"
    old.write_bytes(b"old")
    target = old if overwrite else tmp_path / "fresh"
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(failure)):
        write_atomically(target, b"new", overwrite=overwrite)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["old"]
    assert old.read_bytes() == b"old"


def test_missing_folder_names_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/a\.bin"):
        write_atomically(tmp_path / "nowhere" / "a.bin", b"x")


def test_link_is_followed_and_folder_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"
    with pytest.raises(OutputExists, match="not a regular file"):
        write_atomically(tmp_path, b"x")
    with pytest.raises(OutputExists, match="not a regular file"):
        write_atomically("/dev/null", b"x")


def test_new_folder(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert new_folder(folder) == folder
    (folder / "x").touch()
    with pytest.raises(OutputExists, match="not empty"):
        new_folder(folder)
    assert new_folder(folder, into_existing=True) == folder
    with pytest.raises(OutputExists, match="not a folder"):
        new_folder(folder / "x", into_existing=True)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with folder_atomically(tmp_path / "a" / "b") as folder:
        (folder / "x").touch()
        assert not (tmp_path / "a" / "b").exists()
    assert os.listdir(tmp_path / "a") == ["b"]
    assert os.listdir(tmp_path / "a" / "b") == ["x"]
    with pytest.raises(KeyboardInterrupt), folder_atomically(tmp_path / "c") as folder:
        (folder / "x").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_is_never_mixed_with_another(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with folder_atomically(tmp_path / "empty") as folder:
        (folder / "x").touch()
    assert os.listdir(tmp_path / "empty") == ["x"]
    for taken, why in (("empty", "not empty"), ("empty/x", "not a folder")):
        with pytest.raises(OutputExists, match=why), folder_atomically(tmp_path / taken):
            pytest.fail("the body must not run")
    with pytest.raises(NotADirectoryError, match="x/y"), folder_atomically(tmp_path / "empty/x/y"):
        pytest.fail("the body must not run")


def test_what_a_killed_writer_left_is_removed_and_what_somebody_writes_is_not(
    tmp_path: Path,
) -> None:
    """A child process holds a file and a folder half-written; then it is killed."""
    code = (
        "import os, sys, time\n"
        "from birthmark import files\n"
        "os.fsync = lambda *_: (print('writing', flush=True), time.sleep(600))\n"
        "with files.folder_atomically('out') as folder:\n"
        "    (folder / 'inside').write_bytes(b'x')\n"
        "    files.write_atomically('file', b'x')\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == "writing\n"
        held = sorted(os.listdir(tmp_path))
        assert len(held) == 2 and not {"out", "file"} & set(held)
        for name in ("kept", ".birthmark-kept.tmp"):
            (tmp_path / name).touch()
        remove_abandoned(tmp_path)
        assert set(held) <= set(os.listdir(tmp_path))
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    remove_abandoned(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".birthmark-kept.tmp", "kept"]
    remove_abandoned(tmp_path / "absent")  # nothing to do, nothing to say


@pytest.mark.parametrize("folder", [False, True])
def test_a_writer_whose_file_is_taken_for_abandoned_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    """Between making a temporary file and locking it, somebody may remove it."""
    flock, times = fcntl.flock, 0

    def remove_at_first(descriptor: int, operation: int) -> None:
        nonlocal times
        times += 1
        if times == 1:
            monkeypatch.setattr(fcntl, "flock", flock)
            remove_abandoned(tmp_path)
            monkeypatch.setattr(fcntl, "flock", remove_at_first)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_at_first)
    if folder:
        with folder_atomically(tmp_path / "out") as inside:
            (inside / "x").write_bytes(b"data")
        assert (tmp_path / "out" / "x").read_bytes() == b"data"
    else:
        write_atomically(tmp_path / "out", b"data")
        assert (tmp_path / "out").read_bytes() == b"data"
    assert times == 2
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_is_gone_before_it_can_be_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, made = Path.mkdir, []

    def removed_at_first(path: Path, *args: object, **options: object) -> None:
        mkdir(path, *args, **options)
        made.append(path)
        if len(made) == 1:
            remove_abandoned(tmp_path)

    monkeypatch.setattr(Path, "mkdir", removed_at_first)
    with folder_atomically(tmp_path / "out") as inside:
        (inside / "x").write_bytes(b"data")
    assert len(made) == 2 and inside == made[1]
    assert os.listdir(tmp_path) == ["out"]


def test_a_lock_is_had_by_one_at_a_time(tmp_path: Path) -> None:
    """What a second process changes, it reads after the first has written."""
    count = tmp_path / "count"
    count.write_text("0")
    adding = f"""
import time
from pathlib import Path
from birthmark.files import locked, write_atomically
for _ in range(25):
    with locked({str(count)!r}):
        now = int(Path({str(count)!r}).read_text())
        time.sleep(.002)
        write_atomically({str(count)!r}, str(now + 1).encode())
"""
    adders = [subprocess.Popen([sys.executable, "-c", adding]) for _ in range(3)]
    assert [adder.wait() for adder in adders] == [0, 0, 0]
    assert count.read_text() == "75"
    with pytest.raises(OSError, match="nowhere"), locked(tmp_path / "nowhere" / "count"):
        pass
