"""Engines and URLs: whoever works, wherever the pictures lie, the bytes and the verdict are one."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dying
from birthmark import cli, engine
from birthmark.bundle import recheck
from birthmark.claim import Claim
from birthmark.cli import shared
from birthmark.engine import Engine, Here, open_engine
from birthmark.errors import (
    EngineFailed,
    InvalidModel,
    InvalidPicture,
    MissingLibrary,
    OutputExists,
)
from birthmark.keys import OwnerKey
from birthmark.mark import provision
from birthmark.pictures import Picture, encode_png, read_picture, write_png
from birthmark.publish import UNFINISHED, publish
from birthmark.remote import RemotePath
from birthmark.suspects import SuspectPictures, name_of
from birthmark.verdict import Verdict, verify
from conftest import Published, half_size
from dying import Dying
from test_suspects import write_video

PASSPHRASE = "correct horse battery staple"
BUCKET = "s3://pictures"


@pytest.fixture(scope="module")
def s3() -> Iterator[RemotePath]:
    """A bucket of an S3 server on this machine."""
    pytest.importorskip("s3fs", reason="needs birthmark[scale]")
    moto = pytest.importorskip("moto.server", reason="needs moto[s3] and flask")
    import fsspec

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line a request
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3", use_listings_cache=False).mkdir(BUCKET.removeprefix("s3://"))
        yield RemotePath(BUCKET)
    server.stop()


@pytest.fixture(scope="module")
def address(s3: RemotePath) -> Iterator[str]:
    """The scheduler of three worker processes."""
    distributed = pytest.importorskip("distributed", reason="needs birthmark[scale]")
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=100
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def workers(address: str) -> Iterator[Engine]:
    with open_engine(address) as opened:
        yield opened


@pytest.fixture
def dying_workers(workers: Engine, tmp_path: Path) -> Iterator[Dying]:
    """The same; two of them die, each in the middle of a task."""
    (tmp_path / "graves").mkdir()
    mortal = Dying(workers, tmp_path / "graves", deaths=2)
    yield mortal
    assert len(list(mortal.graves.iterdir())) == 2


def crops(pictures: list[Picture], side: int = 192) -> list[Picture]:
    """Four of each picture."""
    return [
        np.ascontiguousarray(p[y : y + side, x : x + side])
        for p in pictures
        for y in (0, p.shape[0] - side)
        for x in (0, p.shape[1] - side)
    ]


@pytest.fixture(scope="module")
def case(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of suspect pictures with all that may be wrong in it."""
    folder: Path = tmp_path_factory.mktemp("case")
    marked = crops(published.marked)
    for i, picture in enumerate(marked[:24]):
        write_png(folder / f"{i:02}.png", picture)
    shutil.copy(folder / "00.png", folder / "11 again.png")
    (folder / "12 broken.png").write_bytes((folder / "12.png").read_bytes()[:5000])
    (folder / "notes.txt").write_text("no picture")
    write_video(folder / "film.avi", 20)
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        for i, picture in enumerate(marked[22:]):
            archive.writestr(f"m{i}.png", encode_png(picture))
    return folder


def essence(verdict: Verdict, prefix: str = "") -> tuple[Any, ...]:
    """All of a verdict but when it was given, and where its pictures lay."""
    stated = json.dumps({**verdict.summary(), "created": ""}).replace(prefix or "\0", "")
    sums = [p.sums.tobytes() for p in verdict.measured.pool.pictures]
    return stated, sums, verdict.estimate.tobytes()


def upload(folder: Path, to: RemotePath) -> RemotePath:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def content(folder: Path | RemotePath) -> dict[str, bytes]:
    if isinstance(folder, RemotePath):
        return {path.name: path.read_bytes(1 << 20) for path, _ in folder.entries()}
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 300])
def test_all_results_in_the_items_order(workers: Engine, count: int) -> None:
    wanted = list(Here().map(dying.squares, range(count)))
    assert wanted == [x * x for x in range(count) for _ in range(x % 3)]
    assert list(workers.map(dying.squares, range(count))) == wanted


def test_what_work_refuses_is_raised_and_the_rest_is_dropped(workers: Engine) -> None:
    for opened in (Here(), workers):
        given = opened.map(dying.refuse_seven, iter(range(10**9)))
        with pytest.raises(InvalidPicture, match="seven"):
            list(given)
    assert list(workers.map(dying.squares, range(9))) == list(Here().map(dying.squares, range(9)))


def test_an_item_that_kills_every_worker_ends_the_run(workers: Engine) -> None:
    with pytest.raises(EngineFailed, match="workers died over the same"):
        list(workers.map(dying.kill_the_worker, [1]))
    assert list(workers.map(dying.squares, [5])) == [25, 25]


def test_the_verdict_is_the_same_when_workers_die(
    session_claim: tuple[OwnerKey, Claim, Any],
    published: Published,
    case: Path,
    dying_workers: Dying,
) -> None:
    key, claim, _ = session_claim
    given = [case, case / "more.zip", published.marked[0]]
    seen: list[tuple[int, int]] = []
    alone = verify(given, claim, key)
    together = verify(
        given,
        claim,
        key,
        engine=dying_workers,
        progress=lambda done, total, name: seen.append((done, total)),
    )
    assert essence(together) == essence(alone)
    reasons = {Path(name).name: reason for name, reason in alone.rejected}
    assert {"11 again.png", "12 broken.png", "notes.txt"} <= reasons.keys()
    assert sum("counted once" in reason for reason in reasons.values()) == 3
    assert seen[-1][0] == seen[-1][1] == len(seen) == alone.pictures + len(alone.rejected)


def test_a_bucket_gives_the_verdict_of_a_folder(
    session_claim: tuple[OwnerKey, Claim, Any], case: Path, s3: RemotePath, dying_workers: Dying
) -> None:
    key, claim, _ = session_claim
    there = upload(case, s3 / "case")
    local = verify([case, case / "more.zip"], claim, key)
    for opened in (Here(), dying_workers):
        remote = verify([there, there / "more.zip"], claim, key, engine=opened)
        assert essence(remote, f"{there}/") == essence(local, f"{case}/")


def test_what_a_bucket_holds_is_found(case: Path, s3: RemotePath) -> None:
    there = upload(case, s3 / "found")
    (there / "deep" / "er.png").write_bytes((case / "01.png").read_bytes())
    names = [p.name for p in SuspectPictures([f"{there}/1*.png", there / "**/*.png", there])]
    assert names[:3] == [f"{there}/10.png", f"{there}/11 again.png", f"{there}/11.png"]
    assert f"{there}/deep/er.png" in names
    assert [n for n in names if "film" in n] == [f"{there}/film.avi: frame {i}" for i in (0, 10)]
    assert len(names) == len(set(names))
    left_out = {"deep", "more.zip", "notes.txt"}
    assert {n.removeprefix(f"{there}/") for n in names[-3:]} == left_out


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"{BUCKET}/nothing/here.png", "no such file or folder"),
        ("s3://nobody/x.png", "no such file or folder"),
        (f"{BUCKET}/nothing/*.png", "no file matches"),
        ("zzz://x/y.png", "zzz"),
        ("s3://me:secret@pictures/y.png", "a user or password"),
    ],
)
def test_a_url_that_cannot_be_read_is_one_line(
    url: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = str(tmp_path / "no.mark")
    assert cli.main(["embed", "--mark", mark, url, "-o", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("birthmark: error: ") and error.count("\n") == 1
    assert "secret" not in error and (why in error or "no.mark" in error)


@pytest.mark.usefixtures("s3")
def test_a_store_that_does_not_answer_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()  # they keep their connections
    with pytest.raises(OSError, match="connect") as caught:
        RemotePath("s3://elsewhere/x.png").read_bytes(10)
    assert caught.value.filename == "s3://elsewhere/x.png"
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_signed_address_is_not_shown() -> None:
    signed = RemotePath("https://host.example/folder/a.png?Signature=secret")
    assert (signed.name, signed.stem, signed.suffix) == ("a.png", "a", ".png")
    assert name_of(signed) == "https://host.example/folder/a.png"


def test_a_reason_does_not_show_what_signs_a_request() -> None:
    signed = RemotePath("http://127.0.0.1:9/b.jpg?X-Amz-Signature=SECRETSIG")
    with pytest.raises((OSError, MissingLibrary)) as refused:
        signed.read_bytes(1000)
    shown = f"{refused.value} {refused.value!r} {getattr(refused.value, 'filename', '')}"
    assert "127.0.0.1:9/b.jpg" in shown and "SECRETSIG" not in shown


def test_files_at_urls_are_read_up_to_a_size(s3: RemotePath) -> None:
    (s3 / "large").write_bytes(bytes(11))
    assert (s3 / "large").read_bytes(11) == bytes(11)
    with pytest.raises(OSError, match="large"):
        (s3 / "large").read_bytes(10)
    (s3 / "large").unlink()
    assert not (s3 / "large").exists()


@pytest.fixture(scope="module")
def inputs(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("inputs")
    for i, picture in enumerate(crops(half_size(published.plain), 96)[:20]):
        write_png(folder / f"{i:02}.png", picture)
    return folder


def test_published_bytes_are_the_same_when_workers_die(
    session_claim: tuple[OwnerKey, Claim, Any],
    models_folder: Path,
    inputs: Path,
    s3: RemotePath,
    dying_workers: Dying,
    tmp_path: Path,
) -> None:
    key, claim, _ = session_claim
    mark = provision(key, claim)
    model = models_folder / "espcn_x2.onnx"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    publish([inputs], tmp_path / "here", mark, model=model, threads=1)
    wanted = content(tmp_path / "here")
    assert len(wanted) == 20
    shares = {"mark": mark, "model": model, "threads": 1, "engine": dying_workers}
    done = publish([inputs, broken], tmp_path / "there", **shares)
    assert (done.done, len(done.failed)) == (20, 1) and "empty file" in done.failed[0]
    assert content(tmp_path / "there") == wanted
    publish([upload(inputs, s3 / "inputs")], s3 / "published", **shares)
    assert content(s3 / "published") == wanted


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_an_interrupted_run_goes_on(
    where: str,
    session_claim: tuple[OwnerKey, Claim, Any],
    other_claim: tuple[OwnerKey, Claim],
    inputs: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    key, claim, _ = session_claim
    mark, other = provision(key, claim), provision(*other_claim)
    output: Path | RemotePath = tmp_path / "out"
    if where == "bucket":
        output = request.getfixturevalue("s3") / "out"
    seen: list[str] = []

    def interrupt(done: int, total: int, name: str) -> None:
        assert total == 20
        seen.append(name)
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish([inputs], output, mark, resume=True, progress=interrupt)
    assert len(content(output)) == 9 and UNFINISHED in content(output)
    if isinstance(output, Path):  # a process that was killed while it wrote
        (output / ".birthmark-0123456789abcdef.tmp").write_bytes(b"half")
    for refused in ({"mark": other, "resume": True}, {"mark": mark}):
        with pytest.raises(OutputExists):
            publish([inputs], output, **refused)
    others = tmp_path / "others"  # of the same names
    shutil.copytree(inputs, others)
    with pytest.raises(OutputExists, match="or inputs"):
        publish([others], output, mark, resume=True)
    again: list[str] = []
    done = publish(
        [inputs], output, mark, resume=True, progress=lambda _, total, name: again.append(name)
    )
    assert done.done == 20 and not done.failed
    assert len(seen) == 8 and len(again) == 12 and not set(seen) & set(again)
    publish([inputs], tmp_path / "whole", mark)
    assert content(output) == content(tmp_path / "whole")
    with pytest.raises(OutputExists, match="not of a run that was interrupted"):
        publish([inputs], output, mark, resume=True)


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_what_failed_is_mended_and_done_by_a_later_run(
    where: str,
    session_claim: tuple[OwnerKey, Claim, Any],
    inputs: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    mark = provision(*session_claim[:2])
    output = tmp_path / "out" if where == "folder" else request.getfixturevalue("s3") / "mended"
    first, second = tmp_path / "00.png", tmp_path / "01.png"
    names: list[str] = []

    def again() -> int:
        files, names[:] = [first, second], []
        publish(files, output, mark, resume=True, progress=lambda *said: names.append(said[2]))
        return len(names)

    for file in (first, second):
        file.write_bytes(b"")
    for _ in range(2):  # though nothing is there yet
        with pytest.raises(InvalidPicture, match="none of 2"):
            again()
    shutil.copy(inputs / first.name, first)
    for tried in (2, 1):
        assert again() == tried
        assert set(content(output)) == {first.name, UNFINISHED}
    shutil.copy(inputs / second.name, second)
    time_ns = first.stat().st_mtime_ns
    os.utime(first, ns=(0, 0))
    with pytest.raises(OutputExists, match="or inputs"):  # of this one there is an output already
        again()
    os.utime(first, ns=(time_ns, time_ns))
    assert again() == 1 and names[0].endswith(second.name)
    publish([first, second], tmp_path / "whole", mark)
    assert content(output) == content(tmp_path / "whole")


def test_a_worker_with_another_model_refuses(
    session_claim: tuple[OwnerKey, Claim, Any],
    models_folder: Path,
    inputs: Path,
    workers: Engine,
    tmp_path: Path,
) -> None:
    key, claim, _ = session_claim
    model = tmp_path / "model.onnx"
    shutil.copy(models_folder / "espcn_x2.onnx", model)

    class Late:
        def map(self, work: Any, items: Any) -> Any:
            shutil.copy(models_folder / "denoise_small.onnx", model)
            return workers.map(work, items)

    with pytest.raises(InvalidModel, match="another model"):
        publish([inputs], tmp_path / "x", provision(key, claim), model=model, engine=Late())
    assert not (tmp_path / "x").exists()


def test_workers_of_another_version_are_refused(
    workers: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "extractor_sha256", lambda: "0" * 64)
    with pytest.raises(EngineFailed, match="another version"):
        list(workers.map(dying.squares, [1]))


def test_the_commands_on_buckets_and_workers(
    session_claim: tuple[OwnerKey, Claim, Any],
    case: Path,
    s3: RemotePath,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, claim, _ = session_claim
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(shared.PASSPHRASE_VARIABLE, PASSPHRASE)
    key.save("owner.key", PASSPHRASE)
    claim.save("claim.json")
    provision(key, claim).save("m.mark")
    (tmp_path / "given").mkdir()
    for i in range(4):
        shutil.copy(case / f"{i:02}.png", tmp_path / "given")
    there = upload(tmp_path / "given", s3 / "given")

    def run(line: str) -> dict[str, Any]:
        cli.main([*line.split(), "--json"])
        captured = capsys.readouterr()
        assert "error" not in captured.err, captured.err
        answer: dict[str, Any] = json.loads(captured.out)
        return answer

    run("embed --mark m.mark given -o local")
    said = run(f"embed --mark m.mark {there} -o {s3}/marked --engine dask --workers 2")
    assert said == {"output": f"{s3}/marked", "pictures": 4}
    assert content(s3 / "marked") == content(tmp_path / "local")
    verify_line = "verify --key owner.key --claim claim.json "
    alone = run(verify_line + "local")
    files = f"--verdict {s3}/v.zip --report {s3}/r.html"
    both = run(verify_line + f"{s3}/marked --engine dask --workers 2 {files}")
    for answer in (alone, both):
        del answer["created"]
        for entry in answer["evidence"]:
            entry["name"] = entry["name"].rpartition("/")[2]
    assert both == alone
    (tmp_path / "v.zip").write_bytes((s3 / "v.zip").read_bytes(1 << 24))
    assert recheck("v.zip", key).summary["log10_p"] == alone["log10_p"]
    assert (s3 / "r.html").read_bytes(1 << 24).startswith(b"<!doctype html>")
    with pytest.raises(AssertionError, match="exists"):
        run(verify_line + f"{s3}/marked --verdict {s3}/v.zip")


def test_asking_a_suspect_takes_no_engine(capsys: Any) -> None:
    line = "verify --key k --claim c --suspect S.onnx --inputs x --engine dask"
    assert cli.main(line.split()) == 2
    assert "--engine" in capsys.readouterr().err


def test_engines_that_are_none() -> None:
    with pytest.raises(ValueError, match="ray"), open_engine("ray"):
        pass


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs birthmark[scale]")
    monkeypatch.setattr(engine, "_ANSWER_WITHIN_S", 0.5)
    with pytest.raises(EngineFailed, match="no scheduler answers"), open_engine("tcp://[::1]:9"):
        pass


def test_without_the_libraries_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("distributed", "fsspec"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingLibrary, match=r"birthmark\[scale\]"), open_engine("dask"):
        pass
    with pytest.raises(MissingLibrary, match=r"birthmark\[scale\]"):
        read_picture("s3://pictures/x.png")
