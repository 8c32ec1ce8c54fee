"""Mutation testing: changes one place of a module at a time, and asks whether any test notices.

    python tools/mutants.py keys --sample 20 --seed 0 tests/test_keys.py tests/test_shares.py

First the tests run once unchanged, and it is written down which of them run which lines of the
module, and for how long. A mutant then meets the tests that run its line, the fastest first, in a
fork of its own with the module's source replaced as it is imported. Left out are tests that took
more than SLOW_S, so what is said to live might still be killed by one of those. What a model puts
out for a picture, and a picture's statistics, are the same for all mutants and computed once: that
is most of the time of these tests. The last line says how many were killed; those that live are
listed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import math
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 300  # for a mutant; without one there is nothing to wait for
SLOW_S = 2.0  # of processor time
PRELOADED = ("cv2", "cryptography", "numpy", "onnx", "onnxruntime", "scipy.stats")
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


@dataclass(frozen=True, order=True)
class Mutant:
    """One change: the lines that it is in (0 to 0 if these run when the module is imported)."""

    first: int
    last: int
    what: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every change of a module's source, with the whole changed source."""
    tree = ast.parse(source)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
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
            first = getattr(child, "lineno", 0)
            # Of an `if` only its test is changed.
            last = first if isinstance(child, ast.If) else getattr(child, "end_lineno", first)
            within = any(f.body[0].lineno <= first <= (f.end_lineno or 0) for f in functions)
            what = f"{first}: {before}  ->  {after}"
            changed = ast.unparse(ast.fix_missing_locations(other))
            yield Mutant(*((first, last) if within else (0, 0)), what, changed)


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
    """A pytest plugin: what does not depend on a mutant is remembered."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def pytest_sessionstart(self) -> None:
        """Put what remembers in the place of what computes."""
        import conftest  # type: ignore[import-not-found]
        from birthmark import _core
        from birthmark.models import ImageModel

        output, calibrate, statistics = ImageModel.output, conftest.calibrate, _core.statistics

        def once(key: str, compute: Callable[[], Any]) -> Any:
            if key not in self.known:
                self.known[key] = compute()
            return self.known[key].copy() if hasattr(self.known[key], "copy") else self.known[key]

        def remembered_output(model: ImageModel, picture: Any) -> Any:
            key = f"{model.sha256} {picture.shape} {hash(picture.tobytes())}"
            return once(key, lambda: output(model, picture))

        def remembered_statistics(picture: Any, *how: Any, **options: Any) -> Any:
            if not hasattr(picture, "tobytes"):
                return statistics(picture, *how, **options)
            key = f"statistics {picture.dtype} {picture.shape} {hash(picture.tobytes())}"
            return once(key, lambda: statistics(picture, *how, **options))

        ImageModel.output = remembered_output  # type: ignore[method-assign]
        conftest.calibrate = lambda outputs: once("calibration", lambda: calibrate(outputs))
        _core.statistics = remembered_statistics


@dataclass
class Ran:
    """What a test ran: how long it took, and which lines of the module, its fixtures' included."""

    seconds: float = 0.0
    lines: set[int] = field(default_factory=set)


class Watched:
    """A pytest plugin: writes down what each test ran of one file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.tests: dict[str, Ran] = {}
        self.of_fixtures: dict[str, set[int]] = {}
        self.lines: set[int] = set()

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != self.path:
            return None
        self.lines.add(frame.f_lineno)
        return self._trace

    @contextmanager
    def _into(self, lines: set[int]) -> Iterator[None]:
        before, self.lines = self.lines, lines
        sys.settrace(self._trace)
        threading.settrace(self._trace)
        try:
            yield
        finally:
            self.lines = before

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """Lines of a fixture count for every test that uses it, not for the first alone."""
        with self._into(self.of_fixtures.setdefault(fixturedef.argname, set())):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """Watch a test from its set-up to its end."""
        ran = self.tests[item.nodeid] = Ran()
        with self._into(ran.lines):
            result = yield
        for name in item.fixturenames:
            ran.lines |= self.of_fixtures.get(name, set())
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        """Count a test's own time, of the processor; fixtures are there for any other test too."""
        begin = time.process_time()
        result = yield
        self.tests[item.nodeid].seconds = time.process_time() - begin
        return result


def tests_near(mutant: Mutant, ran: dict[str, Ran]) -> list[str]:
    """The tests that run a mutant's lines, the fastest first."""
    lines = set(range(mutant.first, mutant.last + 1))
    near = [
        (test.seconds, name)
        for name, test in ran.items()
        if test.seconds <= SLOW_S and (test.lines & lines if mutant.first else test.lines)
    ]
    return [name for _, name in sorted(near)]


def run_tests(tests: list[str], plugins: list[Any]) -> int:
    """Run tests in this process; pytest's exit code."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    return int(pytest.main([*options, *tests], plugins=plugins))


def in_fork(work: Callable[[], int], limit_s: float = math.inf) -> str:
    """Do it in a fork that prints nothing: "lives" if it gives 0, "killed", or "hangs"."""
    child = os.fork()
    if child == 0:
        quiet, loud = os.open(os.devnull, os.O_WRONLY), os.dup(2)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = 1
        try:
            code = work()
        except Exception:  # pytest reports whatever a test or a mutant raises: this is ours
            os.write(loud, traceback.format_exc().encode())
        finally:
            os._exit(code)
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "lives" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def unchanged(path: Path, tests: list[str]) -> tuple[dict[str, Any], dict[str, Ran]]:
    """What may be remembered, and what each test ran, of the tests without any change."""
    with tempfile.NamedTemporaryFile() as saved:

        def work() -> int:
            known: dict[str, Any] = {}
            watched = Watched(path)
            code = run_tests(tests, [Remembered(known), watched])
            sys.settrace(None)
            Path(saved.name).write_bytes(pickle.dumps((known, watched.tests)))
            return code

        if in_fork(work) != "lives":
            raise SystemExit("the tests fail without any change")
        known, ran = pickle.loads(Path(saved.name).read_bytes())
    return known, ran


def main() -> int:
    """Print the mutants that live, and how many there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", help="such as keys: birthmark/keys.py")
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--sample", type=int, default=0, help="so many, drawn by chance (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.update(CI="true", OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
    package = importlib.util.find_spec("birthmark")  # finds it without importing it
    assert package is not None and package.origin is not None
    path = Path(package.origin).with_name(f"{options.module}.py")
    for name in PRELOADED:  # takes time to import and is not ours; forks then have it
        importlib.import_module(name)
    known, ran = unchanged(path, options.tests)
    every = list(mutants(path.read_text()))
    chosen = every
    if options.sample and options.sample < len(every):
        chosen = random.Random(options.seed).sample(every, options.sample)
    killed = 0
    for i, mutant in enumerate(sorted(chosen)):
        near = tests_near(mutant, ran)

        def work(mutant: Mutant = mutant, near: list[str] = near) -> int:
            replaced = Replaced(f"birthmark.{options.module}", mutant.source, path)
            sys.meta_path.insert(0, replaced)
            return run_tests(near, [Remembered(known)])

        outcome = in_fork(work, TIMEOUT_S) if near else "lives, as no test runs it"
        killed += outcome in ("killed", "hangs")
        if outcome != "killed":
            print(f"{outcome}: {path.name}:{mutant.what}", flush=True)
        print(f"[{i + 1}/{len(chosen)}, {killed} killed]", end="\r", file=sys.stderr)
    share = 100 * killed / len(chosen)
    print(f"{options.module}: {killed} of {len(chosen)} killed ({share:.0f} %), of {len(every)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
