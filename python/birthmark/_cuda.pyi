"""The CUDA kernel of birthmark. Only builds with BIRTHMARK_CUDA hold this module."""

class Format:
    """How pictures come in; `birthmark.cuda` says more."""

    PLANAR_FLOAT: Format
    PLANAR_HALF: Format
    RGB8: Format
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

def device_count() -> int:
    """How many cards there are. Raises CudaUnavailable."""

def device_of(address: int) -> int:
    """The card that an address belongs to, or -1. Raises CudaFailed."""

def wait_for(device: int, before: int, stream: int) -> None:
    """Let `stream` wait for what is on `before` now. Raises CudaFailed."""

class Embedder:
    def __init__(self, mark: bytes) -> None: ...
    def launch(
        self,
        *,
        format: Format,
        planes: tuple[int, int, int],
        row_stride: int,
        picture_stride: int,
        out: int,
        out_row_stride: int,
        out_picture_stride: int,
        pictures: int,
        height: int,
        width: int,
        device: int,
        stream: int,
    ) -> None:
        """Put the work on the stream. All strides are in bytes. Raises CudaFailed."""

    def finish(self, device: int, stream: int) -> bool:
        """Wait for the stream; False when a value was not finite. Raises CudaFailed."""
