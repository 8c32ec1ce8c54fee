"""Prints lists of requirements out of pyproject.toml, one requirement a line.

python tools/requirements.py [build | run | EXTRA] ...
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
lists = {
    "build": project["build-system"]["requires"],
    "run": project["project"]["dependencies"],
    **project["project"]["optional-dependencies"],
}
for name in sys.argv[1:]:
    print(*lists[name], sep="\n")
