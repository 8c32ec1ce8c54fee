"""How many bits a thief's outputs hold of a mark, and how soon the emblem appears in them.

    python bench/capacity.py --task sr --work surrogates-work            # all students kept there
    python bench/capacity.py --task sr --work surrogates-work NAME.onnx  # some of them

Key, claim and students are those that bench/surrogates/run.py keeps in ``--work``; the first line
is of the owner's own marked outputs, without a theft. ``bits`` is the largest number k of bits that
is decoded in 99 % of random codes [n, k]: a code is linear, so that what was read of one codeword,
times its chips, is what would have been read of the zero word of any code. Blind (squares of 256
pixels, the echo alone), and informed (beside the owner's model; echo and tint). ``NC`` is the
normalised correlation of the likeliest emblem with the claim's after so many squares, blind.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent / "surrogates"))

from run import TASKS, Bench, squares

from birthmark import emblem
from birthmark.claim import Claim
from birthmark.keys import MarkKey
from birthmark.mark import claimed_chips, rotation
from birthmark.models import ImageModel
from birthmark.payload import PayloadCode, half_log_ratios
from birthmark.pictures import Picture
from birthmark.report.emblems import likeliest_by_count
from birthmark.verdict import Verdict, verify

FloatArray = npt.NDArray[np.float64]

COUNTS = (1, 2, 5, 10, 20, 50, 100)
DECODED = 0.99
MOST_BITS = 64


def agreement(estimate: FloatArray, key: MarkKey, claim: Claim) -> FloatArray:
    """A part's soft chips times its true ones, float64 [n]."""
    n = len(estimate)
    turned: FloatArray = rotation(key, n).T @ estimate
    return turned * claimed_chips(key, claim, n)


def capacity(parts: Sequence[FloatArray], codes: int) -> int:
    """The largest k that is decoded in 99 % of random codes; 0 where not even 1 bit is.

    Args:
        parts: the :func:`agreement` of each part.
        codes: how many random codes are tried for each k.
    """
    ratios = np.concatenate(
        [half_log_ratios(p, float(p.sum() / np.linalg.norm(p) / math.sqrt(len(p)))) for p in parts]
    )
    n = len(ratios)

    def decoded(k: int) -> bool:
        rng = np.random.default_rng(k)
        lost = 0
        for _ in range(codes):
            code = PayloadCode(rng.integers(0, 2, (k, n)).astype(np.uint8))
            lost += bool(code.decode(ratios, np.ones(n, np.int8)).bits.any())
            if lost > (1 - DECODED) * codes:
                return False
        return True

    low, high = 0, min(MOST_BITS, n) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if decoded(middle) else (low, middle)
    return low


def correlations(verdict: Verdict, key: MarkKey) -> list[float]:
    """NC of the likeliest emblem after COUNTS and all pictures, blind."""
    pictures = len(verdict.measured.pool.pictures)
    guesses = likeliest_by_count(verdict, key, {*COUNTS, pictures})
    found = []
    for count in (*COUNTS, pictures):
        if count > pictures:
            found.append(math.nan)
        elif count in guesses:
            found.append(emblem.correlation(verdict.claim.emblem, guesses[count]))
        else:
            found.append(0.0)
    return found


def line(name: str, blind: Verdict, informed: Verdict, key: MarkKey, codes: int) -> str:
    """One suspect's figures as a row of the table."""
    claim, tint = blind.claim, informed.tint_estimate
    assert tint is not None and informed.tint_tests is not None
    of_blind = agreement(blind.estimate, key, claim)
    of_informed = [
        agreement(informed.estimate, key, claim),
        agreement(tint, key.tint, claim),
    ]
    cells = [
        name,
        f"{blind.log10_p:.1f}",
        f"{blind.tests.cosine:.2f}",
        str(capacity([of_blind], codes)),
        "yes" if blind.payload_is_claimed else "wrong" if blind.payload else "no",
        f"{informed.log10_p:.1f}",
        f"{informed.tests.cosine:.2f}, {informed.tint_tests.cosine:.2f}",
        str(capacity(of_informed, codes)),
        "yes" if informed.payload_is_claimed else "wrong" if informed.payload else "no",
        *(f"{nc:.2f}".replace("nan", "–") for nc in correlations(blind, key)),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Print a line for each suspect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--task", choices=sorted(TASKS), default="sr")
    parser.add_argument("--photos", default="tests/data/photos", help="holds train/ and eval/")
    parser.add_argument("--models", default="models", help="holds the ONNX files")
    parser.add_argument("--work", default="surrogates-work", help="key, claim and students")
    parser.add_argument("--codes", type=int, default=200, help="random codes for each k")
    parser.add_argument("students", nargs="*", help="file names below WORK/TASK; else all")
    options = parser.parse_args()
    bench = Bench(TASKS[options.task], options)
    key, claim = bench.claim.mark_key(bench.key), bench.claim
    head = ["suspect", "blind", "cosine", "bits", "read", "informed", "cosines", "bits", "read"]
    head += [f"NC {count}" for count in (*COUNTS, "all")]
    print(f"| {' | '.join(head)} |\n|---|{'---:|' * (len(head) - 1)}", flush=True)

    marked = {x.tobytes(): y for x, y in zip(bench.held_out, bench.direct, strict=True)}

    def own(picture: Picture) -> Picture:
        return marked[picture.tobytes()]

    names = options.students or sorted(p.name for p in bench.work.glob("*.onnx"))
    suspects = [("the owner's marked outputs", own)]
    for name in names:
        suspects.append((Path(name).stem, ImageModel(bench.work / name)))
    for name, suspect in suspects:
        tiles = squares([suspect(x) for x in bench.held_out])
        blind = verify(tiles, claim, bench.key)
        informed = verify(
            None, claim, bench.key, suspect=suspect, inputs=bench.held_out, model=bench.model
        )
        print(line(name, blind, informed, key, options.codes), flush=True)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
