"""The progress line: silent at first, one line on a terminal, a line a tenth elsewhere."""

from __future__ import annotations

import io
import sys
import time

import pytest

from birthmark.progress import Progress


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is, to be set."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_short_work_says_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("work")
    for i in range(11):
        clock[0] = 100 + i / 10
        progress(i, 10)
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_plain_lines_tell_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("work")
    for i in range(101):
        clock[0] = 100 + i
        progress(i, 100, "message")
    progress.close()
    out, lines = capsys.readouterr()
    assert out == ""
    assert lines.splitlines()[0] == "work: 10%, 90 s left"
    assert lines.splitlines()[-1] == "work: 100%, 100 s"
    assert len(lines.splitlines()) == 10


def test_a_terminal_gets_one_line(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress("work")
    for i in range(101):
        clock[0] = 100 + i
        progress(i, 100, "a message as long as it likes " * 9)
    progress.close()
    text = terminal.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    assert "50% 50 s left" in text
    assert max(len(line) for line in text.split("\r\x1b[K")) <= 111


def test_nothing_to_do_is_no_error(clock: list[float]) -> None:
    progress = Progress("work")
    clock[0] = 200
    progress(0, 0)
    progress.close()
