"""The bill of materials: what birthmark needs to run, as it is installed here, and its licences.

    python tools/sbom.py FOLDER

Writes FOLDER/sbom.json (CycloneDX 1.6) and FOLDER/licences.txt, and prints the latter. Everything
is read off the installed packages' own metadata: nothing is fetched, and the same environment
gives the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
_OSI = "License :: OSI Approved :: "


def normalised(name: str) -> str:
    """A package's name as package URLs have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(requirements: list[str], extras: frozenset[str] = frozenset()) -> list[Requirement]:
    """Those of the requirements that hold here, with the extras that were asked for."""
    read = [Requirement(line) for line in requirements]
    return [
        r
        for r in read
        if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras | {""})
    ]


def installed(requirements: list[str]) -> tuple[dict[str, Distribution], dict[str, list[str]]]:
    """All that the requirements bring along, by normalised name, and what each of it needs."""
    found: dict[str, Distribution] = {}
    needs: dict[str, list[str]] = {}
    # A package may be asked for again with extras of its own.
    todo = needed(requirements)
    while todo:
        wanted = todo.pop()
        name = normalised(wanted.name)
        found.setdefault(name, distribution(name))
        its_own = needed(found[name].requires or [], frozenset(wanted.extras))
        new = {normalised(r.name) for r in its_own} - set(needs.get(name, []))
        if name not in needs or new:
            needs[name] = sorted({*needs.get(name, []), *new})
            todo += its_own
    return found, needs


def licences(package: Distribution) -> list[dict[str, Any]]:
    """What a package says of its licence, as CycloneDX holds it; empty if it says nothing."""
    stated = package.metadata
    if expression := stated.get("License-Expression"):
        return [{"expression": expression}]
    names = [c.removeprefix(_OSI) for c in stated.get_all("Classifier", []) if c.startswith(_OSI)]
    # Some packages put the whole text there; its first line is the licence's name.
    text = (stated.get("License") or "").strip().splitlines()
    return [{"license": {"name": name}} for name in names or text[:1]]


def bill() -> dict[str, Any]:
    """The bill of materials as CycloneDX has it."""
    found, needs = installed(PROJECT["dependencies"])
    refs = {name: f"pkg:pypi/{name}@{package.version}" for name, package in found.items()}
    root = f"pkg:pypi/{PROJECT['name']}@{PROJECT['version']}"
    direct = {normalised(r.name) for r in needed(PROJECT["dependencies"])}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": root,
                "name": PROJECT["name"],
                "version": PROJECT["version"],
                "licenses": [{"expression": PROJECT["license"]}],
                "purl": root,
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": refs[name],
                "name": package.metadata["Name"],
                "version": package.version,
                "licenses": licences(package),
                "purl": refs[name],
            }
            for name, package in sorted(found.items())
        ],
        "dependencies": [
            {"ref": root, "dependsOn": sorted(refs[name] for name in direct)},
            *(
                {"ref": refs[name], "dependsOn": sorted(refs[n] for n in needs[name])}
                for name in sorted(found)
            ),
        ],
    }


def as_text(component: dict[str, Any]) -> str:
    """Name, version and licences of a component in a line."""
    stated = [
        entry.get("expression") or entry["license"]["name"] for entry in component["licenses"]
    ]
    named = f"{component['name']} {component['version']}"
    return f"{named:40} {'; '.join(stated) or 'not stated'}"


def main() -> None:
    """Write both files."""
    made = bill()
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(map(as_text, made["components"])) + "\n"
    (folder / "sbom.json").write_text(json.dumps(made, indent=2) + "\n")
    (folder / "licences.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
