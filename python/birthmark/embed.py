"""Model output -> published picture, in one pass of the C++ core."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt

from birthmark import _core
from birthmark.errors import InvalidArray
from birthmark.files import StrPath
from birthmark.formats import Input, Output
from birthmark.mark import Mark

HALO = _core.HALO
"""How many pixels a published pixel depends on in each direction."""

Window = tuple[slice, slice]


def _limits(window: Window | None) -> tuple[int | None, int | None, int | None, int | None] | None:
    if window is None:
        return None
    rows, columns = window
    if rows.step not in (None, 1) or columns.step not in (None, 1):
        raise InvalidArray("a window is two slices without a step")
    return rows.start, rows.stop, columns.start, columns.stop


class Embedder:
    """Puts a mark on pictures: clamp, mark, round and store in one pass.

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

    @overload
    def embed(
        self,
        x: Any,
        out: npt.NDArray[np.uint8] | None = None,
        threads: int = 1,
        *,
        input: Input | None = None,
        output: None = None,
        window: Window | None = None,
    ) -> npt.NDArray[np.uint8]: ...

    @overload
    def embed(
        self,
        x: Any,
        out: Any = None,
        threads: int = 1,
        *,
        input: Input | None = None,
        output: Output,
        window: Window | None = None,
    ) -> Any: ...

    def embed(
        self,
        x: Any,
        out: Any = None,
        threads: int = 1,
        *,
        input: Input | None = None,
        output: Output | None = None,
        window: Window | None = None,
    ) -> Any:
        """Mark a model's output and return the published picture.

        Args:
            x: a numpy array, or a DLPack tensor (of torch, jax, ...) in the processor's memory:
                float32, float16, bfloat16, uint8 or int8, with 1 (grey), 3 or 4 (alpha) channels.
                By default floats are [n, c, h, w], [c, h, w] or [h, w] in [0, 1] (clamped) and
                uint8 is [n, h, w, c], [h, w, c] or [h, w]; ``input`` says otherwise. Strides are
                free; nothing is copied.
            out: where to write: an array or tensor of the result's shape and type, any strides, or
                a tuple of them for planes. It must not share memory with ``x``, since a pixel is
                still read after it was published; for work in place use :meth:`stream`. Arrays of
                jax cannot be written to, and do not say so: give them as ``x`` only.
            threads: how many may work, this one among them: on pictures of a batch, and on stripes
                of rows. The bytes are the same for any number.
            input: how ``x`` is to be read.
            output: what is to be published; by default uint8 RGB.
            window: publish only this part of ``x``, as ``np.s_[top:bottom, left:right]``. A tile of
                a larger picture is published exactly as within the whole if ``x`` holds ``HALO``
                pixels around it, or up to the picture's edge; for nv12, i420 and p010 ``x`` must
                begin at an even row and column of the picture, and so must the window.

        Returns:
            ``out`` if given, else uint8 [h, w, 3], or [n, h, w, 3] when n > 1, or what ``output``
            asks for. Each value differs from the unmarked one by at most 2, so PSNR is at least
            42.11 dB on every picture.

        Raises:
            InvalidArray: wrong dtype or shape, zero size, NaN or Inf (what ``out`` then holds is
                unspecified), a read-only or overlapping ``out``, a window that is not inside.
        """
        return self._native.embed(
            x,
            out,
            threads,
            _limits(window),
            None if input is None else input.native,
            None if output is None else output.native,
        )

    def stream(
        self, width: int, *, input: Input | None = None, output: Output | None = None
    ) -> RowStream:
        """Mark a picture of which only some rows are in memory.

        Args:
            width: columns of the picture. Up to 16384 of them the stream holds at most 4 MiB.
            input: as for :meth:`embed`.
            output: as for :meth:`embed`.

        Raises:
            InvalidArray: no such width.
        """
        return RowStream(self, width, input, output)


class RowStream:
    """Rows in, published rows out: the same bytes as from the whole picture.

    Made by :meth:`Embedder.stream`, for one thread at a time. Rows come out as soon as the
    ``HALO`` rows below them are in, an even number at a time; push many rows at once (100, say),
    for each round computes the surroundings of its rows anew.
    """

    def __init__(
        self, embedder: Embedder, width: int, input: Input | None, output: Output | None
    ) -> None:
        self._native = _core.RowStream(
            embedder._native,
            width,
            None if input is None else input.native,
            None if output is None else output.native,
        )

    def push(self, rows: Any) -> Any:
        """Take the picture's next rows.

        Args:
            rows: a block of rows, shaped like a picture of :meth:`Embedder.embed`.

        Returns:
            The rows that have become ready, shaped like that method's result; often none.

        Raises:
            InvalidArray: not such a block, or NaN or Inf in it (the stream has then ended), or the
                stream has ended.
        """
        return self._native.push(rows)

    def finish(self) -> Any:
        """Say that the last row is in, and return the rows that waited for more.

        Raises:
            InvalidArray: the stream has ended before.
        """
        return self._native.finish()
