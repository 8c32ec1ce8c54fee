"""Key and claim -> the mark: folded gains that a device needs, and nothing that names the owner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from birthmark import _core, payload
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.errors import InvalidClaim, InvalidMarkFile
from birthmark.files import StrPath, write_atomically
from birthmark.keys import MarkKey, OwnerKey

_MAX_MARK_BYTES = 1 << 20


@dataclass(frozen=True, repr=False)
class Mark:
    """A mark file's content: what :class:`birthmark.Embedder` puts on pictures.

    It holds neither key nor payload in the clear; whoever has it can mark pictures with it, so it
    belongs on the owner's devices only.
    """

    data: bytes

    def __post_init__(self) -> None:
        """Check the content. Raises InvalidMarkFile."""
        _core.read_mark(self.data)

    def __repr__(self) -> str:
        """Show the public id only."""
        return f"Mark(id={self.id})"

    @property
    def id(self) -> str:
        """Public name of the mark, 32 hex digits (:attr:`birthmark.keys.MarkKey.id`)."""
        identity, _ = _core.read_mark(self.data)
        return identity.hex()

    def read(self, calibration: Calibration) -> npt.NDArray[np.float64]:
        """The coordinates of its echo, float64 [n]: least squares, up to scale.

        Raises:
            InvalidMarkFile: the mark is empty.
        """
        _, gains = _core.read_mark(self.data)
        spread = calibration.spread.astype(np.float64).reshape(-1, calibration.coordinates)
        echo = gains[: _core.ORBITS].astype(np.float64).reshape(-1)
        z = np.linalg.lstsq(spread, echo, rcond=None)[0]
        if not z.any():
            raise InvalidMarkFile("the mark is empty")
        return np.asarray(z, np.float64)

    def save(self, path: StrPath) -> None:
        """Write the mark file atomically, readable by its owner only (mode 0600).

        Raises:
            OutputExists, OSError: as :func:`birthmark.files.write_atomically`.
        """
        write_atomically(path, self.data, mode=0o600)

    @classmethod
    def load(cls, path: StrPath) -> Mark:
        """Read a mark file.

        Raises:
            InvalidMarkFile: missing, truncated, damaged, foreign, or for another contract version.
        """
        try:
            with open(path, "rb") as stream:
                data = stream.read(_MAX_MARK_BYTES)
            return cls(data)
        except OSError as error:
            raise InvalidMarkFile(f"{path}: {error.strerror}") from error
        except InvalidMarkFile as error:
            raise InvalidMarkFile(f"{Path(path)}: {error}") from None


def claimed_chips(key: MarkKey, claim: Claim, n: int) -> payload.Chips:
    """The n chips that a part of the claim's mark carries: its payload's codeword times the key's
    pad."""
    return payload.chips(claim.payload, key, n)


def rotation(key: MarkKey, n: int) -> npt.NDArray[np.float64]:
    """The key's Haar-random rotation from chips to coordinates, float64 [n, n]."""
    return key.rotation("coordinates", n)


def coordinates(key: MarkKey, claim: Claim, n: int) -> npt.NDArray[np.float64]:
    """The n coordinates of a mark, float64 [n], of length sqrt(n): its chips, turned.

    Over the key's randomness they are uniform on that sphere, and those of two customers of one
    claim are independent.
    """
    return rotation(key, n) @ claimed_chips(key, claim, n)


def provision(key: OwnerKey, claim: Claim, customer: str | None = None) -> Mark:
    """Make the mark of a claim, or that of one of its customers (or devices).

    Chips (payload under the key's pad) are turned by the key's rotation into coordinates, and the
    claim's calibration folds these into one gain for each orbit and tone; so with the tint's, under
    a key of their own.

    Raises:
        InvalidClaim: the claim's signature does not hold or is another owner's, or its calibration
            is for another family of carriers, or has fewer coordinates than the emblem has bits.
        InvalidCustomer: the customer's name cannot be one.
    """
    mark_key = claim.mark_key(key, customer)
    calibration = Calibration.from_bytes(claim.calibration)
    carried, bits = calibration.coordinates + calibration.tint_coordinates, len(claim.payload)
    if carried < bits:
        raise InvalidClaim(f"claim: {carried} coordinates cannot carry {bits} bits")
    gains = calibration.gains(
        coordinates(mark_key, claim, calibration.coordinates),
        coordinates(mark_key.tint, claim, calibration.tint_coordinates),
    )
    if not gains.any():
        raise InvalidClaim("the claim's calibration gives an empty mark")
    return Mark(_core.write_mark(mark_key.id, gains))
