"""What every test may use: real photographs, the shipped models, one way to draw examples."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import numpy.typing as npt
import pytest

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT / "tests" / "data" / "photos"

Picture = npt.NDArray[np.uint8]

# Timing says nothing on a shared machine. On CI the same examples are drawn every time.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def read_photographs(split: str) -> list[Picture]:
    """All photographs of `train` or `eval` as uint8 (height, width, RGB), sorted by file name."""
    pictures = []
    for path in sorted((PHOTOS / split).glob("*.jpg")):
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert bgr is not None, path
        picture = np.ascontiguousarray(bgr[..., ::-1])
        picture.flags.writeable = False  # shared by the whole session
        pictures.append(picture)
    assert pictures
    return pictures


@pytest.fixture(scope="session")
def train_photos() -> list[Picture]:
    """Photographs to fit and train on."""
    return read_photographs("train")


@pytest.fixture(scope="session")
def eval_photos() -> list[Picture]:
    """Photographs to judge on: nothing is ever fitted to them."""
    return read_photographs("eval")


@pytest.fixture(scope="session")
def photos_folder() -> Path:
    """Folder that holds the folders `train` and `eval`."""
    return PHOTOS


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Folder of the ONNX models to protect."""
    return ROOT / "models"


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20240229)
