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

import birthmark
from birthmark import cli
from birthmark.pictures import write_png
from conftest import PHOTOS, ROOT, half_size, read_photographs

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


DOCS = ROOT / "docs"
# Documents whose code runs as a reader would type it; those of one walk follow each other.
WALKS = ((ROOT / "README.md",), (DOCS / "protect.md", DOCS / "suspicious.md"))
WALKED = [
    block
    for walk in WALKS
    for document in walk
    for block in code_blocks(document)
    if block.language in ("python", "bash")
]
EXECUTABLE = [block for block in WALKED if not block.skipped]


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
def workplaces(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """Document -> the folder in which all its blocks run, one for each walk.

    It holds what the documents say a reader has: the folders `models` and `photos`.
    """
    places = {}
    for walk in WALKS:
        folder = tmp_path_factory.mktemp(walk[0].stem)
        (folder / "models").symlink_to(ROOT / "models")
        (folder / "photos").mkdir()
        files = sorted((PHOTOS / "eval").glob("*.jpg"))
        for file, picture in zip(files, half_size(read_photographs("eval")), strict=True):
            write_png(folder / "photos" / f"{file.stem}.png", picture)
        places.update(dict.fromkeys(walk, folder))
    return places


@pytest.mark.parametrize("block", EXECUTABLE, ids=str)
def test_code_runs(block: Block, workplaces: dict[Path, Path]) -> None:
    if block.language == "python":
        command = [sys.executable, "-c", block.code]
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.code]
    done = subprocess.run(
        command,
        cwd=workplaces[block.document],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{block.code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", [b for b in WALKED if b.skipped], ids=str)
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


@pytest.mark.parametrize(
    "command", [*commands_of(DOCS / "evidence.md"), *commands_of(DOCS / "scale.md")]
)
def test_documented_commands_have_these_options(command: str) -> None:
    cli._parser().parse_args(shlex.split(command)[1:])


def figures() -> list[tuple[str, str, str]]:
    """Of each row of a table in threat-model.md with a command: figures, command, and source."""
    rows = []
    for line in (DOCS / "threat-model.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and "](" in cells[3]:
            rows.append((f"{cells[0]} {cells[1]}", cells[2], cells[3]))
    return rows


@pytest.mark.parametrize("figure, command, source", figures())
def test_figures_are_those_of_the_document_they_are_from(
    figure: str, command: str, source: str
) -> None:
    (target,) = re.findall(r"\]\(([^)]+)\)", source)
    text = (DOCS / target).read_text()
    for number in re.findall(r"−?(?:10\^-)?\d*\.?\d+(?: \d{3})*", figure):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", text), number
    if command != "the same":
        assert command in text
        (script,) = re.findall(r"bench/[\w/]+\.py", command)
        assert (ROOT / script).is_file()


def test_every_exit_code_is_documented() -> None:
    listed = set(re.findall(r"^\| (\d+) \|", (DOCS / "commands.md").read_text(), re.M))
    stated = (cli.__doc__ or "").split("Exit codes:")[1]
    assert listed == set(re.findall(r"\b\d+\b", stated))


def test_the_site_builds_and_every_link_in_it_leads_somewhere(tmp_path: Path) -> None:
    """With --strict: a link, an anchor or a name of the API that is not there is an error."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env={**environment(), "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    everything = "".join(pages.values())
    for name in cli_commands():
        assert f"usage: birthmark {name} " in pages[site / "commands" / "index.html"], name
    for name in birthmark.__all__:
        assert re.search(rf'id="birthmark\.[\w.]*\b{name}"', everything), f"{name} is on no page"
    # What the text links to, and what the theme does besides: nothing comes from elsewhere.
    for path, text in pages.items():
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"https?:", target):
                continue
            file, _, fragment = target.partition("#")
            aim = (path.parent / file).resolve() if not file.startswith("/") else site / file[1:]
            aim = aim / "index.html" if aim.is_dir() else aim
            assert aim.is_file(), f"{path.relative_to(site)}: {target}"
            if fragment and aim in pages:
                assert f'id="{fragment}"' in pages[aim], f"{path.relative_to(site)}: {target}"


def cli_commands() -> list[str]:
    """The names of all commands."""
    (commands,) = (a.choices for a in cli._parser()._actions if isinstance(a.choices, dict))
    return list(commands)
