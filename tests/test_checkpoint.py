"""Verdicts that were interrupted go on where they were, and end as if nothing had happened."""

from __future__ import annotations

import html
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birthmark import cli, extract
from birthmark.calibration import Calibration
from birthmark.checkpoint import open_checkpoint
from birthmark.claim import Claim
from birthmark.cli import shared
from birthmark.engine import open_engine
from birthmark.errors import InvalidArray, InvalidCheckpoint
from birthmark.files import StrPath
from birthmark.geometry import Geometry
from birthmark.keys import OwnerKey
from birthmark.mark import provision
from birthmark.models import ImageModel
from birthmark.pictures import Picture, encode_png
from birthmark.sums import Sums
from birthmark.suspects import SuspectPictures
from birthmark.trial import Trial
from birthmark.verdict import Verdict, verify
from conftest import ROOT, Published

Owned = tuple[OwnerKey, Claim, Calibration]
MODEL = ROOT / "models" / "espcn_x2.onnx"


class Interrupted(Exception):
    """Stands for whatever ends a run in the middle."""


def interrupted_at(done: int) -> Callable[[int, int, str], None]:
    def progress(now: int, total: int, message: str) -> None:
        if now >= done:
            raise Interrupted

    return progress


def said(verdict: Verdict) -> dict[str, Any]:
    """All of a verdict but its time."""
    return {**verdict.summary(), "created": ""}


@pytest.fixture
def folder(tmp_path: Path, published: Published) -> Path:
    """Pictures, a text file, and an archive whose second member is damaged, beside them."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, picture in enumerate(published.marked[:5]):
        cv2.imwrite(str(pictures / f"{i}.png"), picture[:160, :160, ::-1])
    (pictures / "notes.txt").write_text("no picture")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        for i, picture in enumerate(published.marked[:4]):
            data = encode_png(np.ascontiguousarray(picture[20:150, 20:150]))
            archive.writestr(f"m{i}.png", data[:300] if i == 1 else data)
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each picture that statistics were taken of."""
    calls: list[int] = []
    plain = extract.sums_of
    extract.extractor_sha256()  # takes some of its own, once

    def counting(picture: Picture) -> Sums:
        calls.append(picture.shape[0])
        return plain(picture)

    monkeypatch.setattr(extract, "sums_of", counting)
    yield calls


def sources(folder: Path) -> list[StrPath]:
    return [folder / "pictures", folder / "more.zip"]


@pytest.mark.parametrize("at", range(1, 11))
def test_pictures_go_on_and_nothing_is_measured_twice(
    session_claim: Owned, folder: Path, measured: list[int], at: int
) -> None:
    key, claim, _ = session_claim
    expected = said(verify(sources(folder), claim, key))
    once, state = len(measured), folder / "state"
    assert once == 8
    measured.clear()
    with pytest.raises(Interrupted):
        verify(sources(folder), claim, key, checkpoint=state, progress=interrupted_at(at))
    assert said(verify(sources(folder), claim, key, checkpoint=state)) == expected
    assert len(measured) == once
    assert said(verify(sources(folder), claim, key, checkpoint=state)) == expected
    assert len(measured) == once


def test_any_engine_goes_on_where_another_was(session_claim: Owned, folder: Path) -> None:
    pytest.importorskip("distributed", reason="needs birthmark[scale]")
    key, claim, _ = session_claim
    expected = said(verify(sources(folder), claim, key))
    state = folder / "state"
    with pytest.raises(Interrupted):
        verify(sources(folder), claim, key, checkpoint=state, progress=interrupted_at(8))
    with open_engine("dask", 1) as engine:
        found = verify(sources(folder), claim, key, checkpoint=state, engine=engine)
    assert said(found) == expected


def test_files_that_changed_in_between_are_measured_again(
    session_claim: Owned, folder: Path, published: Published
) -> None:
    key, claim, _ = session_claim
    state = folder / "state"
    with pytest.raises(Interrupted):
        verify(sources(folder), claim, key, checkpoint=state, progress=interrupted_at(9))
    (folder / "pictures" / "1.png").unlink()
    cv2.imwrite(str(folder / "pictures" / "0.png"), published.plain[0][:200, :200])
    cv2.imwrite(str(folder / "pictures" / "9.png"), published.plain[1][:200, :200])
    found = verify(sources(folder), claim, key, checkpoint=state)
    assert said(found) == said(verify(sources(folder), claim, key))
    assert sorted(Path(e.name).name for e in found.evidence[:5]) == [
        f"{i}.png" for i in (0, 2, 3, 4, 9)
    ]


def test_arrays_have_no_name_and_are_measured_again(
    session_claim: Owned, tmp_path: Path, published: Published, measured: list[int]
) -> None:
    key, claim, _ = session_claim
    for _ in range(2):
        verify(published.marked[:3], claim, key, checkpoint=tmp_path / "state")
    assert len(measured) == 6


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_torn_or_damaged_is_measured_again(
    session_claim: Owned, folder: Path, data: st.DataObject
) -> None:
    """At whatever byte the file was cut or changed: the same verdict, or one clear refusal."""
    key, claim, _ = session_claim
    state = folder / "state"
    state.unlink(missing_ok=True)
    expected = said(verify(sources(folder), claim, key, checkpoint=state))
    whole = bytearray(state.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        state.write_bytes(whole[:at])
    else:
        whole[at] ^= data.draw(st.integers(1, 255))
        state.write_bytes(whole)
    try:
        found = verify(sources(folder), claim, key, checkpoint=state)
    except InvalidCheckpoint as refused:
        assert str(refused) == f"{state}: not a checkpoint of birthmark"
        assert at < 400
    else:
        assert said(found) == expected
        assert said(verify(sources(folder), claim, key, checkpoint=state)) == expected


def test_what_it_was_not_made_for_is_refused(
    session_claim: Owned, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, claim, calibration = session_claim
    state = folder / "state"
    pictures = folder / "pictures"
    verify([pictures], claim, key, checkpoint=state)
    before = state.read_bytes()

    def refused(why: str, of: Claim = claim, **options: Any) -> None:
        source = (
            None
            if "suspect" in options
            else SuspectPictures([pictures], every=options.pop("every", 10))
        )
        with pytest.raises(InvalidCheckpoint, match=why):
            verify(source, of, key, checkpoint=state, **options)
        assert state.read_bytes() == before

    other = Claim.create(key, "Somebody", str(MODEL), calibration.to_bytes())
    refused("a checkpoint of another claim; name another file, or remove it", other)
    refused("of another suspect, or other settings", every=3)
    refused("of another suspect, or other settings", geometry=Geometry(0.5, 0.0, 7))
    refused("of another suspect, or other settings", suspect=MODEL, inputs=[pictures])
    with monkeypatch.context() as patch:
        patch.setattr("birthmark.checkpoint.extractor_sha256", lambda: "0" * 64)
        refused("of another version of birthmark")
    with open_checkpoint(state, claim, {"every": 10, "geometry": None}):
        refused("another process uses this checkpoint")
    for content in (b"", b"holiday", os.urandom(999), (pictures / "0.png").read_bytes()):
        state.write_bytes(content)
        before = content
        refused("not a checkpoint of birthmark")
    with pytest.raises(InvalidCheckpoint, match="on this machine, not a URL"):
        verify([pictures], claim, key, checkpoint="s3://bucket/state")
    with pytest.raises(OSError, match="no/state"):
        verify([pictures], claim, key, checkpoint=folder / "no" / "state")


class Counted:
    """A suspect that counts what it is asked, and refuses its second question."""

    def __init__(self, published: Published) -> None:
        self.asked: list[bytes] = []
        self._published = published

    def __call__(self, question: Picture) -> Picture:
        self.asked.append(question.tobytes())
        if question.tobytes() == self._published.inputs[1].tobytes():
            raise InvalidArray("I do not like that one")
        return self._published.answer(question)


@pytest.mark.parametrize("informed", [False, True])
def test_a_suspect_is_never_asked_again_what_it_has_answered(
    session_claim: Owned, published: Published, tmp_path: Path, informed: bool
) -> None:
    key, claim, _ = session_claim
    published = published.upper_left(160)
    options: dict[str, Any] = {"inputs": published.inputs, "model": MODEL if informed else None}
    expected = verify(None, claim, key, suspect=Counted(published), **options)
    assert expected.rejected == (("picture 2", "I do not like that one"),)
    suspect, state = Counted(published), tmp_path / "state"
    for at in (1, 2, 3, 6):
        with pytest.raises(Interrupted):
            verify(
                None,
                claim,
                key,
                suspect=suspect,
                checkpoint=state,
                progress=interrupted_at(at),
                **options,
            )
    found = verify(None, claim, key, suspect=suspect, checkpoint=state, **options)
    assert len(suspect.asked) == len(set(suspect.asked)) == len(published.inputs)
    assert said(found) == said(expected)
    assert (found.estimate == expected.estimate).all()
    if informed:
        assert (found.tint_estimate == expected.tint_estimate).all()
        assert found.measured.regression is not None and expected.measured.regression is not None
        assert (found.measured.regression.gram == expected.measured.regression.gram).all()


def test_nor_one_of_eight_orientations(
    session_claim: Owned, published: Published, tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    asked: list[bytes] = []

    def suspect(question: Picture) -> Picture:
        if len(asked) == 13:
            asked.append(b"interrupted")
            raise Interrupted
        asked.append(question.tobytes())
        return np.repeat(np.repeat(question, 2, axis=0), 2, axis=1)

    inputs = [picture[:80, :96] for picture in published.inputs[:3]]
    options: dict[str, Any] = {"inputs": inputs, "turned": True}
    with pytest.raises(Interrupted):
        verify(None, claim, key, suspect=suspect, checkpoint=tmp_path / "state", **options)
    verify(None, claim, key, suspect=suspect, checkpoint=tmp_path / "state", **options)
    assert len(asked) - 1 == len(set(asked)) - 1 == 8 * len(inputs)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SHA-256 of the model, for each question that is put to one."""
    asked: list[str] = []
    plain = ImageModel.__call__

    def counting(self: ImageModel, picture: Picture) -> Picture:
        asked.append(self.sha256)
        return plain(self, picture)

    monkeypatch.setattr(ImageModel, "__call__", counting)
    return asked


@pytest.mark.parametrize("informed", [False, True])
def test_a_report_asks_no_question_of_its_own(
    session_claim: Owned,
    published: Published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    informed: bool,
) -> None:
    """As many questions as were declared, with report, bundle and checkpoint."""
    key, claim, _ = session_claim
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(shared.PASSPHRASE_VARIABLE, "word")
    key.save("owner.key", "word")
    claim.save("claim.json")
    Path("fresh").mkdir()
    small = [np.ascontiguousarray(picture[:100, :100]) for picture in published.inputs]
    for i, picture in enumerate(small):
        cv2.imwrite(f"fresh/{i}.png", picture[..., ::-1])
    suspect = onnx.load(MODEL)
    for weights in suspect.graph.initializer:
        if len(weights.dims) == 4:
            values = onnx.numpy_helper.to_array(weights)
            weights.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.02), weights.name))
    onnx.save(suspect, "S.onnx")
    queries = 4
    digests = list(map(extract.pixels_sha256, small))
    Trial.declare(key, claim, digests, queries, informed=informed).save("trial.json")
    line = "verify --json --key owner.key --claim claim.json --inputs fresh --trial trial.json"
    line += " --suspect S.onnx --report r.html --verdict v.zip --checkpoint state"
    if informed:
        line += f" --model {MODEL}"
    assert cli.main(line.split()) in (0, 1)
    assert asked.count(ImageModel("S.onnx").sha256) == queries
    page = html.unescape(Path("r.html").read_text())
    assert "the suspect's answer" in page
    assert ("less that of the owner" in page) == informed
    assert not Path("state").exists()


def test_tracing_goes_on_too(
    session_claim: Owned,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    measured: list[int],
) -> None:
    key, claim, _ = session_claim
    monkeypatch.chdir(folder)
    monkeypatch.setenv(shared.PASSPHRASE_VARIABLE, "word")
    key.save("owner.key", "word")
    claim.save("claim.json")
    provision(key, claim, "Acme").save("acme.mark")
    Path("names.txt").write_text("Acme\nBolt\n")
    line = "trace --json --key owner.key --claim claim.json --customers names.txt pictures"
    cli.main(line.split())
    expected = json.loads(capsys.readouterr().out)
    with pytest.raises(Interrupted):
        verify(["pictures"], claim, key, checkpoint="state", progress=interrupted_at(3))
    measured.clear()
    cli.main([*line.split(), "--checkpoint", "state"])
    assert json.loads(capsys.readouterr().out) == expected
    assert len(measured) == 2
    assert not Path("state").exists()
