"""The package as it is installed: what it ships, what it imports, what its stub says."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import birthmark
from birthmark import resources

PACKAGE = Path(birthmark.__file__).parent
ROOT = Path(__file__).resolve().parent.parent
HEAVY = ["cryptography", "cv2", "numpy", "onnx", "onnxruntime", "torch"]


def modules_after(statement: str) -> set[str]:
    """Names of the modules that are loaded in a fresh interpreter after `statement`."""
    code = f"import sys, json; before = set(sys.modules); {statement}\n"
    code += "print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_is_light() -> None:
    loaded = modules_after("import birthmark")
    assert not loaded & set(HEAVY)
    assert "birthmark._core" not in loaded


def test_nothing_imports_torch() -> None:
    everything = "; ".join(f"getattr(birthmark, {name!r})" for name in birthmark.__all__)
    assert "torch" not in modules_after(f"import birthmark; {everything}")
    requirements = [re.split(r"[^\w-]", r)[0] for r in metadata.requires("birthmark") or []]
    assert "torch" not in requirements
    for file in PACKAGE.rglob("*.py"):
        assert not re.search(r"^\s*(import|from) torch\b", file.read_text(), re.M), file


@pytest.mark.parametrize("name", birthmark.__all__)
def test_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(birthmark, name)
    assert value.__doc__, f"{name} has no docstring"
    assert name in dir(birthmark)


def test_public_names_match_what_type_checkers_see() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == set(birthmark.__all__) == set(birthmark._HOME)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = birthmark.no_such_name  # type: ignore[attr-defined]


def test_version_is_the_distribution_s() -> None:
    assert birthmark.__version__ == metadata.version("birthmark")
    changelog = (ROOT / "CHANGELOG.md").read_text()
    first, *others = re.findall(r"^## \[(.+?)\]", changelog, re.M)
    assert first in ("Unreleased", birthmark.__version__)

    def numbers(version: str) -> list[int]:
        return [int(part) for part in version.split(".")]

    assert all(numbers(other) <= numbers(birthmark.__version__) for other in others)


def test_ships_its_types_and_data() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_core.pyi").is_file()
    shipped = {path.name: path for path in resources.models_folder().glob("*.onnx")}
    in_tree = {path.name: path for path in (ROOT / "models").glob("*.onnx")}
    assert set(shipped) == set(in_tree) and shipped
    for name, path in shipped.items():
        assert path.read_bytes() == in_tree[name].read_bytes()
    assert len(resources.calibration_photographs()) == 12
    assert (resources.models_folder() / "LICENSES").is_dir()


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_photograph_s_licence_is_written_down(split: str) -> None:
    folder = ROOT / "tests/data/photos"
    text = (folder / "README.md").read_text().split(f"## {split}\n")[1].split("\n## ")[0]
    row = r"^\| (\S+\.jpg) \|.*\| (?:CC0|public domain)[^|]* \|$"
    listed = re.findall(row, text, re.M)
    assert sorted(listed) == sorted(path.name for path in (folder / split).glob("*.jpg"))


def test_every_calibration_photograph_s_licence_is_written_down() -> None:
    folder = resources.calibration_photographs()[0].parent
    listed = re.findall(r"^\| (\S+\.jpg) \|", (folder / "README.md").read_text(), re.M)
    assert sorted(listed) == [path.name for path in resources.calibration_photographs()]
    train = {path.name for path in (ROOT / "tests/data/photos/train").glob("*.jpg")}
    assert set(listed) <= train, "calibration may only use photographs of the training side"


def test_stub_lists_the_native_module_s_names() -> None:
    core = importlib.import_module("birthmark._core")
    stub = ast.parse((PACKAGE / "_core.pyi").read_text())

    def stub_names(body: list[ast.stmt]) -> dict[str, ast.stmt]:
        names: dict[str, ast.stmt] = {}
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names[node.name] = node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names[node.target.id] = node
        return {name: node for name, node in names.items() if not name.startswith("_")}

    def real_names(thing: object) -> set[str]:
        return {name for name in vars(thing) if not name.startswith("_")}

    in_stub = stub_names(stub.body)
    assert set(in_stub) == real_names(core)
    for name, node in in_stub.items():
        if isinstance(node, ast.ClassDef):
            # Members of an enumeration and read-only attributes count as names too.
            assert set(stub_names(node.body)) == real_names(getattr(core, name)), name


def test_command_is_installed() -> None:
    scripts = metadata.entry_points(group="console_scripts", name="birthmark")
    assert [script.value for script in scripts] == ["birthmark.cli:main"]


def test_no_public_name_is_also_a_module() -> None:
    """Importing a submodule sets it on the package, and would hide a function of its name."""
    modules = {path.stem for path in (ROOT / "python" / "birthmark").glob("*.py")}
    assert not modules & set(birthmark.__all__)


LOCKS = {"run.txt": "build run", "test.txt": "build run test serve video docs"}
PIN = re.compile(r"([a-z0-9.-]+)==([^ ]+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def locked(name: str) -> dict[str, str]:
    """Version by package of a lock that holds nothing but pins with hashes."""
    text = (ROOT / "tools" / "lock" / name).read_text()
    pins = text.partition("\n")[2]
    assert PIN.sub("", pins) == "", "nothing else, and no address of a package index"
    return {found[1]: found[2] for found in PIN.finditer(pins)}


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_satisfies_pyproject(name: str) -> None:
    versions = locked(name)
    asked = subprocess.run(
        [sys.executable, ROOT / "tools" / "requirements.py", *LOCKS[name].split()],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for line in filter(None, asked):
        requirement = Requirement(line)
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{line}: {version} (make lock)"


def test_the_locks_agree() -> None:
    assert locked("run.txt").items() <= locked("test.txt").items()
