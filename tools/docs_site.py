"""Hooks of MkDocs: the repository's own documents become pages, and the commands are listed.

A link is written so that it holds in the repository, where most people read; here it is turned to
the page that its aim has become, or to plain text where it has become none.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# Document of the repository -> its page.
PAGES = {
    ROOT / f"{name}.md": f"{name.lower()}.md"
    for name in ("README", "SECURITY", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG")
}
COMMANDS_MARK = "<!-- commands -->"

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()\s]+)\)")
# A docstring's reference in Sphinx's manner, after Markdown has made code of its second half.
_ROLE = re.compile(r":(?:class|data|exc|func|meth|mod):<code>([^<]+)</code>")
_FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the repository's documents."""
    for document, page in PAGES.items():
        text = document.read_text()
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Turn the links, and list the commands where the mark stands."""
    uri = page.file.src_uri
    homes = {name: document.parent for document, name in PAGES.items()}
    home = homes.get(uri, (Path(config.docs_dir) / uri).parent)

    def turned(match: re.Match[str]) -> str:
        bang, text, target = match.groups()
        path, _, fragment = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match[0]
        aim = (home / path).resolve()
        if aim in PAGES:
            inside = PAGES[aim]
        elif aim.is_relative_to(config.docs_dir) and aim.suffix != ".py":
            inside = str(aim.relative_to(config.docs_dir))
        elif aim.exists():
            return f"{text} (`{aim.relative_to(ROOT)}`)"
        else:
            return match[0]  # MkDocs says that it leads nowhere
        relative = os.path.relpath(inside, os.path.dirname(uri) or ".")
        return f"{bang}[{text}]({relative}{'#' if fragment else ''}{fragment})"

    parts, at = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(turned, markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    parts.append(_LINK.sub(turned, markdown[at:]))
    return "".join(parts).replace(COMMANDS_MARK, "" if uri != "commands.md" else commands())


def on_page_content(html: str, **_: Any) -> str:
    """Turn the docstrings' references into links where the name has a place of its own."""
    return _ROLE.sub(r'<autoref identifier="\1" optional><code>\1</code></autoref>', html)


def commands() -> str:
    """Every command's help, as Markdown, from the parser itself."""
    from birthmark.cli import _parser

    os.environ["COLUMNS"] = "90"
    (action,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return "\n".join(
        f"## {name}\n\n```text\n{parser.format_help().rstrip()}\n```\n"
        for name, parser in action.choices.items()
    )
