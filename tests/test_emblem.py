"""The emblem: its bits' order, its mirror, what it is drawn from, how alike two are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark import emblem
from birthmark.emblem import cells, correlation, from_bits, from_key, from_logo, make, to_bits
from birthmark.errors import InvalidClaim
from birthmark.pictures import encode_png

KEY = bytes(range(32))
emblems = st.integers(4, 16).flatmap(
    lambda rows: st.text("0123456789abcdef", min_size=rows, max_size=rows)
)


def logo_of(grid: list[str], cell: int = 20, dark: int = 0, light: int = 255) -> bytes:
    """A PNG file of a drawing; # is dark."""
    drawn = np.array([[dark if c == "#" else light for c in row] for row in grid], np.uint8)
    large = drawn.repeat(cell, axis=0).repeat(cell, axis=1)
    return encode_png(np.ascontiguousarray(np.repeat(large[:, :, None], 3, axis=2)))


ARROW = [
    "...##...",
    "..####..",
    ".######.",
    "########",
    "...##...",
    "...##...",
    "...##...",
    "...##...",
]
ARROW_HEX = "137f1111"


@given(emblems)
def test_bits_and_digits_are_the_same(text: str) -> None:
    bits = to_bits(text)
    assert bits.dtype == np.int8 and len(bits) == 4 * len(text)
    assert int("".join(map(str, bits)), 2) == int(text, 16)
    assert from_bits(bits) == text


def test_a_digit_is_a_row_from_outside_to_the_middle() -> None:
    grid = cells("8123")
    assert grid.shape == (4, 8)
    assert grid.astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
    ]


@given(emblems)
def test_the_right_half_is_the_left_one_s_mirror(text: str) -> None:
    assert np.array_equal(cells(text), cells(text)[:, ::-1])


def test_a_logo_of_the_emblem_s_form_is_kept() -> None:
    assert from_logo(logo_of(ARROW), 8) == ARROW_HEX
    # Turned upside down it is another one; left and right are the same.
    assert from_logo(logo_of(ARROW[::-1]), 8) == ARROW_HEX[::-1]
    assert from_logo(logo_of([row[::-1] for row in ARROW]), 8) == ARROW_HEX
    assert from_logo(logo_of(ARROW, dark=120, light=140), 8) == ARROW_HEX
    bright_on_dark = from_logo(logo_of(ARROW, dark=255, light=0), 8)
    assert bright_on_dark is not None and correlation(bright_on_dark, ARROW_HEX) == -1


def test_a_logo_that_is_not_symmetric_becomes_so() -> None:
    corner = ["########", *["#......."] * 7]
    assert from_logo(logo_of(corner), 8) == "f8888888"


def test_a_frame_around_nothing_is_no_margin() -> None:
    frame = ["########", *["#......#"] * 6, "########"]
    assert from_logo(logo_of(frame), 8) == "f888888f"


def test_a_wide_logo_is_fitted_and_not_stretched() -> None:
    assert from_logo(logo_of(["...........", ".########..", ".########.."]), 8) == "000ff000"


def test_margins_are_cut_off() -> None:
    framed = ["." * 20] * 3 + ["." * 5 + row + "." * 7 for row in ARROW[:7]] + ["." * 20] * 9
    assert from_logo(logo_of(framed), 7) == from_logo(logo_of(ARROW[:7]), 7)


@pytest.mark.parametrize("ink", [0, 255])
def test_a_transparent_logo_is_seen(ink: int) -> None:
    """Black or white on nothing: the colour below a transparent pixel does not count."""
    solid = np.array([[c == "#" for c in row] for row in ARROW]).repeat(20, 0).repeat(20, 1)
    picture = np.full((160, 160, 4), ink, np.uint8)
    picture[:, :, 3] = 255 * solid
    _, data = cv2.imencode(".png", picture)
    drawn = from_logo(data.tobytes(), 8)
    assert drawn is not None
    assert correlation(drawn, ARROW_HEX) == (1 if ink == 0 else -1)


def test_a_logo_of_one_colour_gives_way_to_the_key() -> None:
    flat = encode_png(np.full((50, 70, 3), 200, np.uint8))
    assert from_logo(flat, 8) is None
    assert make(flat, KEY, 8) == make(None, KEY, 8) == from_key(KEY, 8)
    assert make(logo_of(ARROW), KEY, 8) == ARROW_HEX


KEY_EMBLEM = "7157e743"


def test_the_key_s_emblem_is_fixed_for_ever() -> None:
    assert from_key(KEY, 8) == KEY_EMBLEM
    assert from_key(KEY[::-1], 8) != KEY_EMBLEM


@given(st.binary(min_size=32, max_size=32), st.integers(4, 16))
def test_a_key_s_emblem_has_two_colours(key: bytes, rows: int) -> None:
    drawn = from_key(key, rows)
    emblem.check_emblem(drawn)
    assert len(drawn) == rows and 0.25 <= to_bits(drawn).mean() <= 0.75


@pytest.mark.parametrize("rows", [3, 17])
def test_rows_have_their_bounds(rows: int) -> None:
    with pytest.raises(InvalidClaim, match="4 to 16 rows"):
        make(None, KEY, rows)


@pytest.mark.parametrize(
    "bad",
    [None, 5, "", "123", "1" * 17, "0000", "f" * 8, "12G4", "12F4", "1234\n", " 1234", "١234"],
)
def test_what_is_no_emblem(bad: object) -> None:
    with pytest.raises(InvalidClaim, match="emblem"):
        emblem.check_emblem(bad)


def test_correlation() -> None:
    assert correlation(ARROW_HEX, ARROW_HEX) == 1
    assert correlation("0f0f", "f0f0") == -1
    assert correlation("0000", "1000") == pytest.approx(1 - 2 / 16)
    rng = np.random.default_rng(0)
    noise = [from_bits(rng.integers(0, 2, 32).astype(np.int8)) for _ in range(500)]
    assert abs(np.mean([correlation(ARROW_HEX, other) for other in noise])) < 0.04


@pytest.mark.parametrize("text", [ARROW_HEX, "8123", "0123456789abcdef"])
def test_the_picture_shows_the_cells(text: str) -> None:
    drawn = emblem.picture(text, 64)
    assert drawn.shape == (64, 64, 3) and drawn.dtype == np.uint8
    rows = len(text)
    middles = drawn[32 // rows :: 64 // rows, 4::8, 0] < 128
    assert np.array_equal(middles, cells(text))


def test_the_terminal_s_picture_shows_the_cells() -> None:
    lines = emblem.text(ARROW_HEX)
    assert len(lines) == 8 and {len(line) for line in lines} == {16}
    assert [line[::2].replace("█", "#").replace(" ", ".") for line in lines] == ARROW
    halves = emblem.text("0123456789abcdef")
    assert halves[0] == "      ▄▄▄▄      " and halves[7] == "██████▄▄▄▄██████"
