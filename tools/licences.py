"""Prints name, version and licence of every component of a CycloneDX file, one a line.

python tools/licences.py SBOM_JSON
"""

import json
import sys
from pathlib import Path


def licence(component: dict) -> str:
    """The component's licences as short text; "not stated" without any."""
    stated = []
    for entry in component.get("licenses", []):
        of_entry = entry.get("license", {})
        text = entry.get("expression") or of_entry.get("id") or of_entry.get("name") or ""
        if text and text not in stated:
            stated.append(text)
    return "; ".join(stated) or "not stated"


for component in json.loads(Path(sys.argv[1]).read_text())["components"]:
    line = f"{component['name']} {component.get('version', '')}"
    if component["name"] not in ("pip", "setuptools"):
        print(f"{line:40} {licence(component)}")
