"""Exact tail probabilities, in logarithms so that they do not underflow."""

from __future__ import annotations

import math


def log10_p_of_cosine(cosine: float, n: int) -> float:
    """log10 P(cosine with a uniform direction in n dimensions >= ``cosine``), exact, n >= 2.

    1/2 I(1 - c^2; (n - 1)/2, 1/2) by its continued fraction (NIST DLMF 8.17.22, Lentz's method),
    in logarithms, so it does not underflow.
    """
    c = min(abs(cosine), 1.0)
    x = max(1.0 - c * c, 1e-300)
    tail = _log_incomplete_beta(x, (n - 1) / 2, 0.5) - math.log(2)
    if cosine >= 0:
        return tail / math.log(10)
    return math.log1p(-math.exp(tail)) / math.log(10)


def _log_incomplete_beta(x: float, a: float, b: float) -> float:
    """ln of the regularised incomplete beta function I(x; a, b)."""
    if x > (a + 1) / (a + b + 2):
        return math.log1p(-math.exp(_log_incomplete_beta(1 - x, b, a))) if x < 1 else 0.0
    front = a * math.log(x) + b * math.log1p(-x) - math.log(a)
    front -= math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    fraction = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            c = 1 + term / c
            d = 1 / (d if abs(d) > tiny else tiny)
            c = c if abs(c) > tiny else tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front + math.log(fraction)


def log10_p_of_subspace(share: float, k: int, n: int) -> float:
    """log10 P(a uniform k-dimensional subspace of n holds >= ``share`` of a vector's square).

    The share is Beta(k/2, (n - k)/2); ``share`` in 0..1, 1 <= k < n.
    """
    x = min(1.0, max(1.0 - share, 1e-300))
    return _log_incomplete_beta(x, (n - k) / 2, k / 2) / math.log(10) if x < 1 else 0.0


def log10_p_of_both(log10_p: float, other_log10_p: float) -> float:
    """log10 p of two independent exact p-values together: their product x, by Fisher's method.

    P(product of two uniforms <= x) = x (1 - ln x); Fisher, "Statistical Methods for Research
    Workers", 4th edition, 1932.
    """
    log10_x = log10_p + other_log10_p
    return min(0.0, log10_x + math.log10(1 - log10_x * math.log(10)))


def log10_likelihood_ratio(log10_p: float) -> float:
    """log10 of how much likelier a p-value is if the mark is there than if it is not.

    That depends on how strongly a mark shows, which nobody knows beforehand. Every strength from
    none to overwhelming is given the same weight: p has density k p^(k - 1) under the mark, with k
    uniform in 0..1, so the ratio is (1 - p + p ln p) / (p ln^2 p). Under the null hypothesis its
    mean is 1, so a ratio of R or more comes up at most once in R times: Vovk and Wang,
    "E-values: calibration, combination and applications", Annals of Statistics 49(3), 2021.
    It is 1/2 at p = 1: no evidence against the mark is ever strong.
    """
    ln_p = log10_p * math.log(10)
    if ln_p > -1e-3:
        return math.log10(0.5)
    p = math.exp(ln_p)
    return math.log10(1 - p + p * ln_p) - log10_p - 2 * math.log10(-ln_p)


def log10_p_of_chips(matched: int, n: int) -> float:
    """log10 P(at least ``matched`` of n fair coins), exact."""
    ways = sum(math.comb(n, k) for k in range(matched, n + 1))
    return math.log10(ways) - n * math.log10(2)


def p_of(log10_p: float) -> float:
    """10 to this power; 0 where it is below the smallest float."""
    return float(10.0**log10_p) if log10_p > -300 else 0.0
