"""birthmark: mark an image model's outputs, and prove it when a model was trained on them.

The public names, in the data's order, are loaded on first use: ``import birthmark`` alone reads
neither OpenCV nor ONNX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birthmark.bundle import recheck
    from birthmark.calibration import calibrate
    from birthmark.claim import Claim
    from birthmark.embed import Embedder
    from birthmark.errors import BirthmarkError
    from birthmark.formats import Input, Output
    from birthmark.geometry import Geometry, find_geometry
    from birthmark.keys import OwnerKey
    from birthmark.mark import Mark, provision
    from birthmark.model_calibration import claim_model
    from birthmark.models import ImageModel
    from birthmark.verdict import Decision, Verdict, verify

# Public name -> the module that holds it. Keep in step with the imports above (a test compares).
_HOME = {
    "OwnerKey": "birthmark.keys",
    "Claim": "birthmark.claim",
    "ImageModel": "birthmark.models",
    "calibrate": "birthmark.calibration",
    "claim_model": "birthmark.model_calibration",
    "Mark": "birthmark.mark",
    "provision": "birthmark.mark",
    "Embedder": "birthmark.embed",
    "Input": "birthmark.formats",
    "Output": "birthmark.formats",
    "Geometry": "birthmark.geometry",
    "find_geometry": "birthmark.geometry",
    "verify": "birthmark.verdict",
    "Verdict": "birthmark.verdict",
    "Decision": "birthmark.verdict",
    "recheck": "birthmark.bundle",
    "BirthmarkError": "birthmark.errors",
}

__all__ = [
    "OwnerKey",
    "Claim",
    "ImageModel",
    "calibrate",
    "claim_model",
    "Mark",
    "provision",
    "Embedder",
    "Input",
    "Output",
    "Geometry",
    "find_geometry",
    "verify",
    "Verdict",
    "Decision",
    "recheck",
    "BirthmarkError",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("birthmark")
    if name not in _HOME:
        raise AttributeError(f"module 'birthmark' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})
