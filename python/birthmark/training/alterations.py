"""What a thief does to a surrogate's weights after the training, to shake off a mark.

All of it is on the ONNX files of :func:`birthmark.training.steal`: the initialisers called
``*.weight`` are changed, biases and fixed filters stay.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper

from birthmark.errors import InvalidTraining

FloatArray = npt.NDArray[np.float32]


def prune(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """Set the smallest ``share`` of each layer's weights to zero, by size (Han et al. 2015).

    Raises:
        InvalidTraining: not 0 <= share < 1.
    """
    if not 0 <= share < 1:
        raise InvalidTraining(f"a share to prune is at least 0 and below 1, not {share}")

    def pruned(weight: FloatArray) -> FloatArray:
        limit = np.sort(np.abs(weight), axis=None)[int(share * weight.size)]
        kept: FloatArray = np.where(np.abs(weight) < limit, np.float32(0), weight)
        return kept

    return _altered(model, pruned)


def quantise(model: onnx.ModelProto, bits: int = 8) -> onnx.ModelProto:
    """Round weights to ``bits`` bits, symmetrically with one step for each output channel.

    Raises:
        InvalidTraining: not 2 to 16 bits.
    """
    if not 2 <= bits <= 16:
        raise InvalidTraining(f"weights are rounded to 2 to 16 bits, not {bits}")
    most = 2 ** (bits - 1) - 1

    def rounded(weight: FloatArray) -> FloatArray:
        size = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
        step = np.maximum(size / most, np.finfo(np.float32).tiny)
        return np.asarray(np.rint(weight / step) * step, np.float32)

    return _altered(model, rounded)


def perturb(model: onnx.ModelProto, size: float, seed: int = 0) -> onnx.ModelProto:
    """Add Gaussian noise of ``size`` times each layer's root-mean-square weight.

    Raises:
        InvalidTraining: a negative size.
    """
    if size < 0:
        raise InvalidTraining(f"noise cannot be negative: {size}")
    rng = np.random.default_rng(seed)

    def noisy(weight: FloatArray) -> FloatArray:
        deviation = size * np.sqrt((weight**2).mean())
        noise = rng.standard_normal(weight.shape, np.float32)
        return np.asarray(weight + deviation * noise, np.float32)

    return _altered(model, noisy)


def _altered(model: onnx.ModelProto, change: Callable[[FloatArray], FloatArray]) -> onnx.ModelProto:
    altered = onnx.ModelProto()
    altered.CopyFrom(model)
    for tensor in altered.graph.initializer:
        if tensor.name.endswith(".weight"):
            changed = change(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
    return altered
