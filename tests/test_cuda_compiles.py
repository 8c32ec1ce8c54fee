"""The CUDA kernel through nvcc: it compiles for every card, within what it was planned for."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_compiles_for_every_card_without_spilling(tmp_path: Path) -> None:
    """Every architecture that this nvcc knows, and the limits that the kernel was planned for.

    What takes long, from C++ to PTX, is done once for the older and once for the newer ones: while
    the source does not ask which card it is for, their PTX is the same (so it is with nvcc 13.0,
    but for three comparisons more for 103).
    """
    assert not [f for f in (ROOT / "cpp" / "cuda").iterdir() if "__CUDA_ARCH__" in f.read_text()]
    known = subprocess.run(
        ["nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = [name.removeprefix("compute_") for name in known if int(name[8:]) >= 75]
    assert "75" in wanted and "120" in wanted
    command = ["nvcc", "-std=c++20", "-O3", "-Xptxas=-v", "-I", ROOT / "cpp", "-c"]
    command.append(ROOT / "cpp" / "cuda" / "launch.cu")
    codes = []
    for least, end in ((75, 100), (100, math.inf)):
        cards = ",".join(f"sm_{a}" for a in wanted if least <= int(a) < end)
        codes.append(f"-gencode=arch=compute_{least},code=[{cards}]")
    done = subprocess.run(
        [*command, *codes, "-o", tmp_path / "launch.o"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    kernels = 6 * len(wanted)
    assert len(re.findall(r"Compiling entry function .*EmbedKernel", report)) == kernels
    assert set(re.findall(r"(\d+) bytes spill", report)) == {"0"}
    used = re.findall(r"Used (\d+) registers.*?(\d+) bytes smem", report)
    assert len(used) == kernels
    assert max(int(registers) for registers, _ in used) <= 168  # four blocks of 96 threads fit
    assert max(int(shared) for _, shared in used) <= 48 << 10
