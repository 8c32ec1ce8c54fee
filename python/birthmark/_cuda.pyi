"""The CUDA kernel of birthmark. Only builds with BIRTHMARK_CUDA hold this module."""

from typing import Any

def device_count() -> int:
    """How many cards there are. Raises CudaUnavailable."""

def device_of(address: int) -> int:
    """The card that an address belongs to, or -1. Raises CudaFailed."""

def wait_for(device: int, before: int, stream: int) -> None:
    """Let `stream` wait for what is on `before` now. Raises CudaFailed."""

class Embedder:
    def __init__(self, mark: bytes) -> None: ...
    def launch(self, layout: dict[str, Any], device: int, stream: int) -> None:
        """Put the work on the stream: what `_core.lay_out` returned. Raises CudaFailed."""

    def finish(self, device: int, stream: int) -> bool:
        """Wait for the stream; False when a value was not finite. Raises CudaFailed."""
