"""Model output -> published picture, in one pass of the C++ core."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from birthmark import _core
from birthmark.files import StrPath
from birthmark.mark import Mark


class Embedder:
    """Puts a mark on pictures: clamp, mark, round and interleave in one pass.

    One object may be used from several threads at once; the GIL is released while it works.

    Args:
        mark: the mark (:func:`birthmark.provision`) or the path of a mark file, or None to publish
            without one.
        kernel: "scalar", "sse4", "avx2", "avx512", "avx512vnni" or "neon"; by default the fastest
            that the processor and the operating system allow. Every kernel gives the same bytes.

    Raises:
        InvalidArray: no such kernel, or not on this machine.
        InvalidMarkFile: the path is not that of a mark file.
    """

    def __init__(self, mark: Mark | StrPath | None, *, kernel: str | None = None) -> None:
        if mark is not None and not isinstance(mark, Mark):
            mark = Mark.load(mark)
        self._native = _core.Embedder(None if mark is None else mark.data, kernel)

    @property
    def kernel(self) -> str:
        """Name of the kernel in use."""
        return self._native.kernel

    def embed(
        self, x: npt.NDArray[Any], out: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Mark a model's output and return the published picture.

        Args:
            x: float32 [n, 3, h, w] or [3, h, w], RGB in [0, 1] (clamped), or uint8 [n, h, w, 3] or
                [h, w, 3]. Each row must be contiguous; other strides are free.
            out: where to write: uint8 of the result's shape, rows contiguous.

        Returns:
            uint8 [h, w, 3], or [n, h, w, 3] when n > 1. Each value differs from the unmarked one by
            at most 2, so PSNR is at least 42.11 dB on every picture.

        Raises:
            InvalidArray: wrong dtype or shape, zero size, NaN or Inf (what ``out`` then holds is
                unspecified), a read-only or overlapping ``out``.
        """
        return self._native.embed(x, out)
