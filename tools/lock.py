"""Writes tools/lock: what development installs, to the byte, on the machines that CI has.

    python tools/lock.py

For CPython 3.11 on 64-bit x86 Linux (glibc). A list holds names, versions and the SHA-256 of each
file that pip may choose there; where they come from is the installing machine's own affair.
`run.txt` holds what builds and runs birthmark, `test.txt` that and what tests it, at the same
versions. uv resolves them; it is fetched into an environment of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
LISTS = {"test.txt": "build run test serve video docs", "run.txt": "build run"}
FITS = re.compile(
    r"-(py3|py2\.py3|py311|cp311|cp3[0-9]*-abi3)[^/]*-(any|manylinux[^/]*_x86_64)\.whl$"
)


def resolved(uv: Path, lists: str, others: Path | None, folder: Path) -> list[dict[str, Any]]:
    """The packages of some lists of pyproject.toml, at the versions of another lock, if given."""
    wanted, found = folder / "wanted.txt", folder / "pylock.toml"
    command = [sys.executable, TOOLS / "requirements.py", *lists.split()]
    wanted.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    how = ["--python-version=3.11", "--python-platform=x86_64-unknown-linux-gnu", "-q"]
    if others:
        how += ["-c", str(others)]
    subprocess.run([uv, "pip", "compile", *how, wanted, "-o", found], check=True)
    packages: list[dict[str, Any]] = tomllib.loads(found.read_text())["packages"]
    return packages


def files(package: Mapping[str, Any]) -> list[str]:
    """SHA-256 of the wheels that fit, or of the source where none does."""
    fitting = [w for w in package.get("wheels", ()) if FITS.search(w["url"])]
    return sorted(f["hashes"]["sha256"] for f in fitting or [package["sdist"]])


def main() -> None:
    """Resolve the longest list, and the others at its versions."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "uv"], check=True)
        pip = [folder / "uv/bin/python", "-m", "pip", "--disable-pip-version-check", "-q"]
        subprocess.run([*pip, "install", "uv"], check=True)
        versions = None
        for target, lists in LISTS.items():
            packages = resolved(folder / "uv/bin/uv", lists, versions, folder)
            pins = [f"{package['name']}=={package['version']}" for package in packages]
            if versions is None:
                versions = folder / "versions.txt"
                versions.write_text("\n".join(pins))
            text = "# Made by tools/lock.py (make lock): CPython 3.11, x86_64, glibc.\n"
            for pin, package in zip(pins, packages, strict=True):
                hashes = "".join(f" \\\n    --hash=sha256:{sha256}" for sha256 in files(package))
                text += f"{pin}{hashes}\n"
            (TOOLS / "lock" / target).write_text(text)
            print(f"tools/lock/{target}: {len(packages)} packages")


if __name__ == "__main__":
    main()
