"""Mutation testing: changes one place of a module at a time, and asks whether any test notices.

    python tools/mutants.py keys --sample 100 --seed 0 -- tests/test_keys.py tests/test_shares.py

Each mutant runs in a fork of its own, with the module's source replaced as it is imported. What the
model puts out for a picture is the same for all of them, so it is computed once: that is most of
the time of these tests. The last line says how many were killed; those that live are listed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 400
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq},
    **{ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn},
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult},
    **{ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift},
    **{ast.RShift: ast.LShift, ast.FloorDiv: ast.Mult, ast.BitXor: ast.BitAnd},
}


def changes(node: ast.AST) -> list[Callable[[Any], ast.AST]]:
    """Ways to change a node; each takes a copy of it and returns what takes its place."""
    made: list[Callable[[Any], ast.AST]] = []
    if isinstance(node, ast.Compare):
        made.append(_compare)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        made.append(_operate)
    elif isinstance(node, ast.BoolOp):
        made.append(_connect)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        made.append(lambda n: n.operand)
    elif isinstance(node, ast.Constant):
        made += _constants(node.value)
    elif isinstance(node, ast.Return) and node.value is not None:
        made.append(lambda n: ast.Return(ast.Constant(None)))
    elif isinstance(node, ast.Raise) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        made.append(lambda n: ast.Pass())
    elif isinstance(node, ast.If):
        made.append(_always)
        made.append(_never)
    return made


def _compare(n: ast.Compare) -> ast.AST:
    n.ops[0] = COMPARISONS[type(n.ops[0])]()
    return n


def _operate(n: ast.BinOp) -> ast.AST:
    n.op = OPERATORS[type(n.op)]()
    return n


def _connect(n: ast.BoolOp) -> ast.AST:
    n.op = ast.And() if isinstance(n.op, ast.Or) else ast.Or()
    return n


def _always(n: ast.If) -> ast.AST:
    n.test = ast.Constant(True)
    return n


def _never(n: ast.If) -> ast.AST:
    n.test = ast.Constant(False)
    return n


def _constants(value: object) -> list[Callable[[Any], ast.AST]]:
    if isinstance(value, bool):
        return [lambda n: ast.Constant(not value)]
    if isinstance(value, int | float):
        return [lambda n: ast.Constant(value + 1)]
    if isinstance(value, str) and value:
        return [lambda n: ast.Constant("x" + value)]
    if isinstance(value, bytes) and value:
        return [lambda n: ast.Constant(b"x" + value)]
    return []


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Every child that may be changed, as (parent, field, index).

    Not types, docstrings, decorators, the words of messages, and what is for type checkers only.
    """

    def visit(node: ast.AST, in_message: bool) -> Iterator[tuple[ast.AST, str, int | None]]:
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            if isinstance(node, ast.AnnAssign) and name == "target":
                continue
            for i, child in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(child, ast.AST):
                    continue
                is_text = isinstance(child, ast.Constant) and isinstance(child.value, str)
                if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                    continue  # a docstring
                if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                    continue
                within = in_message or isinstance(child, ast.Raise)
                if not (within and is_text) and not isinstance(child, ast.JoinedStr):
                    yield node, name, i if isinstance(value, list) else None
                if not (within and isinstance(child, ast.JoinedStr)):
                    yield from visit(child, within)

    return visit(tree, False)


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, what was changed, and the whole changed source."""
    tree = ast.parse(source)
    for number, (parent, name, index) in enumerate(places(tree)):
        child = getattr(parent, name) if index is None else getattr(parent, name)[index]
        for change in range(len(changes(child))):
            other = copy.deepcopy(tree)
            where, field, at = list(places(other))[number]
            old = getattr(where, field) if at is None else getattr(where, field)[at]
            before = ast.unparse(old).split("\n")[0]
            new = changes(old)[change](old)
            after = ast.unparse(new).split("\n")[0]
            if at is None:
                setattr(where, field, new)
            else:
                getattr(where, field)[at] = new
            line = getattr(child, "lineno", 0)
            yield line, f"{before}  ->  {after}", ast.unparse(ast.fix_missing_locations(other))


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from other source."""

    def __init__(self, module: str, source: str, path: Path) -> None:
        self.module, self.source, self.path = module, source, path

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """How the module is found, if it is asked for."""
        if name != self.module:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def exec_module(self, module: Any) -> None:
        """Run the other source as the module."""
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


class Remembered:
    """A pytest plugin: a model's outputs, and the calibration made of them, are remembered."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def pytest_sessionstart(self) -> None:
        """Put what remembers in the place of what computes."""
        import conftest  # type: ignore[import-not-found]
        from birthmark.models import ImageModel

        output, calibrate = ImageModel.output, conftest.calibrate

        def remembered_output(model: ImageModel, picture: Any) -> Any:
            key = f"{model.sha256} {picture.shape} {hash(picture.tobytes())}"
            if key not in self.known:
                self.known[key] = output(model, picture)
            return self.known[key].copy()

        def remembered_calibration(outputs: Any) -> Any:
            if "calibration" not in self.known:
                self.known["calibration"] = calibrate(outputs)
            return self.known["calibration"]

        ImageModel.output = remembered_output  # type: ignore[method-assign]
        conftest.calibrate = remembered_calibration


def run(
    module: str, source: str, path: Path, tests: list[str], known: dict[str, Any], save: str = ""
) -> str:
    """Run the tests in a fork: "killed", "lives", or "hangs" (which counts as killed)."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = 1
        try:
            import pytest

            sys.meta_path.insert(0, Replaced(module, source, path))
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
            code = int(pytest.main([*options, *tests], plugins=[Remembered(known)]))
            if save:
                Path(save).write_bytes(pickle.dumps(known))
        finally:
            os._exit(code)
    ends = time.monotonic() + TIMEOUT_S
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "lives" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def main() -> int:
    """Print the mutants that live, and how many there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", help="such as keys: python/birthmark/keys.py")
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--sample", type=int, default=0, help="so many, drawn by chance (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.update(CI="true", OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
    path = ROOT / "python" / "birthmark" / f"{options.module}.py"
    module = f"birthmark.{options.module}"
    source = path.read_text()
    # Whatever takes time to import and is not ours; forks then have it.
    import cryptography  # noqa: F401

    with tempfile.NamedTemporaryFile() as saved:
        if run(module, source, path, options.tests, {}, saved.name) != "lives":
            print("the tests fail without any change")
            return 1
        known = pickle.loads(Path(saved.name).read_bytes())
    every = list(mutants(source))
    chosen = every
    if options.sample and options.sample < len(every):
        chosen = random.Random(options.seed).sample(every, options.sample)
    killed = 0
    for i, (line, what, changed) in enumerate(sorted(chosen)):
        outcome = run(module, changed, path, options.tests, known)
        killed += outcome != "lives"
        if outcome != "killed":
            print(f"{outcome}: {path.relative_to(ROOT)}:{line}: {what}", flush=True)
        print(f"[{i + 1}/{len(chosen)}, {killed} killed]", end="\r", file=sys.stderr)
    share = 100 * killed / len(chosen)
    print(f"{options.module}: {killed} of {len(chosen)} killed ({share:.0f} %), of {len(every)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
