"""The calibration: frozen bytes, refusals, and that it fits what is published."""

from __future__ import annotations

import numpy as np
import pytest

from birthmark import _core
from birthmark.calibration import Calibration, calibrate
from birthmark.errors import CouldNotJudge, InvalidArray, InvalidClaim


def test_bytes_round_trip(calibration: Calibration) -> None:
    data = calibration.to_bytes()
    again = Calibration.from_bytes(data)
    assert again.to_bytes() == data
    assert again.sha256 == calibration.sha256


def test_every_truncation_and_foreign_bytes_are_refused(calibration: Calibration) -> None:
    data = calibration.to_bytes()
    for size in (0, 5, 11, 12, 100, len(data) - 1):
        with pytest.raises(InvalidClaim):
            Calibration.from_bytes(data[:size])
    for bad in (data + b"\0", b"X" + data[1:], b"\xff" * len(data)):
        with pytest.raises(InvalidClaim):
            Calibration.from_bytes(bad)


def test_gains_keep_the_contracts_bound(calibration: Calibration) -> None:
    z = np.random.default_rng(0).choice([-1.0, 1.0], calibration.coordinates)
    for strength in (1, 5, 1000):
        gains = calibration.gains(strength * z)
        assert np.abs(gains.astype(int)).sum(axis=0).max() <= _core.TAP_SUM_MAX
    assert not calibration.gains(0 * z).any()
    with pytest.raises(InvalidArray):
        calibration.gains(z[:-1])


def test_reads_back_what_was_embedded(calibration: Calibration, published) -> None:
    """On pictures that it was not measured on: the sum of all photographs, three marks."""
    rng = np.random.default_rng(3)
    for _ in range(3):
        z = rng.choice([-1.0, 1.0], calibration.coordinates)
        embedder = _core.Embedder(_core.write_mark(bytes(16), calibration.gains(z)))
        sums = np.sum([_core.statistics(embedder.embed(p)) for p in published.plain], axis=0)
        read = calibration.read(sums)
        assert read @ z / np.linalg.norm(read) / np.linalg.norm(z) > 0.4


def test_unusable_outputs_are_refused() -> None:
    with pytest.raises(InvalidArray, match="more or larger"):
        calibrate([np.zeros((3, 200, 200), np.float32)])
    with pytest.raises(InvalidArray, match="float32"):
        calibrate([np.zeros((200, 200, 3), np.uint8)])
    flat = np.full((3, 192, 192), 0.5, np.float32)
    with pytest.raises(CouldNotJudge):
        calibrate([flat] * 30)
    with pytest.raises(InvalidArray, match="coordinates"):
        calibrate([flat] * 30, coordinates=1)
