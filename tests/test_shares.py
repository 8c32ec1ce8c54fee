"""Shares of a key: any that are enough give it back, fewer tell nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark import shares
from birthmark.errors import InvalidShares
from birthmark.keys import OwnerKey


def slow_product(a: int, b: int) -> int:
    """Multiplication in the field of AES (FIPS 197, 4.2), shift by shift."""
    result = 0
    while b:
        result ^= a * (b & 1)
        a, b = a << 1 ^ (0x11B if a & 0x80 else 0), b >> 1
    return result


def test_the_field_is_that_of_aes() -> None:
    assert slow_product(0x57, 0x83) == 0xC1  # FIPS 197, 4.2
    for a, b in itertools.product(range(256), repeat=2):
        assert shares._product(a, b) == slow_product(a, b)
        if b:
            assert shares._product(shares._quotient(a, b), b) == a


@given(data=st.data(), secret=st.binary(min_size=1, max_size=70), count=st.integers(2, 12))
def test_any_that_are_enough_give_the_secret_back(
    data: st.DataObject, secret: bytes, count: int
) -> None:
    needed = data.draw(st.integers(2, count))
    lines = shares.split(secret, count, needed)
    assert len(set(lines)) == count
    given_back = data.draw(st.permutations(lines))[: data.draw(st.integers(needed, count))]
    assert shares.join([line.lower().replace("-", " ") for line in given_back]) == secret
    with pytest.raises(InvalidShares, match=f"{needed} different shares are needed"):
        shares.join(given_back[: needed - 1])
    with pytest.raises(InvalidShares, match="needed"):
        shares.join([given_back[0]] * needed)


def test_fewer_than_are_needed_fit_every_secret() -> None:
    """A share alone takes every value as often, whatever the secret: here for one byte."""
    seen = {0: set(), 255: set()}
    for secret, values in seen.items():
        for _ in range(6000):
            line = shares.split(bytes([secret]), 2, 2)[0]
            values.add(shares._from_text(line, 1).values[0])
    assert all(len(values) == 256 for values in seen.values())


def test_a_slip_of_the_pen_is_found_and_named() -> None:
    lines = shares.split(b"secret", 3, 2)
    for at in range(0, len(lines[1]), 7):
        if lines[1][at] == "-":
            continue
        wrong = "A" if lines[1][at] != "A" else "B"
        with pytest.raises(InvalidShares, match="share 2"):
            shares.join([lines[0], lines[1][:at] + wrong + lines[1][at + 1 :]])
    for bad in ("", "hello", "1890", "A" * 200, "\u00e4"):
        with pytest.raises(InvalidShares, match="share 1"):
            shares.join([bad])
    with pytest.raises(InvalidShares, match="no share"):
        shares.join([])


def test_shares_that_do_not_belong_together() -> None:
    one, other = shares.split(b"secret", 3, 2), shares.split(b"secret", 3, 2)
    with pytest.raises(InvalidShares, match="different splittings"):
        shares.join([one[0], other[1]])
    with pytest.raises(InvalidShares, match="same place"):
        shares.join([one[0], other[0]])
    share = shares._from_text(one[1], 1)
    forged = shares._Share(share.of_set, 2, 2, bytes(len(share.values)))
    with pytest.raises(InvalidShares, match="was changed"):
        shares.join([one[0], shares._to_text(forged)])


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 1), (2, 3), (256, 2), (0, 0)])
def test_what_cannot_be_split(count: int, needed: int) -> None:
    with pytest.raises(InvalidShares):
        shares.split(b"x", count, needed)


def test_an_owner_s_key_and_no_other_secret_comes_back() -> None:
    key = OwnerKey.generate()
    lines = key.split(5, 3)
    assert OwnerKey.join([lines[4], lines[0], lines[2]]) == key
    with pytest.raises(InvalidShares, match="owner's key"):
        OwnerKey.join(shares.split(b"another", 2, 2))
