"""Hostile files: whatever is read, the answer is a result or one of birthmark's own errors.

A few examples here; `make fuzz MINUTES=n` draws them for so long (BIRTHMARK_FUZZ_SECONDS, a test).
"""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import functools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper

from birthmark import _core, bundle, exact_tests, keys
from birthmark import graft as grafting
from birthmark.bundle_container import INFORMED, pack, unpack
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.errors import BirthmarkError
from birthmark.extract import pixels_sha256, read_echo
from birthmark.key_history import KeyHistory
from birthmark.keys import ClaimKey, OwnerKey
from birthmark.mark import Mark, provision
from birthmark.models import ImageModel
from birthmark.pictures import SUFFIXES, decode_picture
from birthmark.shares import join
from birthmark.sums import OWN, PARTS, SHAPE
from birthmark.trial import Trial
from birthmark.verdict import verify
from conftest import signed
from fuzz.mutation import change_bytes, change_json, change_message

Owned = tuple[OwnerKey, Claim, Calibration]

SECONDS = float(os.environ.get("BIRTHMARK_FUZZ_SECONDS", "0"))
_HANGS_AFTER_S = 120
_WATCHED_EVERY_S = 1


def fuzz(once: Callable[[random.Random], None], examples: int = 40) -> None:
    """Run `once` on drawn randomness; anything but a BirthmarkError is a finding."""

    def guarded(rng: random.Random) -> None:
        try:
            once(rng)
        except BirthmarkError as error:
            assert str(error)

    if not SECONDS:
        drawn = hypothesis.given(st.randoms(use_true_random=False))(guarded)
        hypothesis.settings(max_examples=examples, database=None)(drawn)()
        return
    begin, count = time.monotonic(), 0
    first = int.from_bytes(os.urandom(4), "big") << 32
    now = watched = begin
    try:
        while now < begin + SECONDS:
            # Each watch is a thread, which takes longer than most executions.
            if count == 0 or now > watched + _WATCHED_EVERY_S:
                faulthandler.dump_traceback_later(_HANGS_AFTER_S, exit=True)
                watched = now
            seed = first + count
            try:
                guarded(random.Random(seed))
            except Exception as error:
                raise AssertionError(
                    f"random.Random({seed}) finds {type(error).__name__}"
                ) from error
            count += 1
            now = time.monotonic()
    finally:
        faulthandler.cancel_dump_traceback_later()
    print(
        f"fuzz: {count} executions, {count / (now - begin):.0f} a second,"
        f" random.Random({first}) and following"
    )


# Few coordinates and functions of tint: a claim of 50 kB instead of 250, and tests that take
# microseconds. Nothing that reads them knows how many there should be.
_COORDINATES, _TINT_FUNCTIONS = 16, 6


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "brighter.onnx"
    path.write_bytes(model_bytes())
    return path


def model_bytes() -> bytes:
    """A model that makes pictures a little brighter, 300 bytes."""
    value = helper.make_tensor_value_info
    sides = ["n", 3, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "b"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, sides)],
        [value("y", TensorProto.FLOAT, sides)],
        [helper.make_tensor("b", TensorProto.FLOAT, [1], [0.01])],
    )
    opsets = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return made


@pytest.fixture(scope="module")
def small_owner(model_file: Path) -> Owned:
    """An owner whose calibration is small and made up."""
    rng = np.random.default_rng(5)
    orbits, tones = _core.ORBITS, _core.TONES
    calibration = Calibration(
        spread=rng.normal(0, 100, (orbits, tones, _COORDINATES)).astype(np.float32),
        offset=rng.normal(0, 0.01, (PARTS, tones, orbits)).astype(np.float32),
        response=rng.normal(0, 0.01, (OWN, tones, orbits, _COORDINATES)).astype(np.float32),
        precision=np.tile(np.eye(orbits, dtype=np.float32) * 1e4, (OWN, tones, 1, 1)),
        damage=rng.normal(0, 0.01, (OWN, tones, orbits, 3)).astype(np.float32),
        tint=rng.normal(0, 0.1, (_core.TINT_FIELDS, tones, _TINT_FUNCTIONS)).astype(np.float32),
        ridge=0.1,
    )
    key = OwnerKey._from_seeds(bytes(32), bytes(range(32)))
    claim = Claim.create(key, "Owner", model_file, calibration.to_bytes())
    return key, claim, Calibration.from_bytes(claim.calibration)


@pytest.fixture
def changed_file(tmp_path: Path) -> Iterator[Path]:
    """A file that is written anew for each execution; in memory where the system can."""
    if not hasattr(os, "memfd_create"):
        yield tmp_path / "changed"
        return
    number = os.memfd_create("changed")
    yield Path(f"/proc/self/fd/{number}")
    os.close(number)


@pytest.fixture
def quickly_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few decoys; and what follows from a claim alone is computed once for the same claim."""
    for module in (exact_tests, bundle):
        monkeypatch.setattr(module, "DECOYS", 99)
    remembered = functools.lru_cache(maxsize=8)
    for name in ("verify", "canonical_form"):
        monkeypatch.setattr(Claim, name, remembered(getattr(Claim, name)))
    monkeypatch.setattr(Claim, "from_bytes", remembered(Claim.from_bytes))
    monkeypatch.setattr(Calibration, "from_bytes", remembered(Calibration.from_bytes))


@pytest.fixture(scope="module")
def squares(eval_photos: list[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
    """Two squares of 64 pixels."""
    return [np.ascontiguousarray(photo[40:104, 60:124]) for photo in eval_photos[:2]]


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


def test_claim(model_file: Path) -> None:
    key = OwnerKey._from_seeds(bytes(32), bytes(range(32)))
    logo = cv2.imencode(".png", np.zeros((3, 5, 3), np.uint8))[1].tobytes()
    # What the calibration holds is a target of its own.
    claim = Claim.create(key, "Owner", model_file, b"opaque here", logo, "mail@example.org")
    whole = claim.to_bytes()
    values = json.loads(whole)

    def once(rng: random.Random) -> None:
        if rng.randint(0, 2):
            changed = resigned(change_json(values, rng), key)
        else:
            changed = change_bytes(whole, rng)
        read = Claim.from_bytes(changed)
        assert read.to_bytes() == changed
        read.mark_key(key)

    fuzz(once)


def test_calibration_of_a_hostile_owner(small_owner: Owned) -> None:
    calibration = small_owner[2].to_bytes()
    z = np.ones(_COORDINATES)
    sums = np.random.default_rng(1).integers(0, 2**40, SHAPE)

    def once(rng: random.Random) -> None:
        # Half of them keep their size, which is looked at first.
        changed = change_bytes(calibration, rng)
        if rng.randint(0, 1):
            changed = changed[: len(calibration)] + calibration[len(changed) :]
        read = Calibration.from_bytes(changed)
        with np.errstate(all="ignore"):
            if read.coordinates == len(z):
                read.gains(z)
            with contextlib.suppress(np.linalg.LinAlgError):  # a verdict calls it "no estimate"
                read_echo(sums, read)
        assert read.to_bytes()

    fuzz(once)


def redeclared(values: Any, key: OwnerKey) -> bytes:
    """A trial file of any values, as its owner could sign it."""
    if isinstance(values, dict):
        added = ("signature", "accused_nonce", "owner_nonce")
        signed = {k: v for k, v in values.items() if k not in added}
        form = json.dumps(signed, sort_keys=True, separators=(",", ":"))
        signature = key.sign(b"birthmark trial\0" + form.encode()).hex()
        values = {**values, "signature": signature}
    return json.dumps(values, sort_keys=True, indent=1).encode() + b"\n"


def unpacked_bundles(
    owned: Owned, squares: list[npt.NDArray[np.uint8]], model: Path, folder: Path
) -> list[dict[str, bytes]]:
    """The members of a blind and of an informed verdict, and of one of a trial."""
    key, claim, _ = owned
    asked: dict[str, Any] = {
        "suspect": lambda picture: np.roll(picture, 1, axis=0),
        "inputs": squares,
    }
    trial = Trial.declare(key, claim, [pixels_sha256(p) for p in squares], 2).joined(bytes(32))
    made = []
    for name, verdict in (
        ("blind", verify(squares, claim, key)),
        ("informed", verify(None, claim, key, model=model, **asked)),
        ("tried", verify(None, claim, key, trial=trial, **asked)),
    ):
        verdict.save(folder / name, key)
        made.append(unpack((folder / name).read_bytes()))
    return made


@pytest.mark.usefixtures("quickly_judged")
def test_bundle(
    small_owner: Owned, squares: list[npt.NDArray[np.uint8]], model_file: Path, tmp_path: Path
) -> None:
    """What a hostile owner may put into the members of a bundle that is whole."""
    key = small_owner[0]
    unpacked = unpacked_bundles(small_owner, squares, model_file, tmp_path)
    for members in unpacked:
        assert not bundle._repeat(members, key).needs_key

    def once(rng: random.Random) -> None:
        members = dict(rng.choice(unpacked))
        name = rng.choice([n for n in members if not n.startswith("manifest")])
        if rng.randint(0, 1):
            name = "verdict.json"
        if name == "verdict.json":
            stated = change_json(json.loads(members[name]), rng)
            text = json.dumps(stated, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
            members[name] = text.encode("utf-8", "surrogatepass")
        elif name == "trial.json" and rng.randint(0, 3):
            members[name] = redeclared(change_json(json.loads(members[name]), rng), key)
        elif name.endswith(".npy") and rng.randint(0, 3):  # other numbers, of the same form
            numbers = np.frombuffer(members[name][128:], members[name][21:24].decode()).copy()
            at = rng.randint(0, len(numbers) - 1)
            number = rng.choice((0, 1, -1, 2**62, -(2**62), 1e308, float(numbers[at]) * 2))
            numbers[at] = min(max(number, -(2**63)), 2**62) if numbers.dtype == "<i8" else number
            members[name] = members[name][:128] + numbers.tobytes()
        else:
            members[name] = change_bytes(members[name], rng)
        if rng.randint(0, 30) == 0:  # without the others a container is none
            members.pop(rng.choice((*INFORMED, "inputs.npy")), None)
        members = signed(members, key)
        with np.errstate(all="ignore"):
            bundle._repeat(members, key if rng.randint(0, 1) else None)

    fuzz(once)


def test_bundle_container() -> None:
    """What a bundle's zip may be made of; what its members hold does not matter here."""
    names = ("verdict.json", "claim.json", "statistics.npy", "estimate.npy")
    members = {name: name.encode() for name in (*names, "manifest.json", "manifest.sig")}
    whole = pack(members)

    def once(rng: random.Random) -> None:
        data = change_bytes(whole, rng)
        assert pack(unpack(data)) == data

    fuzz(once)


def test_key_files(tmp_path: Path, changed_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SCRYPT_LOG2_N", 1)
    key = OwnerKey.generate()
    key.save(tmp_path / "good", "word")
    key.claim_key(bytes(32)).save(tmp_path / "disclosed")
    good, disclosed = (tmp_path / "good").read_bytes(), (tmp_path / "disclosed").read_bytes()
    header_bytes = keys._HEADER.size
    path = changed_file

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


def test_other_files(small_owner: Owned, tmp_path: Path, changed_file: Path) -> None:
    key, claim, _ = small_owner
    path = changed_file
    provision(key, claim).save(tmp_path / "mark")
    KeyHistory.begin(key).save(tmp_path / "history")
    mark, history = (tmp_path / "mark").read_bytes(), (tmp_path / "history").read_bytes()
    shares = "\n".join(key.split(3, 2)).encode()
    stated = {
        "informed": True,
        "references": ["cd" * 32],
        "customer": "Zoë",
        "tests_counted": 3,
        "false_positive_rate": 0.001,
    }
    inputs = [f"{i:064x}" for i in range(3)]
    declared = Trial.declare(key, claim, inputs, 2, **stated).joined(bytes(32))
    trial = declared.revealed(claim.mark_key(key)).to_bytes()

    def once(rng: random.Random) -> None:
        which = rng.randint(0, 3)
        changed = change_bytes((mark, history, shares, trial)[which], rng)
        if which == 3 and rng.randint(0, 3):  # else it is hardly ever in the form it is written in
            changed = redeclared(change_json(json.loads(trial), rng), key)
        path.write_bytes(changed)
        if which == 0:
            Mark.load(path)
        elif which == 2:
            join(path.read_bytes().decode("utf-8", "replace").split("\n"))
        elif which == 1:
            KeyHistory.load(path)
        else:
            read = Trial.from_bytes(changed)
            assert read.to_bytes() == changed
            read.check(claim)
            read.chosen()

    fuzz(once)


def test_picture_files() -> None:
    picture = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3)
    files = [cv2.imencode(suffix, picture)[1].tobytes() for suffix in sorted(SUFFIXES)]

    def once(rng: random.Random) -> None:
        read = decode_picture(change_bytes(rng.choice(files), rng), "changed")
        assert read.dtype == np.uint8 and read.ndim == 3 and read.shape[2] == 3 and read.size

    fuzz(once, 100)


@pytest.mark.usefixtures("quickly_judged")
def test_suspects_that_answer_rubbish(
    small_owner: Owned, squares: list[npt.NDArray[np.uint8]]
) -> None:
    key, claim, _ = small_owner
    dtypes = (np.uint8, np.float32, np.int16, bool, np.complex64, "U3", object)

    def rubbish(rng: random.Random) -> Any:
        shape = tuple(rng.choice((0, 1, 3, 4, 30)) for _ in range(rng.randint(0, 4)))
        if rng.randint(0, 3):
            side = 70 if rng.randint(0, 15) == 0 else 16
            shape = (rng.randint(0, side), rng.randint(0, side), 3)
        made: Any = np.zeros(shape, rng.choice(dtypes) if rng.randint(0, 2) == 0 else np.uint8)
        if made.dtype == np.uint8 and made.size:
            made[...] = np.random.default_rng(rng.randint(0, 99)).integers(0, 256, shape)
            made = made if made.ndim == 0 else made[:: rng.choice((1, -1, 2))]
        return rng.choice((made, made, made, None, "no such file", b"", 5, [made]))

    def once(rng: random.Random) -> None:
        if rng.randint(0, 1):
            verify([rubbish(rng) for _ in range(rng.randint(0, 3))], claim, key)
        else:
            verify(None, claim, key, suspect=lambda _: rubbish(rng), inputs=squares)

    fuzz(once)


def test_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grafting. What onnxruntime then says of a model takes a thousand times longer: one in 64."""
    whole = model_bytes()
    mark = Mark(_core.write_mark(bytes(16), np.zeros((_core.GAIN_ROWS, _core.TONES), np.int16)))
    opened = {"session": 0}
    really_open = grafting.open_session

    def seldom_opened(*args: Any, **options: Any) -> Any:
        opened["session"] += 1
        return really_open(*args, **options) if opened["session"] % 64 == 1 else None

    monkeypatch.setattr(grafting, "open_session", seldom_opened)
    monkeypatch.setattr(grafting, "body", functools.cache(grafting.body))

    def once(rng: random.Random) -> None:
        if rng.randint(0, 2):
            model = onnx.load_model_from_string(whole)
            for _ in range(rng.randint(1, 3)):
                change_message(model, rng)
            changed = model.SerializeToString()
        else:
            changed = change_bytes(whole, rng)
        if rng.randint(0, 63):
            keep = bool(rng.randint(0, 1))
            grafting.graft(changed, mark, picture=rng.choice((None, "y")), keep=keep)
        else:
            ImageModel(changed, threads=1)

    fuzz(once)
