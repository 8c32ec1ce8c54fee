"""Hostile files: whatever is read, the answer is a result or one of birthmark's own errors.

A few examples here; `make fuzz MINUTES=n` draws them for so long (BIRTHMARK_FUZZ_SECONDS, a test).
"""

from __future__ import annotations

import base64
import faulthandler
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from birthmark import _core, bundle, keys
from birthmark.bundle_container import manifest_of, pack, unpack
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.errors import BirthmarkError
from birthmark.graft import graft
from birthmark.key_history import KeyHistory
from birthmark.keys import ClaimKey, OwnerKey
from birthmark.mark import Mark, provision
from birthmark.models import ImageModel
from birthmark.pictures import SUFFIXES, decode_picture
from birthmark.shares import join
from birthmark.trial import Trial
from birthmark.verdict import verify
from conftest import Published
from fuzz.mutation import change_bytes, change_json, change_message

Owned = tuple[OwnerKey, Claim, Calibration]

SECONDS = float(os.environ.get("BIRTHMARK_FUZZ_SECONDS", "0"))
_HANGS_AFTER_S = 120


def fuzz(once: Callable[[random.Random], None], examples: int = 40) -> None:
    """Run `once` on drawn randomness; anything but a BirthmarkError is a finding."""

    def guarded(rng: random.Random) -> None:
        faulthandler.dump_traceback_later(_HANGS_AFTER_S, exit=True)
        try:
            once(rng)
        except BirthmarkError as error:
            assert str(error)
        finally:
            faulthandler.cancel_dump_traceback_later()

    if not SECONDS:
        drawn = hypothesis.given(st.randoms(use_true_random=False))(guarded)
        hypothesis.settings(max_examples=examples, database=None)(drawn)()
        return
    begin, count = time.monotonic(), 0
    first = int.from_bytes(os.urandom(4), "big") << 32
    while time.monotonic() < begin + SECONDS:
        seed = first + count
        try:
            guarded(random.Random(seed))
        except Exception as error:
            raise AssertionError(f"random.Random({seed}) finds {type(error).__name__}") from error
        count += 1
    print(f"fuzz: {count} executions, random.Random({first}) and following")


def resigned(values: Any, key: OwnerKey) -> bytes:
    """A claim file of any values, as its owner could sign it."""
    if not isinstance(values, dict):
        return json.dumps(values).encode()
    unsigned = {k: v for k, v in values.items() if k not in ("signature", "stamp")}
    form = json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    message = b"birthmark claim\0" + form.encode("utf-8", "surrogatepass")
    signed = {**values, "signature": base64.b64encode(key.sign(message)).decode()}
    text = json.dumps(signed, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogatepass")


def test_claim(session_claim: Owned) -> None:
    key, claim, _ = session_claim
    whole = claim.to_bytes()
    values = json.loads(whole)

    def once(rng: random.Random) -> None:
        if rng.randint(0, 2):
            changed = resigned(change_json(values, rng), key)
        else:
            changed = change_bytes(whole, rng)
        read = Claim.from_bytes(changed)
        assert read.to_bytes() == changed
        Calibration.from_bytes(read.calibration)
        read.mark_key(key)

    fuzz(once)


def test_calibration_of_a_hostile_owner(session_claim: Owned) -> None:
    calibration = session_claim[2].to_bytes()
    z = np.ones(session_claim[2].coordinates)

    def once(rng: random.Random) -> None:
        changed = Calibration.from_bytes(change_bytes(calibration, rng))
        if changed.coordinates == len(z):
            with np.errstate(all="ignore"):
                changed.gains(z)
        assert changed.to_bytes()

    fuzz(once)


def test_bundle(session_claim: Owned, published: Published, tmp_path: Path) -> None:
    key, claim, _ = session_claim
    saved, path = tmp_path / "saved.zip", tmp_path / "changed.zip"
    verify(published.marked, claim, key).save(saved, key)
    whole = saved.read_bytes()
    members = unpack(whole)

    def once(rng: random.Random) -> None:
        if rng.randint(0, 3):
            changed = dict(members)
            name = rng.choice([n for n in members if not n.startswith("manifest")])
            if name == "verdict.json":
                stated = change_json(json.loads(members[name]), rng)
                text = json.dumps(stated, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
                changed[name] = text.encode("utf-8", "surrogatepass")
            else:
                changed[name] = change_bytes(members[name], rng)
            hashed = {n: d for n, d in changed.items() if not n.startswith("manifest")}
            changed["manifest.json"] = manifest_of(hashed)
            changed["manifest.sig"] = key.sign(b"birthmark verdict\0" + changed["manifest.json"])
            data = pack(changed)
        else:
            data = change_bytes(whole, rng)
        path.write_bytes(data)
        bundle.recheck(path, key if rng.randint(0, 1) else None)

    fuzz(once)


def test_key_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SCRYPT_LOG2_N", 1)
    key = OwnerKey.generate()
    key.save(tmp_path / "good", "word")
    key.claim_key(bytes(32)).save(tmp_path / "disclosed")
    good, disclosed = (tmp_path / "good").read_bytes(), (tmp_path / "disclosed").read_bytes()
    header_bytes = keys._HEADER.size
    path = tmp_path / "changed"

    def once(rng: random.Random) -> None:
        which = rng.randint(0, 2)
        if which == 0:
            path.write_bytes(change_bytes(disclosed, rng))
            ClaimKey.load(path)
            return
        data = change_bytes(good, rng)
        if which == 1:  # under a checksum that fits; costs stay small
            header = bytearray(data[:header_bytes].ljust(header_bytes, b"\0"))
            header[9] = min(header[9], 5) if header[9] < 19 else header[9]
            data = bytes(header) + keys._checksum(bytes(header)) + data[header_bytes + 16 :]
        path.write_bytes(data)
        OwnerKey.load(path, "word")

    fuzz(once)


def test_other_files(session_claim: Owned, tmp_path: Path) -> None:
    key, claim, _ = session_claim
    path = tmp_path / "changed"
    provision(key, claim).save(tmp_path / "mark")
    KeyHistory.begin(key).save(tmp_path / "history")
    mark, history = (tmp_path / "mark").read_bytes(), (tmp_path / "history").read_bytes()
    shares = "\n".join(key.split(3, 2)).encode()

    def once(rng: random.Random) -> None:
        which = rng.randint(0, 3)
        path.write_bytes(change_bytes((mark, history, shares, history)[which], rng))
        if which == 0:
            Mark.load(path)
        elif which == 2:
            join(path.read_bytes().decode("utf-8", "replace").split("\n"))
        elif which == 1:
            KeyHistory.load(path)
        else:
            Trial.from_bytes(path.read_bytes())

    fuzz(once)


def test_picture_files() -> None:
    picture = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3)
    files = [cv2.imencode(suffix, picture)[1].tobytes() for suffix in sorted(SUFFIXES)]

    def once(rng: random.Random) -> None:
        read = decode_picture(change_bytes(rng.choice(files), rng), "changed")
        assert read.dtype == np.uint8 and read.ndim == 3 and read.shape[2] == 3 and read.size

    fuzz(once, 100)


def test_suspects_that_answer_rubbish(session_claim: Owned, published: Published) -> None:
    key, claim, _ = session_claim
    dtypes = (np.uint8, np.float32, np.int16, bool, np.complex64, "U3", object)

    def rubbish(rng: random.Random) -> Any:
        shape = tuple(rng.choice((0, 1, 3, 4, 30, 61)) for _ in range(rng.randint(0, 4)))
        if rng.randint(0, 3):
            shape = (rng.randint(0, 70), rng.randint(0, 70), 3)
        made: Any = np.zeros(shape, rng.choice(dtypes) if rng.randint(0, 2) == 0 else np.uint8)
        if made.dtype == np.uint8 and made.size:
            made[...] = np.random.default_rng(rng.randint(0, 99)).integers(0, 256, shape)
            made = made if made.ndim == 0 else made[:: rng.choice((1, -1, 2))]
        return rng.choice((made, made, made, None, "no such file", b"", 5, [made]))

    def once(rng: random.Random) -> None:
        if rng.randint(0, 1):
            verify([rubbish(rng) for _ in range(rng.randint(0, 3))], claim, key)
        else:
            asked = published.inputs[:2]
            verify(None, claim, key, suspect=lambda _: rubbish(rng), inputs=asked)

    fuzz(once, 15)


def test_models() -> None:
    value = helper.make_tensor_value_info
    sides = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "b"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, sides)],
        [value("y", TensorProto.FLOAT, sides)],
        [helper.make_tensor("b", TensorProto.FLOAT, [1], [0.25])],
    )
    opsets = [helper.make_opsetid("", 17)]
    whole = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    mark = Mark(_core.write_mark(bytes(16), np.zeros((_core.GAIN_ROWS, _core.TONES), np.int16)))

    def once(rng: random.Random) -> None:
        if rng.randint(0, 2):
            model = onnx.load_model_from_string(whole)
            for _ in range(rng.randint(1, 3)):
                change_message(model, rng)
            changed = model.SerializeToString()
        else:
            changed = change_bytes(whole, rng)
        if rng.randint(0, 3):
            graft(changed, mark, picture=rng.choice((None, "y")), keep=bool(rng.randint(0, 1)))
        else:
            ImageModel(changed, threads=1)

    fuzz(once)
