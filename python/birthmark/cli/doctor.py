"""The command doctor: what is here, and whether it works."""

from __future__ import annotations

import argparse
import json
import platform
from importlib import metadata
from typing import Any

from birthmark.cli import shared

_NEEDED = (
    *("numpy", "onnx", "onnxruntime", "opencv-python-headless"),
    *("cryptography", "rfc3161-client"),
)
_OPTIONAL = ("sqlalchemy", "alembic", "psycopg")


def add_commands(commands: shared.Commands) -> None:
    """Add this module's command to the parser."""
    commands.add(
        "doctor",
        _doctor,
        "Say which kernels, providers, models and packages are here, and try every kernel."
        " Exit code 0 if all is well, 1 if not.",
        "birthmark doctor",
    )


def _doctor(options: argparse.Namespace) -> int:
    found, wrong = _examine()
    if options.json:
        print(json.dumps({**found, "wrong": wrong}))
    else:
        for name, value in found.items():
            text = ", ".join(value) if isinstance(value, list) else str(value)
            print(f"{name:>15}  {shared.printable(text)}")
        for line in wrong:
            print(f"{'WRONG':>15}  {shared.printable(line)}")
    return 1 if wrong else 0


def _examine() -> tuple[dict[str, Any], list[str]]:
    """What is here, and one line for each thing that is not as it should be."""
    import numpy as np
    import onnxruntime

    from birthmark import _core
    from birthmark.claim import code_version
    from birthmark.extract import extractor_sha256
    from birthmark.resources import calibration_photographs, models_folder

    wrong: list[str] = []
    picture = np.random.default_rng(0).integers(0, 256, (65, 67, 3), np.uint8)
    gains = np.full((_core.GAIN_ROWS, _core.TONES), 900, np.int16)
    mark = _core.write_mark(bytes(16), gains)
    plainest, *others = _core.available_kernels()
    published = _core.Embedder(mark, plainest).embed(picture)
    for kernel in others:
        same_bytes = (_core.Embedder(mark, kernel).embed(picture) == published).all()
        same_sums = (_core.statistics(picture, kernel) == _core.statistics(picture, plainest)).all()
        if not (same_bytes and same_sums):
            wrong.append(f"kernel {kernel} does not give the bytes of {plainest}")
    versions = {name: _version(name) for name in (*_NEEDED, *_OPTIONAL)}
    wrong += [f"{name} is not installed" for name in _NEEDED if versions[name] is None]
    models = sorted(path.stem for path in models_folder().glob("*.onnx"))
    if not models or not calibration_photographs():
        wrong.append("the models or photographs of the package are missing: install it anew")
    found = {
        "birthmark": code_version(),
        "contract": _core.CONTRACT_VERSION,
        "extractor": extractor_sha256(),
        "kernels": [plainest, *others],
        "kernel in use": _core.Embedder(None).kernel,
        "providers": onnxruntime.get_available_providers(),
        "models": models,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": [f"{n} {v}" for n, v in versions.items() if v],
        "registry": "no: pip install 'birthmark[registry]'" if not versions["alembic"] else "yes",
    }
    return found, wrong


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
