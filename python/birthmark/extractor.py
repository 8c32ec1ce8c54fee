"""The trained part of blind reading: ``models/extractor.onnx``, the same for every key and model.

A photograph's own texture looks like a mark that nobody embedded; read from few pictures, that is
most of what disturbs the mark that somebody did. At half the size next to nothing is left of an
echo, but much of what the texture is like: how it goes on in each direction, how sharp it is, how
it was compressed. From that the extractor foresees what would be read without a mark. It was
trained on pictures of models and of surrogates that carry no mark (``models/recipes``), knows no
key, and is fixed before a suspect is looked at. What it foresees does not depend on the key, so
under the null hypothesis a claimed direction is as uniform beside what was read less what was
foreseen, and the exact tests hold.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np

from birthmark.calibration import TONE_FUNCTIONS, Calibration, FloatArray, chebyshev
from birthmark.resources import models_folder
from birthmark.sums import ORBIT_SCALE, OWN, Sums, texture

FILE = "extractor.onnx"


def foreseen(sums: Sums, calibration: Calibration) -> FloatArray:
    """What :meth:`Calibration.read` would give if these pictures carried no mark: float64 [n].

    The network foresees coefficients of carriers, which mean the same in every calibration.

    Args:
        sums: int64 [parts, tones, orbits + 1], summed over pictures; with texture in them.
        calibration: the one that they are read with.
    """
    (made,) = _session().run(None, {"features": features(sums, calibration)})
    return calibration.of_coefficients(made)


def features(sums: Sums, calibration: Calibration) -> FloatArray:
    """What is foreseen from, float64 [features].

    Of the half-sized pictures: their deviation from the calibration's, each tone weighted by its
    share of the texture, times the polynomials of the tone, [polynomials, orbits]; the shares of
    each tone in the texture, apart from lines, on them, and at half the size; and the logarithm of
    the ratio of both sizes' energies.
    """
    energy = sums[:, :, -1].astype(np.float64)
    own, halved = max(texture(sums), 1), max(energy[OWN].sum(), 1.0)
    share = energy / np.array([[own]] * OWN + [[halved]])
    half = sums[OWN, :, :-1] * float(ORBIT_SCALE) - energy[OWN][:, None] * calibration.offset[OWN]
    of_polynomials = chebyshev(TONE_FUNCTIONS) @ (half / halved)
    return np.concatenate([of_polynomials.reshape(-1), share.reshape(-1), [np.log(halved / own)]])


def trained_sha256() -> str:
    """Hash of the trained network's file, 64 hex digits."""
    return hashlib.sha256(_file()).hexdigest()


@functools.cache
def _file() -> bytes:
    return (models_folder() / FILE).read_bytes()


@functools.cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(_file(), options, providers=["CPUExecutionProvider"])
