"""References: surrogates of the owner's unmarked outputs, that fail as a suspect does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from birthmark.bundle import recheck
from birthmark.bundle_container import to_json, unpack
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.errors import CouldNotJudge, InvalidModel, InvalidTrial, InvalidVerdict
from birthmark.extract import pixels_sha256
from birthmark.keys import OwnerKey
from birthmark.models import ImageModel
from birthmark.pictures import Picture
from birthmark.regression import Regression
from birthmark.report import write_report
from birthmark.trial import Trial
from birthmark.verdict import Decision, Verdict, verify
from conftest import Published, sign_again

Owned = tuple[OwnerKey, Claim, Calibration]
Asked = Callable[..., Verdict]
Change = Callable[[Picture, Picture], Picture]  # of the question and the model's answer


class Changed(ImageModel):
    """The protected model with something done to its answers."""

    def __init__(self, path: Path, name: str, change: Change) -> None:
        super().__init__(path, threads=1)
        self.sha256 = hashlib.sha256(name.encode()).hexdigest()
        self._change = change

    def __call__(self, picture: Picture) -> Picture:
        return self._change(picture, super().__call__(picture))


def failing(picture: Picture, much: float = 1.0) -> Picture:
    """What a student gets wrong, whatever it learned: edges, and the finest texture."""
    soft = cv2.bilateralFilter(picture, 5, 30.0, 1.5).astype(np.float64)
    return np.clip(np.rint(picture + much * (soft - picture)), 0, 255).astype(np.uint8)


def fails(_: Picture, answer: Picture) -> Picture:
    return failing(answer)


def leaning(published: Published, sign: int) -> Change:
    """What adds the mark, or its negative, to an answer."""

    def lean(question: Picture, answer: Picture) -> Picture:
        i = [p.tobytes() for p in published.inputs].index(question.tobytes())
        mark = published.marked[i].astype(np.int16) - published.plain[i]
        return np.clip(answer + sign * mark, 0, 255).astype(np.uint8)

    return lean


@pytest.fixture(scope="module")
def model_file(models_folder: Path) -> Path:
    return models_folder / "espcn_x2.onnx"


@pytest.fixture(scope="module")
def reference(model_file: Path) -> ImageModel:
    return Changed(model_file, "fails", fails)


@pytest.fixture(scope="module")
def asked(
    session_claim: Owned, published: Published, sr_model: ImageModel, reference: ImageModel
) -> Asked:
    """A verdict on a suspect that fails a little otherwise than the reference and carries a
    sixth of the mark."""
    key, claim, _ = session_claim
    rng = np.random.default_rng(1)

    def answer(of: Published, part: float, picture: Picture) -> Picture:
        i = [p.tobytes() for p in of.inputs].index(picture.tobytes())
        failed = failing(of.plain[i], 0.9).astype(np.float64)
        mark = of.marked[i].astype(np.float64) - of.plain[i]
        noise = rng.normal(0, 0.5, failed.shape)
        return np.clip(np.rint(failed + part * mark + noise), 0, 255).astype(np.uint8)

    def ask(part: float = 1 / 6, of: Published = published, **how: Any) -> Verdict:
        how = {"references": [reference], "model": sr_model, **how}
        suspect = lambda picture: answer(of, part, picture)  # noqa: E731
        return verify(None, claim, key, suspect=suspect, inputs=of.inputs, **how)

    return ask


@pytest.fixture(scope="module")
def beside(asked: Asked) -> Verdict:
    return asked()


@pytest.fixture(scope="module")
def saved(beside: Verdict, session_claim: Owned, tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("references") / "v.zip"
    beside.save(path, session_claim[0])
    return path


def test_a_weak_mark_is_seen_beside_a_reference(asked: Asked, beside: Verdict) -> None:
    without = asked(references=[])
    assert beside.log10_p < without.log10_p - 2 and beside.log10_p < -6
    assert without.log10_p_without_references is None
    assert beside.log10_p_without_references == pytest.approx(without.log10_p, abs=0.5)
    assert [c.name for c in beside.controls][2:] == ["reference 1"]
    assert all(c.log10_p > -4 for c in beside.controls)
    summary = beside.summary()
    assert summary["references"] == [hashlib.sha256(b"fails").hexdigest()]


def test_an_innocent_suspect_stays_innocent_beside_it(asked: Asked) -> None:
    assert asked(part=0.0).decision is not Decision.MARKED
    assert asked(part=0.0).log10_p > -3


def test_the_bundle_is_repeated(saved: Path, session_claim: Owned) -> None:
    key, claim, _ = session_claim
    assert recheck(saved).summary["references"]
    assert not recheck(saved, key).needs_key
    recheck(saved, claim.claim_key(key))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("references", [], "references cannot be so"),
        ("references", ["0" * 64, "1" * 64], "regression.npy"),
        ("references", ["xyz"], "references cannot be so"),
        ("references", [hashlib.sha256(str(i).encode()).hexdigest() for i in range(9)], "so"),
        ("log10_p_without_references", None, "references cannot be so"),
        ("log10_p_without_references", -99.0, "does not follow from the owner's key"),
        ("controls", [], "controls does not follow from the owner's key"),
    ],
)
def test_the_owner_cannot_sign_other_references(
    saved: Path, session_claim: Owned, name: str, value: Any, message: str, tmp_path: Path
) -> None:
    members = unpack(saved.read_bytes())
    stated = json.loads(members["verdict.json"])
    changed, path = to_json({**stated, name: value}), tmp_path / "x.zip"
    sign_again(members | {"verdict.json": changed}, session_claim[0], path)
    with pytest.raises(InvalidVerdict, match=message):
        recheck(path, session_claim[0])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_reference_that_carries_the_mark_or_its_negative_voids_the_test(
    asked: Asked, published: Published, model_file: Path, sign: int
) -> None:
    """Beside the negative an innocent suspect would be convicted."""
    leans = Changed(model_file, "leans", leaning(published, sign))
    with pytest.raises(CouldNotJudge, match="control: reference 2: marked, it seems"):
        asked(part=0.0, references=[Changed(model_file, "fails", fails), leans])


def test_an_owner_s_model_that_carries_the_negative_voids_the_test(
    session_claim: Owned, published: Published, model_file: Path
) -> None:
    """Or else whoever made it first would be convicted beside it."""
    key, claim, _ = session_claim
    model = Changed(model_file, "leans", leaning(published, -1))
    model.sha256 = claim.model_sha256
    with pytest.raises(CouldNotJudge, match="control: the owner's unmarked outputs"):
        verify(
            None,
            claim,
            key,
            suspect=ImageModel(model_file, threads=1),
            inputs=published.inputs,
            model=model,
        )


def test_what_cannot_be_a_reference(
    asked: Asked, published: Published, model_file: Path, reference: ImageModel
) -> None:
    with pytest.raises(InvalidModel, match="claimed model itself"):
        asked(references=[model_file])
    with pytest.raises(InvalidModel, match="given twice"):
        asked(references=[reference, reference])
    with pytest.raises(InvalidModel, match="at most 8"):
        asked(references=[Changed(model_file, str(i), fails) for i in range(9)])
    with pytest.raises(ValueError, match="informed test only"):
        asked(model=None)
    cut = Changed(model_file, "cut", lambda _, answer: answer[:-1])
    same = Changed(model_file, "a copy", lambda _, answer: answer)
    with pytest.raises(CouldNotJudge, match="reference 1 answers as the owner's model does"):
        asked(of=published.upper_left(192), references=[same])
    with pytest.raises(InvalidModel, match="not of the size"):
        asked(of=published.upper_left(64), references=[cut])


def test_a_trial_fixes_them(
    asked: Asked, session_claim: Owned, published: Published, reference: ImageModel
) -> None:
    key, claim, _ = session_claim
    digests = [pixels_sha256(p) for p in published.inputs]
    trial = Trial.declare(key, claim, digests, 4, informed=True, references=[reference.sha256])
    assert Trial.from_bytes(trial.to_bytes()) == trial
    assert asked(trial=trial).summary()["queries_declared"] == 4
    with pytest.raises(InvalidTrial, match="references are not those"):
        asked(trial=trial, references=[])
    with pytest.raises(InvalidTrial, match="claimed model itself"):
        Trial.declare(key, claim, digests, 4, informed=True, references=[claim.model_sha256])
    many = [pixels_sha256(np.full((1, 1, 3), i, np.uint8)) for i in range(9)]
    with pytest.raises(InvalidTrial, match="8 at most"):
        Trial.declare(key, claim, digests, 4, informed=True, references=many)
    for mode, references in ((False, [reference.sha256]), (True, [reference.sha256] * 2)):
        with pytest.raises(InvalidTrial, match="references are different"):
            Trial.declare(key, claim, digests, 4, informed=mode, references=references)


def test_the_report_names_them(beside: Verdict, session_claim: Owned, tmp_path: Path) -> None:
    key, claim, _ = session_claim
    write_report(beside, tmp_path / "r.html", key=claim.mark_key(key))
    text = (tmp_path / "r.html").read_text()
    assert hashlib.sha256(b"fails").hexdigest() in text and "without the references" in text


def test_equations_without_references_are_those_of_the_model_alone(
    published: Published, calibration: Calibration
) -> None:
    """Whether references stand beside or not, what is said without them is the same."""
    alone, beside = Regression.empty(), Regression.empty(2)
    for plain, marked in zip(published.plain[:2], published.marked, strict=False):
        alone.add(marked, plain)
        beside.add(marked, plain, [failing(plain), failing(plain, 0.5)])
    assert beside.references == 2 and alone.references == 0
    for read in (Regression.read, Regression.read_tint):
        said, before = read(beside.alone(), calibration), read(alone, calibration)
        assert np.allclose(said, before, atol=1e-4)  # sums of float32, in another order
