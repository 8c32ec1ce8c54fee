"""Prints one list of requirements out of pyproject.toml, one a line.

python tools/requirements.py build | run | EXTRA
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
print(*lists[sys.argv[1]], sep="\n")
