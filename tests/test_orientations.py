"""Asking in eight orientations: what it averages away, what it keeps, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from birthmark import bundle
from birthmark.embed import Embedder
from birthmark.errors import InvalidArray, InvalidTrial
from birthmark.extract import pixels_sha256
from birthmark.mark import provision
from birthmark.orientations import ORIENTATIONS, in_all_orientations, turn, turned_back
from birthmark.pictures import Picture
from birthmark.trial import Trial
from birthmark.verdict import verify


@pytest.mark.parametrize("symmetry", range(ORIENTATIONS))
def test_what_was_turned_is_turned_back(eval_photos, symmetry: int) -> None:
    photo = eval_photos[0][:40, :64]
    assert np.array_equal(turned_back(turn(photo, symmetry), symmetry), photo)


def test_the_orientations_differ(eval_photos) -> None:
    photo = eval_photos[0][:64, :64]
    assert len({turn(photo, symmetry).tobytes() for symmetry in range(ORIENTATIONS)}) == 8


def test_answers_are_laid_over_each_other(eval_photos) -> None:
    photo = np.ascontiguousarray(eval_photos[0][:64, :96])
    assert np.array_equal(in_all_orientations(lambda p: p)(photo), photo)

    def darkened(picture: Picture) -> Picture:
        return np.vstack([np.zeros_like(picture[:1]), picture[1:]])

    # A suspect that darkens the upper edge of whatever it gets darkens all four a little.
    averaged = in_all_orientations(darkened)(photo)
    for edge in (np.s_[0, 1:-1], np.s_[-1, 1:-1], np.s_[1:-1, 0], np.s_[1:-1, -1]):
        assert np.allclose(averaged[edge], 0.75 * photo[edge], atol=0.51)


def test_answers_of_changing_size_and_no_pictures_are_refused(eval_photos) -> None:
    photo = eval_photos[0][:40, :64]
    with pytest.raises(InvalidArray, match="differ in size"):
        in_all_orientations(lambda p: p[:32])(photo)
    with pytest.raises(InvalidArray):
        in_all_orientations(lambda p: p.astype(np.float32))(photo)


def test_an_informed_verdict_in_eight_orientations_sees_a_weaker_mark(
    session_claim, published, sr_model, tmp_path
) -> None:
    owner, claim, _ = session_claim
    plain, marked = Embedder(None), Embedder(provision(owner, claim))

    def lopsided(picture: Picture) -> Picture:
        """A fiftieth of the mark, and answers too sharp one way and too soft the other."""
        output = sr_model.output(picture)
        own = plain.embed(output).astype(float)
        made = own + 0.02 * (marked.embed(output) - own)
        for axis, strength in ((0, 0.3), (1, -0.3)):
            beside = np.roll(own, 1, axis) + np.roll(own, -1, axis)
            made += strength * (own - beside / 2)
        made += np.random.default_rng(1).uniform(-0.5, 0.5, made.shape)
        return np.clip(np.rint(made), 0, 255).astype(np.uint8)

    once, turned = (
        verify(
            None,
            claim,
            owner,
            suspect=lopsided,
            inputs=published.inputs[:4],
            model=sr_model,
            turned=turned,
        )
        for turned in (False, True)
    )
    assert turned.tests.log10_p_cosine < once.tests.log10_p_cosine - 3
    assert turned.summary()["turned"] and not once.summary()["turned"]
    turned.save(tmp_path / "turned.zip", owner)
    assert bundle.recheck(tmp_path / "turned.zip", owner).summary["turned"]


def test_only_a_suspect_can_be_asked_and_not_in_a_trial(session_claim, published) -> None:
    owner, claim, _ = session_claim
    with pytest.raises(ValueError, match="eight orientations"):
        verify(published.marked, claim, owner, turned=True)
    trial = Trial.declare(owner, claim, [pixels_sha256(x) for x in published.inputs], 2)
    with pytest.raises(InvalidTrial, match="asked once"):
        verify(
            None,
            claim,
            owner,
            suspect=published.answer,
            inputs=published.inputs,
            trial=trial,
            turned=True,
        )
