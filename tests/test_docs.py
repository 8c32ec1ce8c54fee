"""Whatever the documents say is tried: their code runs, their paths and links exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from birthmark import cli

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path
    for path in ROOT.glob("**/*.md")
    if not any(
        part == "build" or part.startswith(".") for part in path.relative_to(ROOT).parts[:-1]
    )
)
SKIP_MARK = "<!-- run: no -->"


@dataclass(frozen=True)
class Block:
    """A fenced block of code in a document."""

    document: Path
    line: int
    language: str
    code: str
    skipped: bool

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def code_blocks(document: Path) -> list[Block]:
    """All fenced blocks of a document; one under the comment `run: no` is marked as skipped."""
    blocks = []
    lines = document.read_text().splitlines()
    start = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        above = next((text for text in reversed(lines[:start]) if text.strip()), "")
        blocks.append(
            Block(
                document,
                start + 1,
                lines[start].removeprefix("```").strip(),
                "\n".join(lines[start + 1 : number]) + "\n",
                above.strip() == SKIP_MARK,
            )
        )
        start = None
    assert start is None, f"{document}: code block of line {start} is not closed"
    return blocks


README_BLOCKS = [b for b in code_blocks(ROOT / "README.md") if b.language in ("python", "bash")]
EXECUTABLE = [block for block in README_BLOCKS if not block.skipped]


def environment() -> dict[str, str]:
    """The caller's environment, with the installed commands first and a passphrase at hand."""
    scripts = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "BIRTHMARK_PASSPHRASE": "correct horse battery staple",
        "PYTHONWARNINGS": "error",
    }


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One empty folder for all blocks, in the order of the README, as a reader would type them.

    It holds what the README says a reader has: the folders `models` and `photos`.
    """
    folder = tmp_path_factory.mktemp("readme")
    (folder / "models").symlink_to(ROOT / "models")
    (folder / "photos").symlink_to(ROOT / "tests" / "data" / "photos" / "eval")
    return folder


@pytest.mark.parametrize("block", EXECUTABLE, ids=str)
def test_readme_code_runs(block: Block, workplace: Path) -> None:
    if block.language == "python":
        command = [sys.executable, "-c", block.code]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.code]
    done = subprocess.run(
        command,
        cwd=workplace,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{block.code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", [b for b in README_BLOCKS if b.skipped], ids=str)
def test_only_make_is_not_run(block: Block) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for line in filter(None, (text.split("#")[0].strip() for text in block.code.splitlines())):
        command, _, target = line.partition(" ")
        assert command == "make" and target in targets, f"{block}: {line!r} must be run"


def paths_in_backticks(text: str) -> list[str]:
    """What stands in backticks and looks like a path: it has a slash, or a known file ending."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    prose = re.sub(r"<!--.*?-->", "", prose, flags=re.S)
    words = re.findall(r"`([^`\s]+)`", prose)
    endings = r"\.(py|pyi|cc|h|inc|md|toml|cmake|txt|onnx|sh|jpg|png|typed)"
    return [
        word
        for word in words
        if re.fullmatch(r"[\w.{},<>*/-]+", word) and ("/" in word or re.search(endings + "$", word))
    ]


def expand(pattern: str) -> list[str]:
    """`a/{b,c}.h` as a shell would: every combination of the braces."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [path for option in match[1].split(",") for path in expand(head + option + tail)]


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_exist(name: str) -> None:
    named = paths_in_backticks((ROOT / name).read_text())
    assert named
    missing = [
        path
        for word in named
        if "<" not in word  # a name to fill in
        for path in expand(word)
        if not any(ROOT.glob(path.rstrip("/")))
    ]
    assert not missing, f"{name} names what is not there: {missing}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for document in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z-]+)`", document.read_text()))
        assert named <= targets, f"{document.name}: {named - targets}"


def anchor(heading: str) -> str:
    """The name that a reader's viewer gives to a heading."""
    words = re.sub(r"[`*]", "", heading).strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", words))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    if document.is_relative_to(ROOT / "python"):
        pytest.skip("ships in the package, where the repository is not")
    for target in re.findall(r"\]\(([^()\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        aim = (document.parent / path).resolve() if path else document
        assert aim.exists(), f"{document.name} links to {target}"
        if fragment:
            headings = re.findall(r"^#+ (.*)$", aim.read_text(), re.M)
            assert fragment in map(anchor, headings), f"{document.name} links to {target}"


def commands_of(document: Path) -> list[str]:
    """Every `birthmark` command in a document's blocks, continued lines joined."""
    code = "".join(b.code for b in code_blocks(document) if b.language == "bash")
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("birthmark ")]


@pytest.mark.parametrize("command", commands_of(ROOT / "docs" / "evidence.md"))
def test_documented_commands_have_these_options(command: str) -> None:
    cli._parser().parse_args(shlex.split(command)[1:])
