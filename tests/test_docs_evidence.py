"""docs/evidence.md as an owner would type it: each command does what it should, in this order.

What a reader has to put in himself (an authority's address, a digest, a mark's id) is put in here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from authority import Authority
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.pictures import Picture
from conftest import ROOT, half_size

DOCUMENT = ROOT / "docs" / "evidence.md"
# The command, but the calibration is one from a file: test_docs has it measured by the commands.
COMMAND = """import sys
from birthmark import cli, model_calibration
from birthmark.calibration import Calibration

def measured(model, outputs):
    with open({path!r}, "rb") as file:
        return Calibration.from_bytes(file.read())

model_calibration._calibrated = measured
sys.exit(cli.main())
"""
# Nobody named and UNMARKED are answers too.
MAY_SAY_NO = {"trace", "verify"}


def commands() -> list[str]:
    """Every command of the document's bash blocks, lines that go on joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S)
    return "".join(blocks).replace("\\\n", " ").splitlines()


class Owner:
    """A folder, and a shell in it."""

    def __init__(self, folder: Path, authority: str) -> None:
        self.folder = folder
        self._authority = authority

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
            "BIRTHMARK_PASSPHRASE": "correct horse battery staple",
            "BIRTHMARK_NEW_PASSPHRASE": "incorrect horse",
        }

    def put_in(self, line: str) -> str:
        """The command with what only the reader knows."""
        line = line.replace("http://timestamp.example/tsr", self._authority)
        line = line.replace("--queries 200", "--queries 6")
        line = line.replace("birthmark claim ", "birthmark claim --draws 2 ")
        if "DIGEST" in line:
            claim = Claim.load(self.folder / "stamped.json")
            line = line.replace("DIGEST", claim.digest.hex())
        if "0123456789abcdef0123456789abcdef" in line:
            rows = self.run("birthmark registry --registry marks.db --json")
            mark = json.loads(rows)[0]["marks"][0]["id"]
            line = line.replace("0123456789abcdef0123456789abcdef", mark)
        return line

    def run(self, line: str, most: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", line],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 <= done.returncode <= most, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def serve(self, line: str) -> None:
        """Run what does not end by itself, until it has printed its address."""
        with subprocess.Popen(
            shlex.split(line),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline().startswith("http://127.0.0.1:")
            child.terminate()  # an interrupt is ignored by what was started in the background
            child.communicate(timeout=60)


def test_every_command_of_the_document(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    eval_photos: list[Picture],
    calibration: Calibration,
) -> None:
    measured = tmp_path / "calibration"
    measured.write_bytes(calibration.to_bytes())
    script = tmp_path / "birthmark"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$0-command.py" "$@"\n')
    (tmp_path / "birthmark-command.py").write_text(COMMAND.format(path=str(measured)))
    script.chmod(0o755)
    for name in ("M.onnx", "S.onnx"):
        shutil.copy(ROOT / "models" / "espcn_x2.onnx", tmp_path / name)
    (tmp_path / "names.txt").write_text("Acme\nBolt\n")
    (tmp_path / "fresh").mkdir()
    for i, picture in enumerate(half_size(eval_photos)):
        cv2.imwrite(str(tmp_path / "fresh" / f"{i}.png"), picture[:160, :200, ::-1])
    authority = Authority(tmp_path_factory.mktemp("tsa"))
    shutil.copy(authority.roots, tmp_path / "ca.pem")
    with authority.served() as url:
        owner = Owner(tmp_path, url)
        for line in commands():
            name = shlex.split(line)[1]
            if name == "serve":
                owner.serve(line)
            else:
                owner.run(owner.put_in(line), 1 if name in MAY_SAY_NO else 0)
            if "-o acme.mark" in line:
                shutil.copy(tmp_path / "acme.mark", tmp_path / "found.mark")
                owner.run(
                    "birthmark protect --model M.onnx --mark acme.mark fresh -o leaked-pictures"
                )
    said = owner.run(
        "birthmark trace --key owner.key --claim stamped.json --json"
        " --customers names.txt --mark-file found.mark"
    )
    assert [one["customer"] for one in json.loads(said)["named"]] == ["Acme"]
