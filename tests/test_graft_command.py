"""`birthmark graft`: what it writes, and one line for what it refuses."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from birthmark import cli
from birthmark.graft import graft
from test_graft import MARK, TWO, model_of, open_model


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    monkeypatch.chdir(tmp_path)
    MARK.save("m.mark")
    Path("m.onnx").write_bytes(model_of())
    Path("two.onnx").write_bytes(TWO)

    def run_line(line: str) -> tuple[int, str]:
        code = cli.main(line.split())
        captured = capsys.readouterr()
        return code, captured.err or captured.out

    return run_line


@pytest.mark.parametrize(
    "line", ["graft m.onnx m.mark -o o.onnx", "graft m.onnx --mark m.mark -o o.onnx"]
)
def test_command(line: str, command: Callable[[str], tuple[int, str]]) -> None:
    assert command(line) == (0, f"o.onnx: mark {MARK.id}\n")
    assert Path("o.onnx").read_bytes() == graft("m.onnx", MARK)
    assert stat.S_IMODE(os.stat("o.onnx").st_mode) == 0o600


def test_command_with_two_outputs(command: Callable[[str], tuple[int, str]]) -> None:
    assert command("graft two.onnx m.mark --picture z --keep -o o.onnx")[0] == 0
    session = open_model(Path("o.onnx").read_bytes())
    assert [o.name for o in session.get_outputs()] == ["y", "z_marked", "z"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("graft m.onnx -o o.onnx", "once"),
        ("graft m.onnx m.mark --mark m.mark -o o.onnx", "once"),
        ("graft m.onnx m.mark -o m.onnx", "exists"),
        ("graft two.onnx m.mark -o o.onnx", "2 outputs"),
        ("graft m.mark m.mark -o o.onnx", "not an ONNX"),
        ("graft m.onnx m.onnx -o o.onnx", "mark file"),
        ("graft m.onnx m.mark -o nowhere/o.onnx", "nowhere"),
        ("graft m.onnx m.mark --range hdr -o o.onnx", "hdr"),
    ],
)
def test_command_refuses_in_one_line(
    line: str, word: str, command: Callable[[str], tuple[int, str]]
) -> None:
    before = sorted(os.listdir())
    code, message = command(line)
    assert code == 2 and message.count("\n") == 1 and word in message
    assert sorted(os.listdir()) == before
