"""Tracing: which of many customers, each with a mark of his own, a suspect's pictures come from.

The estimate z of the suspect is read once and compared with every customer's coordinates. Under the
null hypothesis (a customer's outputs had no part in it) his direction is uniform on the sphere in
n dimensions and independent of the estimate and of the other customers', so these have exact
p-values:

* one customer: the cosine with his direction;
* one customer, given others who are already named: the cosine of what is left of both after the
  others' directions are projected out, in n - (others) dimensions;
* "at least one of these k": the share of the estimate's square in the span of their directions is
  Beta(k/2, (n - k)/2).

Where the suspect was asked beside the owner's model there is a second estimate, of the tint, and a
customer's two p-values are put together by Fisher's method; groups are looked for in the echo.

Every p is multiplied by the number of candidates of its search (N, or N choose k), by
:data:`SEARCHES`, and by the number of claims among which the owner chose (draws). So the chance
that anybody who had no part is named at all is at most the rate asked for. Several customers who
pool or average their outputs leave the mean of their marks, and each shows less: the rounds after
the first take out those named already, and if nobody can be named alone, pairs and triples are
tried (joint decoding). Random directions are the codes of Kilian et al., "Resistance of digital
watermarks to collusive attacks", ISIT 1998: against averaging of real coordinates they need no
Tardos code (2003), whose gain is against colluders who see single bits.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from birthmark.calibration import Calibration, FloatArray
from birthmark.claim import Claim
from birthmark.errors import CouldNotJudge, InvalidCustomer
from birthmark.exact_tests import corrected_log10_p
from birthmark.extract import read_echo
from birthmark.files import StrPath
from birthmark.keys import MarkKey, check_customer
from birthmark.mark import coordinates
from birthmark.measure import Measured
from birthmark.sums import texture
from birthmark.tails import log10_p_of_cosine, log10_p_of_subspace

MOST_COLLUDERS = 3
# More than these never have a part at the same time: assumed where members of a group are named.
MOST_GUILTY = 10
# Rounds of naming alone, one search for each size of group, one for the members of a group.
SEARCHES = MOST_COLLUDERS + (MOST_COLLUDERS - 1) + 1
MOST_CUSTOMERS = 1_000_000
# Groups are looked for among the customers with the largest cosines; all groups are counted.
_PAIRS_AMONG, _TRIPLES_AMONG = 256, 40
# Exact p-values are computed for so many, by a sum of squares that orders nearly as they do.
_NAMED_AMONG = 64
_LEADS = 5

FloatArray32 = np.ndarray[Any, np.dtype[np.float32]]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Named:
    """A customer who is named. ``log10_p`` counts the whole search."""

    customer: str
    log10_p: float
    how: str
    """In words: alone, given others, or as a member of a group."""


@dataclass(frozen=True)
class Group:
    """Customers of whom at least one had a part. ``log10_p`` counts the whole search."""

    customers: tuple[str, ...]
    log10_p: float


@dataclass(frozen=True)
class Lead:
    """A customer with one of the largest cosines; no accusation. ``log10_p`` is of him alone."""

    customer: str
    cosine: float
    """Of the echo."""
    log10_p: float


@dataclass(frozen=True)
class Trace:
    """The answer of a search.

    Attributes:
        customers: how many were compared.
        false_positive_rate: at most this often is anybody named who had no part.
        named: who had a part, surest first; empty if nobody can be named.
        group: where nobody is named alone: customers of whom at least one had a part, or None.
        leads: the customers with the largest cosines, whether named or not.
        searches_counted: how many searches of all customers (or pairs, or triples) every p counts.
    """

    customers: int
    false_positive_rate: float
    named: tuple[Named, ...]
    group: Group | None
    leads: tuple[Lead, ...]
    searches_counted: int

    @property
    def found(self) -> bool:
        """Whether anything can be said of anybody."""
        return bool(self.named) or self.group is not None

    def summary(self) -> dict[str, Any]:
        """As plain JSON values; holds no secret."""
        return {**asdict(self), "found": self.found}


class Customers:
    """Customers' names and the directions of their marks under one claim.

    Attributes:
        names: as given.
        directions: of the echo, float32 [customers, n], of length 1.
        tint_directions: of the tint, float32 [customers, m], of length 1.
    """

    def __init__(
        self,
        names: Sequence[str],
        claim: Claim,
        key: MarkKey,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Derive every customer's direction from the claim's mark key, half a millisecond each.

        Raises:
            InvalidCustomer: nobody, too many, or a name that cannot be one or is there twice.
        """
        self.names = tuple(map(check_customer, names))
        if not 0 < len(self.names) <= MOST_CUSTOMERS:
            raise InvalidCustomer(f"1 to {MOST_CUSTOMERS} customers are needed")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name, n in Counter(self.names).items() if n > 1)
            raise InvalidCustomer(f"the customer {twice!r} is listed twice")
        calibration = Calibration.from_bytes(claim.calibration)
        self._searches = SEARCHES * claim.draws
        n, m = calibration.coordinates, calibration.tint_coordinates
        self.directions = np.empty((len(self.names), n), np.float32)
        self.tint_directions = np.empty((len(self.names), m), np.float32)
        for i, name in enumerate(self.names):
            if progress and i % 100 == 0:
                progress(i, len(self.names), "customers")
            own = key.customer(name)
            self.directions[i] = coordinates(own, claim, n) / math.sqrt(n)
            self.tint_directions[i] = coordinates(own.tint, claim, m) / math.sqrt(m)

    def trace(
        self,
        estimate: FloatArray,
        false_positive_rate: float = 1e-6,
        *,
        tint: FloatArray | None = None,
    ) -> Trace:
        """Name whoever had a part in what the estimates were read from.

        Args:
            estimate: of the echo, float64 [n].
            false_positive_rate: at most this often is anybody named who had no part.
            tint: of the tint, float64 [m], where the suspect was asked beside the owner's model.

        Raises:
            CouldNotJudge: the estimate is zero.
        """
        if not 0 < false_positive_rate <= 0.01:
            raise ValueError(f"a rate is above 0 and at most .01: {false_positive_rate}")
        parts = [_Part(self.directions, _unit(estimate))]
        if tint is not None:
            parts.append(_Part(self.tint_directions, _unit(tint)))
        bound = math.log10(false_positive_rate)
        unit = parts[0].unit
        cosines = self.directions @ unit
        order = np.argsort(-cosines, kind="stable")
        named = self._name_alone(parts, bound)
        group = None
        if not named:
            group = self._find_group(unit, cosines, order, bound)
        if group is not None:
            named = self._name_members(unit, group, bound)
        leads = tuple(
            Lead(self.names[i], float(cosines[i]), log10_p)
            for i, log10_p in _unlikeliest(parts, [])[:_LEADS]
        )
        return Trace(
            len(self.names),
            false_positive_rate,
            tuple(named),
            None if group is None else group[1],
            leads,
            self._searches,
        )

    def check_controls(self, measured: Measured, claim: Claim) -> None:
        """Return if what a suspect was asked and compared with carries no customer's mark.

        No input may carry one; the owner's outputs and references may not carry its negative
        either, as in a verdict (:func:`birthmark.controls.check_controls`).

        Raises:
            CouldNotJudge: one does; names it.
        """
        calibration = Calibration.from_bytes(claim.calibration)
        tests = len(measured.inputs) * len(self.names)
        for entry in measured.inputs:
            if texture(entry.sums) <= 0:
                continue
            z = read_echo(entry.sums, calibration)
            best = float((self.directions @ z.astype(np.float32)).max() / np.linalg.norm(z))
            if log10_p_of_cosine(best, len(z)) + math.log10(tests) < -4:
                raise CouldNotJudge(
                    f"{entry.name}: this input carries a customer's mark itself; ask fresh inputs"
                )
        read = []
        if measured.own is not None:
            of_own = read_echo(measured.own, calibration)
            read.append(("the owner's unmarked outputs", of_own, self.directions))
        if measured.regression is not None:
            for i in range(measured.regression.references):
                equations, name = measured.regression.of_reference(i), f"reference {i + 1}"
                read.append((name, equations.read(calibration), self.directions))
                read.append((name, equations.read_tint(calibration), self.tint_directions))
        tests = 2 * len(self.names) * len(read)
        for name, z, directions in read:
            best = float(np.abs(directions @ z.astype(np.float32)).max() / np.linalg.norm(z))
            if log10_p_of_cosine(best, len(z)) + math.log10(tests) < -4:
                raise CouldNotJudge(
                    f"control: {name}: marked for a customer, it seems, so nothing can be said"
                    " beside it"
                )

    def _name_alone(self, parts: Sequence[_Part], bound: float) -> list[Named]:
        """Rounds of: name all who are unlikely given those named before."""
        named: list[Named] = []
        inside: list[int] = []
        counted = math.log10(len(self.names) * self._searches)
        for _ in range(MOST_COLLUDERS):
            how = "given those named before" if inside else "alone"
            found = [
                (i, log10_p + counted)
                for i, log10_p in _unlikeliest(parts, inside)
                if log10_p + counted < bound
            ]
            if not found:
                break
            named += [Named(self.names[i], log10_p, how) for i, log10_p in found]
            inside += [i for i, _ in found]
        return named

    def _find_group(
        self,
        unit: FloatArray32,
        cosines: FloatArray32,
        order: np.ndarray[Any, np.dtype[np.intp]],
        bound: float,
    ) -> tuple[list[int], Group] | None:
        """The pair, or else the triple, that is the least likely to have had no part."""
        for size, among in ((2, _PAIRS_AMONG), (3, _TRIPLES_AMONG)):
            if len(self.names) < size:
                return None
            members, share = _best_subset(self.directions, cosines, order[:among], size)
            log10_p = log10_p_of_subspace(share, size, len(unit))
            log10_p += math.log10(math.comb(len(self.names), size) * self._searches)
            if log10_p < bound:
                names = tuple(self.names[i] for i in members)
                return members, Group(names, log10_p)
        return None

    def _name_members(
        self, unit: FloatArray32, group: tuple[list[int], Group], bound: float
    ) -> list[Named]:
        """Those of a group who are unlikely given its others.

        One of the group is guilty. So the searches counted are: every customer, given every other
        set of the group's size less one that has one of at most MOST_GUILTY guilty ones in it.
        """
        members, of = group
        others_tried = MOST_GUILTY * math.comb(len(self.names), len(members) - 2)
        counted = math.log10(len(self.names) * others_tried * self._searches)
        named = []
        for i in members:
            others = [j for j in members if j != i]
            cosines, n = _Part(self.directions, unit).cosines_given(others)
            log10_p = log10_p_of_cosine(float(cosines[i]), n) + counted
            if log10_p < bound:
                named.append(Named(self.names[i], log10_p, f"in a group of {len(of.customers)}"))
        return sorted(named, key=lambda n: n.log10_p)


@dataclass(frozen=True)
class _Part:
    """One part of the mark: every customer's direction, float32 [customers, n], and the estimate's,
    [n]."""

    directions: FloatArray32
    unit: FloatArray32

    def cosines_given(self, inside: Sequence[int]) -> tuple[FloatArray32, int]:
        """Every customer's cosine after the directions ``inside`` are projected out.

        Returns:
            The cosines (0 for those inside), and in how many dimensions they are.
        """
        n = len(self.unit) - len(inside)
        if not inside:
            return self.directions @ self.unit, n
        basis, _ = np.linalg.qr(self.directions[list(inside)].T.astype(np.float64))
        left = self.unit - basis @ (basis.T @ self.unit)
        size = float(np.linalg.norm(left))
        if n < 2 or size < 1e-6:
            return np.zeros(len(self.directions), np.float32), max(n, 2)
        within = self.directions @ basis.astype(np.float32)
        lengths = np.sqrt(np.maximum(1e-12, 1 - (within**2).sum(axis=1)))
        cosines = self.directions @ (left / size).astype(np.float32) / lengths
        cosines[list(inside)] = 0
        return cosines.astype(np.float32), n


def _unit(estimate: FloatArray) -> FloatArray32:
    size = float(np.linalg.norm(estimate))
    if not size > 0:
        raise CouldNotJudge("there is nothing to trace")
    return (estimate / size).astype(np.float32)


def _unlikeliest(parts: Sequence[_Part], inside: Sequence[int]) -> list[tuple[int, float]]:
    """Customers with their log10 p given those ``inside``, uncorrected, the least first."""
    given = [part.cosines_given(inside) for part in parts]
    score = sum(n * cosines * np.abs(cosines) for cosines, n in given)
    found = []
    for i in map(int, np.argsort(-score, kind="stable")[:_NAMED_AMONG]):
        log10_ps = [log10_p_of_cosine(float(cosines[i]), n) for cosines, n in given]
        found.append((i, corrected_log10_p(log10_ps, tests_counted=1)))
    return sorted(found, key=lambda one: one[1])


@functools.cache
def _subsets(among: int, size: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """All subsets of this size of 0 ... among - 1, one a row."""
    return np.array(list(itertools.combinations(range(among), size)), np.intp)


def _best_subset(
    directions: FloatArray32,
    cosines: FloatArray32,
    candidates: np.ndarray[Any, np.dtype[np.intp]],
    size: int,
) -> tuple[list[int], float]:
    """The ``size`` candidates whose span holds most of the estimate, each with a positive part.

    Returns:
        Their indices, and the share of the estimate's square in their span (0 where none fits).
    """
    sets = _subsets(len(candidates), size)
    d, c = directions[candidates].astype(np.float64), cosines[candidates].astype(np.float64)
    gram, c = d @ d.T, c[sets]
    if size == 2:
        r = gram[sets[:, 0], sets[:, 1]]
        weights = (c - r[:, None] * c[:, ::-1]) / np.maximum(1e-9, 1 - r * r)[:, None]
    else:
        weights = np.linalg.solve(gram[sets[:, :, None], sets[:, None, :]], c[:, :, None])[:, :, 0]
    share = np.where((weights > 0).all(axis=1), (weights * c).sum(axis=1), 0.0)
    best = int(share.argmax())
    return [int(candidates[i]) for i in sets[best]], min(1.0, float(share[best]))


def read_customers(path: StrPath) -> list[str]:
    """Customers' names from a text file: UTF-8, one a line; empty lines and "#" lines are skipped.

    Raises:
        InvalidCustomer: missing, not UTF-8, or empty.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()  # Windows begins with a mark
    except OSError as error:
        raise InvalidCustomer(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InvalidCustomer(f"{path}: not UTF-8 text") from None
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise InvalidCustomer(f"{path}: no customer is listed")
    return names
