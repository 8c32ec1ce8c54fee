"""The command completion: what a shell needs to complete this command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from birthmark.cli import shared
from birthmark.errors import MissingLibrary


def add_commands(commands: shared.Commands, parser: argparse.ArgumentParser) -> None:
    """Add this module's command to the parser, whose commands it completes."""
    added = commands.add(
        "completion",
        _completion(parser),
        "Print a script that makes a shell complete commands, options and file names.",
        "birthmark completion bash > ~/.local/share/bash-completion/completions/birthmark\n"
        '  birthmark completion zsh > "${fpath[1]}/_birthmark"',
    )
    added.add_argument("shell", choices=("bash", "zsh"))


def _completion(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        try:
            import shtab
        except ImportError:
            raise MissingLibrary("completion needs pip install 'birthmark[completion]'") from None
        _complete_files(parser, shtab.FILE)
        script = shtab.complete(parser, options.shell)
        print(json.dumps({"shell": options.shell, "script": script}) if options.json else script)
        return 0

    return run


def _complete_files(parser: argparse.ArgumentParser, how: Any) -> None:
    """Have every argument that takes a text of no certain kind completed as a file's name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, how)
        elif action.nargs != 0 and action.choices is None and action.type is None:
            action.complete = how  # type: ignore[attr-defined]
