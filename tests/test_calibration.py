"""The calibration: frozen bytes, refusals, and that it fits what is published."""

from __future__ import annotations

import numpy as np
import pytest

from birthmark import _core
from birthmark.calibration import Calibration, calibrate, tint_fields
from birthmark.errors import CouldNotJudge, InvalidArray, InvalidClaim
from birthmark.sums import sums_of, total_of


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
    tint = np.random.default_rng(1).choice([-1.0, 1.0], calibration.tint_coordinates)
    for strength in (1, 5, 1000):
        gains = calibration.gains(z, strength * tint)
        assert np.array_equal(gains[: _core.ORBITS], calibration.gains(z)[: _core.ORBITS])
        assert 0 < np.abs(gains[_core.ORBITS :].astype(int)).max() <= _core.TINT_GAIN_MAX
    with pytest.raises(InvalidArray):
        calibration.gains(z[:-1])
    with pytest.raises(InvalidArray):
        calibration.gains(z, tint[:-1])


def test_reads_back_what_was_embedded(calibration: Calibration, published) -> None:
    """On pictures that it was not measured on: the sum of all photographs, three marks."""
    rng = np.random.default_rng(3)
    for _ in range(3):
        z = rng.choice([-1.0, 1.0], calibration.coordinates)
        embedder = _core.Embedder(_core.write_mark(bytes(16), calibration.gains(z)))
        sums = total_of([sums_of(embedder.embed(p)) for p in published.plain])
        read = calibration.read(sums)
        assert read @ z / np.linalg.norm(read) / np.linalg.norm(z) > 0.4


def test_a_tint_is_balanced_and_its_functions_are_orthogonal(
    calibration: Calibration, published
) -> None:
    """Over the photographs that it was not measured on, and so only nearly."""
    functions = calibration.tint.astype(np.float64)
    of_pixels = []
    for picture in published.plain:
        tone, fields = tint_fields(_core.fields(picture))
        assert (fields[0] == 1).all()
        of_pixels.append(np.einsum("fhw,fhwk->khw", fields, functions[:, tone]).reshape(8, -1))
    values = np.concatenate(of_pixels, axis=1)
    strengths = np.sqrt((functions**2).sum(axis=(0, 1)))
    assert (strengths > 0).all()
    gram = values @ values.T / values.shape[1]
    size = np.sqrt(np.diag(gram))
    assert (np.abs(values.mean(axis=1)) < size).all()
    off = gram / np.outer(size, size) - np.eye(len(size))
    assert np.abs(off).mean() < 0.35
    assert (size < 2 * _core.TINT_MAX_LEVELS).all()


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
