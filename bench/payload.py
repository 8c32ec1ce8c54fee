"""How often a payload is read, and how often a wrong one, from chips of a given cosine.

    python bench/payload.py                    # the table of bench/RESULTS.md
    python bench/payload.py --innocent 20000   # and what chips that know nothing pass

Soft chips have exactly the cosine stated with the true ones, in a direction that is otherwise
chance, under fresh payloads and pads. ``right`` is how often the likeliest payload is the true one,
``read`` how often it is trusted besides, ``wrong`` how often another one is trusted.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from birthmark.payload import Chips, Decoding, PayloadCode, half_log_ratios, payload_code

ECHO, TINT = 68, 24
TINT_COSINE = 0.9
CODES = (((ECHO,), 16), ((ECHO,), 32), ((ECHO, TINT), 32), ((ECHO, TINT), 48), ((ECHO, TINT), 64))
COSINES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85)


def soft_chips(chips: Chips, cosine: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Soft chips float64 [n] of unit length that have this cosine with the chips."""
    true = chips / math.sqrt(len(chips))
    noise = rng.standard_normal(len(chips))
    noise -= true * (noise @ true)
    soft: npt.NDArray[np.float64] = cosine * true
    soft += math.sqrt(1 - cosine**2) * noise / np.linalg.norm(noise)
    return soft


def trial(
    code: PayloadCode, lengths: Sequence[int], cosines: Sequence[float], rng: np.random.Generator
) -> tuple[Decoding, bool]:
    """One payload under one pad: what is decoded, and whether that is right."""
    bits = rng.integers(0, 2, code.k).astype(np.int8)
    pad = (1 - 2 * rng.integers(0, 2, code.n)).astype(np.int8)
    parts = np.split(code.encode(bits) * pad, np.cumsum(lengths)[:-1])
    ratios = [
        half_log_ratios(soft_chips(part, cosine, rng), cosine)
        for part, cosine in zip(parts, cosines, strict=True)
    ]
    decoding = code.decode(np.concatenate(ratios), pad)
    return decoding, bool((decoding.bits == bits).all())


def innocent(
    code: PayloadCode, lengths: Sequence[int], cosine: float, rng: np.random.Generator
) -> Decoding:
    """What is decoded from chips that know nothing, whatever cosine they are said to have."""
    noise = [half_log_ratios(rng.standard_normal(n), cosine) for n in lengths]
    pad = (1 - 2 * rng.integers(0, 2, code.n)).astype(np.int8)
    return code.decode(np.concatenate(noise), pad)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--innocent", type=int, default=0, metavar="N")
    parser.add_argument("--only", type=int, metavar="K", help="codes of K bits only")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| code | " + " | ".join(f"{cosine:.2f}" for cosine in COSINES) + " |")
    print("|---|" + "---:|" * len(COSINES))
    for lengths, k in CODES:
        if options.only not in (None, k):
            continue
        code = payload_code(lengths, k)
        cells = []
        for cosine in COSINES:
            cosines = (cosine, TINT_COSINE)[: len(lengths)]
            found = [trial(code, lengths, cosines, rng) for _ in range(options.trials)]
            right = sum(is_right for _, is_right in found)
            read = sum(is_right and decoding.trusted for decoding, is_right in found)
            wrong = sum(not is_right and decoding.trusted for decoding, is_right in found)
            share = [f"{count / options.trials:.2f}" for count in (right, read)]
            cells.append(" / ".join([*share, str(wrong)]))
        print(f"| [{sum(lengths)}, {k}] | " + " | ".join(cells) + " |", flush=True)
        if options.innocent:
            passed = sum(innocent(code, lengths, 0.6, rng).trusted for _ in range(options.innocent))
            print(f"[{sum(lengths)}, {k}]: {passed} of {options.innocent} innocents", flush=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
