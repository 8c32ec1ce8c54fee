"""What every test may use: real photographs, the shipped models, one way to draw examples."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import ModuleType
from typing import Self

import cv2
import hypothesis
import numpy as np
import numpy.typing as npt
import pytest

from birthmark import bundle, key_history
from birthmark import claim as claim_module
from birthmark.bundle_container import manifest_of, pack
from birthmark.calibration import Calibration, calibrate
from birthmark.claim import Claim
from birthmark.embed import Embedder
from birthmark.keys import MarkKey, OwnerKey
from birthmark.mark import provision
from birthmark.models import ImageModel
from birthmark.verdict import Verdict, verify

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
PHOTOS = ROOT / "tests" / "data" / "photos"

Picture = npt.NDArray[np.uint8]


def taken_from_bench() -> dict[str, ModuleType]:
    """Modules of bench/ that were imported, by name; no longer known to Python."""
    names = [
        name
        for name, module in sys.modules.items()
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(BENCH)
    ]
    return {name: sys.modules.pop(name) for name in names}


@contextmanager
def bench_script(name: str) -> Iterator[ModuleType]:
    """bench/NAME.py or bench/NAME/run.py, whose folder Python is told about as when it is run.

    Scripts of several folders are called `run` or `report`: afterwards none of them is known.
    """
    path = BENCH / f"{name}.py"
    if not path.exists():
        path = BENCH / name / "run.py"
    others = taken_from_bench()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(path.parent))
            spec = importlib.util.spec_from_file_location(f"{name}_run", path)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            sys.modules[f"{name}_run"] = module  # dataclasses look their module up
            spec.loader.exec_module(module)
            yield module
    finally:
        taken_from_bench()
        sys.modules.update(others)


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


def some_photographs(folder: Path, train: int, evaluate: int) -> Path:
    """The folder, which then holds the first so many photographs of each split."""
    for split, count in (("train", train), ("eval", evaluate)):
        (folder / split).mkdir(parents=True)
        for file in sorted((PHOTOS / split).glob("*.jpg"))[:count]:
            shutil.copy(file, folder / split)
    return folder


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Folder of the ONNX models to protect."""
    return ROOT / "models"


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20240229)


@dataclass(frozen=True)
class Published:
    """A model's answers to inputs, as they would be published with and without the mark."""

    inputs: list[Picture]
    plain: list[Picture]
    marked: list[Picture]

    def answer(self, picture: Picture) -> Picture:
        """As a suspect that is the owner's own marked service."""
        asked = [p.tobytes() for p in self.inputs]
        return self.marked[asked.index(picture.tobytes())]

    def upper_left(self, side_px: int) -> Published:
        """A square of each input, and what was published for it: where evidence does not matter."""
        inputs = [np.ascontiguousarray(p[:side_px, :side_px]) for p in self.inputs]
        published = (
            [np.ascontiguousarray(p[: 2 * side_px, : 2 * side_px]) for p in pictures]
            for pictures in (self.plain, self.marked)
        )
        return Published(inputs, *published)


def half_size(pictures: list[Picture]) -> list[Picture]:
    """Scaled down to half by area averaging: inputs for a x2 super-resolution model."""
    return [cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for p in pictures]


@pytest.fixture(scope="session")
def sr_model(models_folder: Path) -> ImageModel:
    """The protected model of most tests: x2 super-resolution."""
    return ImageModel(models_folder / "espcn_x2.onnx", threads=1)


@pytest.fixture(scope="session")
def calibration(
    sr_model: ImageModel, train_photos: list[Picture], tmp_path_factory: pytest.TempPathFactory
) -> Calibration:
    """The calibration of `sr_model`, on train photographs.

    It takes long: the first of pytest-xdist's workers to need it makes it for all.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    made = folder / "session.calibration"
    with open(folder / "session.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            outputs = [sr_model.output(p) for p in half_size(train_photos)]
            made.write_bytes(calibrate(outputs).to_bytes())
    return Calibration.from_bytes(made.read_bytes())


CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def _key_of(owner: str) -> OwnerKey:
    return OwnerKey._from_seeds(*(hashlib.sha256(f"{owner} {i}".encode()).digest() for i in (1, 2)))


@contextmanager
def pinned_marks() -> Iterator[None]:
    """Keys and claims that are made inside, by commands too, are the same in every run.

    A claim's mark depends on all that it states: its time, its key, and the code, so whoever
    changes a line of the extractor would test another mark. Marks differ in how well eight
    photographs show them: with three of the four keys that were tried some test of averaged or
    once published pictures failed for want of evidence; with this one none did.
    """

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(CREATED.timestamp(), tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim_module, "extractor_sha256", lambda: "0" * 64)
        patch.setattr(claim_module, "code_version", lambda: "0.1.0 tests")
        patch.setattr(claim_module, "datetime", Clock)
        patch.setattr(key_history, "datetime", Clock)
        patch.setattr(OwnerKey, "generate", lambda: _key_of("Owner"))
        yield


def _claim_for(owner: str, calibration: Calibration, model: Path) -> tuple[OwnerKey, Claim]:
    key = _key_of(owner)
    with pinned_marks():
        return key, Claim.create(key, owner, model, calibration.to_bytes())


@pytest.fixture(scope="session")
def session_claim(
    calibration: Calibration, models_folder: Path
) -> tuple[OwnerKey, Claim, Calibration]:
    """An owner's key, the claim on `sr_model`, and its calibration. The key is always the same."""
    return (*_claim_for("Owner", calibration, models_folder / "espcn_x2.onnx"), calibration)


@pytest.fixture(scope="session")
def other_claim(calibration: Calibration, models_folder: Path) -> tuple[OwnerKey, Claim]:
    """Another owner, who claims the same model."""
    return _claim_for("Somebody else", calibration, models_folder / "espcn_x2.onnx")


@pytest.fixture(scope="session")
def published(
    session_claim: tuple[OwnerKey, Claim, Calibration],
    sr_model: ImageModel,
    eval_photos: list[Picture],
) -> Published:
    """What `sr_model` publishes for the evaluation photographs."""
    key, claim, _ = session_claim
    inputs = half_size(eval_photos)
    outputs = [sr_model.output(p) for p in inputs]
    plain, marked = Embedder(None), Embedder(provision(key, claim))
    return Published(inputs, [plain.embed(y) for y in outputs], [marked.embed(y) for y in outputs])


@pytest.fixture(scope="session")
def verdict(session_claim: tuple[OwnerKey, Claim, Calibration], published: Published) -> Verdict:
    """On all published pictures, blind."""
    key, claim, _ = session_claim
    return verify(published.marked, claim, key)


def signed(members: dict[str, bytes], key: OwnerKey) -> dict[str, bytes]:
    """A bundle's members with a manifest of them, signed: a lying owner can put anything in."""
    hashed = {name: data for name, data in members.items() if not name.startswith("manifest")}
    manifest = manifest_of(hashed)
    signature = key.sign(bundle._SIGNED_PREFIX + manifest)
    return {**hashed, "manifest.json": manifest, "manifest.sig": signature}


def sign_again(members: dict[str, bytes], key: OwnerKey, path: Path) -> None:
    """Write these members, signed, as a bundle."""
    path.write_bytes(pack(signed(members, key)))


@pytest.fixture(scope="session")
def mark_key(session_claim: tuple[OwnerKey, Claim, Calibration]) -> MarkKey:
    """That of the session's claim."""
    key, claim, _ = session_claim
    return claim.mark_key(key)
