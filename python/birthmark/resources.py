"""Files that travel inside the package: demonstration models and calibration photographs."""

from __future__ import annotations

from pathlib import Path

_DATA = Path(__file__).parent / "data"


def models_folder() -> Path:
    """Folder of the ONNX models that ship with the package (``models/`` of the repository)."""
    return _DATA / "models"


def calibration_photographs() -> list[Path]:
    """Photographs, sorted by name, for a calibration without pictures of the owner's own."""
    return sorted((_DATA / "calibration").glob("*.jpg"))
