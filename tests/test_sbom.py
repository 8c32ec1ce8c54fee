"""The bill of materials names everything that birthmark needs to run, with its licence."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def written(folder: Path) -> Any:
    tool = ROOT / "tools" / "sbom.py"
    done = subprocess.run(
        [sys.executable, tool, folder], capture_output=True, text=True, check=True
    )
    assert done.stdout == (folder / "licences.txt").read_text()
    return json.loads((folder / "sbom.json").read_text())


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return written(tmp_path_factory.mktemp("sbom"))


def test_what_birthmark_runs_on_is_named_with_version_and_licence(bill: Any) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    named = {c["name"]: c for c in bill["components"]}
    wanted = {
        "numpy": "BSD-3-Clause",
        "onnx": "Apache-2.0",
        "onnxruntime": "MIT",
        "opencv-python-headless": "Apache",
        "cryptography": "Apache-2.0",
        "rfc3161-client": "Apache",
    }
    for name, licence in wanted.items():
        component = named[name]
        assert component["version"] == version(name)
        assert component["purl"] == f"pkg:pypi/{name}@{version(name)}"
        assert licence in json.dumps(component["licenses"]), name
    assert all(c["licenses"] for c in bill["components"]), "a licence is not stated"


def test_it_is_whole_and_holds_nothing_else(bill: Any) -> None:
    """Each reference is a component; each component is reached from birthmark."""
    needs = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    root = bill["metadata"]["component"]["bom-ref"]
    reached, todo = set(), [root]
    while todo:
        ref = todo.pop()
        if ref not in reached:
            reached.add(ref)
            todo += needs[ref]
    assert reached == needs.keys() == {root, *(c["bom-ref"] for c in bill["components"])}
    names = {c["name"] for c in bill["components"]}
    assert "cffi" in names, "needed by cryptography, by nothing of ours"
    assert not names & {"pytest", "ruff", "pip", "birthmark"}


def test_the_same_environment_gives_the_same_bill(bill: Any, tmp_path: Path) -> None:
    assert written(tmp_path) == bill
