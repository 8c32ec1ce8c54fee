"""The tree's own rules: imports point one way, public names are documented, files stay short."""

from __future__ import annotations

import ast
import inspect
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import birthmark
from conftest import ROOT

PACKAGE = ROOT / "python" / "birthmark"
MOST_LINES = 500
# What may import these, apart from themselves.
ENDS = {
    "birthmark.cli": {"birthmark.__main__"},
    "birthmark.demo": set(),
    "birthmark.training": {"birthmark.cli", "birthmark.demo"},
    "birthmark.registry": {"birthmark.cli"},
    "birthmark.report": {"birthmark.cli", "birthmark.demo", "birthmark.serve"},
    "birthmark.serve": {"birthmark.cli"},
}
# A verdict saves itself as a bundle, which is made of verdicts. Nothing else goes round.
ROUND = {("birthmark.verdict", "birthmark.bundle")}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imported(text: str, modules: set[str]) -> set[str]:
    """Those of the modules that a module's text imports anywhere, but for type checkers alone."""

    def statements(node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        yield node
        for child in ast.iter_child_nodes(node):
            yield from statements(child)

    names: set[str] = set()
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole way"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names & modules


def part_of(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


IMPORTS = {name: imported(path.read_text(), set(MODULES)) for name, path in MODULES.items()}


def test_imports_are_found_wherever_they_are() -> None:
    text = (
        "from typing import TYPE_CHECKING\nimport birthmark.keys\n"
        "if TYPE_CHECKING:\n    from birthmark.claim import Claim\n"
        "def f():\n    with x:\n        from birthmark import cli\n"
    )
    found = imported(text, {"birthmark.keys", "birthmark.claim", "birthmark.cli"})
    assert found == {"birthmark.keys", "birthmark.cli"}
    assert "birthmark.training.surrogates" in IMPORTS["birthmark.cli.marking"]


@pytest.mark.parametrize("end", ENDS)
def test_nothing_below_imports(end: str) -> None:
    users = {
        user
        for user, used in IMPORTS.items()
        if any(part_of(module, end) for module in used) and not part_of(user, end)
    }
    allowed = ENDS[end]
    assert all(any(part_of(user, package) for package in allowed) for user in users), users


def test_imports_do_not_go_round() -> None:
    """Packages count as one: the modules of `cli` or `training` may know each other."""

    def package_of(module: str) -> str:
        return ".".join(module.split(".")[:2])

    graph: dict[str, set[str]] = {}
    for user, used in IMPORTS.items():
        into = graph.setdefault(package_of(user), set())
        into |= {package_of(m) for m in used} - {package_of(user), "birthmark"}
    for user, used_module in ROUND:
        graph[user].remove(used_module)
    while graph:
        lowest = {module for module, used in graph.items() if not used & set(graph)}
        assert lowest, f"imports go round among {sorted(graph)}"
        graph = {module: used for module, used in graph.items() if module not in lowest}


def public_functions() -> Iterator[tuple[str, object]]:
    for name in birthmark.__all__:
        value = getattr(birthmark, name)
        yield name, value
        if inspect.isclass(value):
            for member, function in inspect.getmembers(value):
                if not member.startswith("_") and callable(function):
                    yield f"{name}.{member}", function


@pytest.mark.parametrize("name_and_value", [*public_functions()], ids=lambda pair: pair[0])
def test_public_names_say_what_they_take_and_raise(name_and_value: tuple[str, object]) -> None:
    name, value = name_and_value
    text = inspect.getdoc(value) or ""
    assert text, name
    if inspect.isfunction(value) and value.__module__.startswith("birthmark"):
        raises = [
            n
            for n in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(value))))
            if isinstance(n, ast.Raise) and n.exc is not None
        ]
        said = "Raises" in text or "raise" in text
        assert said or not raises, f"{name} raises and does not say what"


def tracked_sources() -> list[str]:
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "-z",
            *(f"*.{end}" for end in ("py", "cc", "h", "inc", "cu", "cuh", "c")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return [name for name in listed.stdout.split("\0") if name]


def test_no_file_is_long() -> None:
    names = tracked_sources()
    if not names:
        pytest.skip("not a git checkout")
    long = {name for name in names if len((ROOT / name).read_text().splitlines()) > MOST_LINES}
    assert not long
