"""A suspect that hangs, lies, changes its mind or answers rubbish: never a wrong verdict."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from birthmark import cli
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.cli import shared
from birthmark.errors import CouldNotJudge, InvalidModel
from birthmark.keys import OwnerKey
from birthmark.models import ImageModel
from birthmark.verdict import Decision, verify
from conftest import ROOT, Picture, Published

Owned = tuple[OwnerKey, Claim, Calibration]
Answer = Callable[[Picture], Any]


def ask(
    owned: Owned, published: Published, suspect: Answer, *, informed: bool = False, **options: Any
) -> Any:
    model = ROOT / "models" / "espcn_x2.onnx" if informed else None
    key, claim, _ = owned
    return verify(
        None, claim, key, suspect=suspect, inputs=published.inputs, model=model, **options
    )


RUBBISH: dict[str, Answer] = {
    "nothing": lambda x: None,
    "a number": lambda x: 3,
    "text": lambda x: "a picture, honestly",
    "NaN": lambda x: np.full(x.shape, np.nan, np.float32),
    "floats": lambda x: x.astype(np.float32),
    "no pixels": lambda x: x[:0],
    "one channel": lambda x: x[:, :, 0],
    "four axes": lambda x: x[None],
    "one black picture": lambda x: np.zeros((64, 64, 3), np.uint8),
    "black": lambda x: np.zeros_like(x),
    "one pixel": lambda x: x[:1, :1],
}


@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("kind", RUBBISH)
def test_rubbish_cannot_be_judged(
    session_claim: Owned, published: Published, kind: str, informed: bool
) -> None:
    with pytest.raises(CouldNotJudge):
        ask(session_claim, published, RUBBISH[kind], informed=informed)


def test_rubbish_among_answers_is_left_out_with_its_reason(
    session_claim: Owned, published: Published
) -> None:
    asked = 0

    def moody(picture: Picture) -> Any:
        nonlocal asked
        asked += 1
        return None if asked == 3 else published.answer(picture)

    verdict = ask(session_claim, published, moody)
    assert verdict.decision is Decision.MARKED
    assert [name for name, _ in verdict.rejected] == ["picture 3"]
    assert verdict.pictures == len(published.inputs) - 1


def test_an_answer_of_another_size_is_not_compared_and_not_counted(
    session_claim: Owned, published: Published
) -> None:
    """Informed, an answer either is compared with the owner's or has no part in the verdict."""
    asked = 0

    def shrinking(picture: Picture) -> Picture:
        nonlocal asked
        asked += 1
        answer = published.answer(picture)
        return np.ascontiguousarray(answer[:-2]) if asked == 2 else answer

    verdict = ask(session_claim, published, shrinking, informed=True)
    assert [name for name, _ in verdict.rejected] == ["picture 2"]
    assert verdict.pictures == len(published.inputs) - 1
    assert "picture 2" not in {entry.name for entry in verdict.evidence}
    asked = 0
    assert ask(session_claim, published, shrinking).pictures == len(published.inputs)


def test_a_random_suspect_is_not_marked(session_claim: Owned, published: Published) -> None:
    rng = np.random.default_rng(5)

    def noise(picture: Picture) -> Picture:
        return rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)

    def disturbed(picture: Picture) -> Picture:
        plain = published.plain[[p.tobytes() for p in published.inputs].index(picture.tobytes())]
        return np.clip(plain + rng.normal(0, 3, plain.shape), 0, 255).astype(np.uint8)

    for suspect in (noise, disturbed):
        for _ in range(2):
            assert ask(session_claim, published, suspect).decision is not Decision.MARKED
    assert ask(session_claim, published, disturbed, informed=True).decision is not Decision.MARKED


def test_a_suspect_s_own_error_is_the_caller_s(session_claim: Owned, published: Published) -> None:
    def broken(picture: Picture) -> Picture:
        raise ConnectionError("the service is gone")

    for limit_s in (None, 60.0):
        with pytest.raises(ConnectionError, match="the service is gone"):
            ask(session_claim, published, broken, limit_s=limit_s)


def test_a_function_that_hangs_is_not_waited_for(
    session_claim: Owned, published: Published
) -> None:
    go_on = threading.Event()
    asked = 0

    def hanging(picture: Picture) -> Picture:
        nonlocal asked
        asked += 1
        if asked == 2:
            go_on.wait()
        return published.answer(picture)

    try:
        with pytest.raises(CouldNotJudge, match=r"did not answer within 3 s"):
            ask(session_claim, published, hanging, limit_s=3.0)  # the first needs far less
        assert asked == 2
    finally:
        go_on.set()
    assert ask(session_claim, published, published.answer, limit_s=60.0).pictures == 8


def endless_model(starts_hanging_at: int) -> bytes:
    """y = x, after ever so many rounds of a loop where the picture is at least so wide."""
    value, node = helper.make_tensor_value_info, helper.make_node
    body = helper.make_graph(
        [node("Identity", ["go_on"], ["still"]), node("Sin", ["before"], ["after"])],
        "body",
        [
            value("round", TensorProto.INT64, []),
            value("go_on", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, None),
        ],
        [value("still", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, None)],
    )
    sides = ["n", 3, "h", "w"]
    constants = {"width": [3], "least": [starts_hanging_at], "most": 2**62}
    graph = helper.make_graph(
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "width"], ["w"]),
            node("Less", ["w", "least"], ["narrow_1"]),
            node("Squeeze", ["narrow_1"], ["narrow"]),
            node("Not", ["narrow"], ["wide"]),
            node("Loop", ["most", "wide", "x"], ["looped"], body=body),
            node("Identity", ["looped"], ["y"]),
        ],
        "endless",
        [value("x", TensorProto.FLOAT, sides)],
        [value("y", TensorProto.FLOAT, sides)],
        [
            helper.make_tensor(
                name, TensorProto.INT64, [len(v)] if isinstance(v, list) else [], np.atleast_1d(v)
            )
            for name, v in constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_a_model_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ImageModel(endless_model(100), threads=1, limit_s=60.0, name="endless")
    small = np.full((40, 40, 3), 9, np.uint8)
    assert np.array_equal(model(small), small)
    with monkeypatch.context() as patch:
        patch.setattr(model, "_limit_s", 0.5)  # on a busy machine the others may need more
        with pytest.raises(InvalidModel, match=r"endless: takes more than 0\.5 s for 120 x 40 px"):
            model(np.zeros((40, 120, 3), np.uint8))
    assert np.array_equal(model(small), small), "the next picture has its own time"
    with pytest.raises(InvalidModel, match=r"takes more than 0\.1 s"):
        ImageModel(endless_model(1), threads=1, limit_s=0.1)


def test_the_command_could_not_judge_what_does_not_answer(
    session_claim: Owned,
    published: Published,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, claim, _ = session_claim
    key.save(tmp_path / "k", "word")
    claim.save(tmp_path / "c")
    (tmp_path / "fresh").mkdir()
    for i, picture in enumerate(published.inputs[:2]):
        cv2.imwrite(str(tmp_path / "fresh" / f"{i}.png"), picture[..., ::-1])
    (tmp_path / "endless.onnx").write_bytes(endless_model(100))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(shared.PASSPHRASE_VARIABLE, "word")
    line = "verify --key k --claim c --suspect endless.onnx --inputs fresh --verdict v.zip"
    assert cli.main([*line.split(), "--time-limit", "1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "birthmark: error: endless: takes more than 1 s" in captured.err
    assert not (tmp_path / "v.zip").exists()
    (tmp_path / "endless.onnx").write_bytes(endless_model(1 << 40))
    assert cli.main([*line.split(), "--time-limit", "0", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["pictures"] == 2
