"""The commands about keys, claims, customers and trials: the whole way, and what is refused."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from authority import Authority
from birthmark import cli, model_calibration, resources
from birthmark.calibration import Calibration
from birthmark.claim import Claim
from birthmark.cli import marking, shared
from birthmark.emblem import text
from birthmark.keys import OwnerKey
from conftest import pinned_marks

PASSPHRASE = "correct horse battery staple"
Run = Callable[[str], tuple[int, str, str]]
SAID: list[str] = []


@pytest.fixture(scope="module")
def work(
    tmp_path_factory: pytest.TempPathFactory,
    models_folder: Path,
    eval_photos: list[np.ndarray],
    calibration: Calibration,
) -> Path:
    """A folder with a key and its history, a claim, customers' marks and published pictures."""
    folder = tmp_path_factory.mktemp("evidence")
    (folder / "photos").mkdir()
    for i, photo in enumerate(eval_photos):
        small = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / "photos" / f"p{i}.png"), small[..., ::-1])
    (folder / "names.txt").write_text("Acme\nBolt & Co\nZo\u00eb\n")
    (folder / "broken.pem").write_text("nothing")
    model = models_folder / "espcn_x2.onnx"
    with pytest.MonkeyPatch.context() as patch, pinned_marks():
        patch.chdir(folder)
        patch.setenv(shared.PASSPHRASE_VARIABLE, PASSPHRASE)
        patch.setattr(model_calibration, "_calibrated", lambda model, outputs: calibration)
        for line in (
            "keygen -o owner.key --history keys.json",
            f"claim --key owner.key --owner Studio --model {model} --draws 2 -o claim.json",
            "provision --key owner.key --claim claim.json --customer Acme -o acme.mark",
            "provision --key owner.key --claim claim.json -o plain.mark",
            f"protect --model {model} --mark acme.mark photos -o acme",
            f"protect --model {model} --mark plain.mark photos -o published",
        ):
            assert cli.main(line.split()) == 0, line
    return folder


@pytest.fixture
def run(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(work)
    monkeypatch.setenv(shared.PASSPHRASE_VARIABLE, PASSPHRASE)

    def run_line(line: str) -> tuple[int, str, str]:
        code = cli.main(line.split())
        captured = capsys.readouterr()
        SAID.extend(captured)
        return code, captured.out, captured.err

    return run_line


OWNER = "--key owner.key --claim claim.json "
TRACE = f"trace {OWNER}--customers names.txt "


def test_trace_names_the_customer_of_pictures_and_of_a_mark_file(work: Path, run: Run) -> None:
    code, out, _ = run(TRACE + "acme --verdict acme.zip")
    assert code == 0 and "named  Acme" in out
    named = re.search(r"named  Acme  p = (\S+)  \(alone\)", out)
    judged = re.search(r"verdict  [A-Z]+, p = (\S+): of Acme alone\n", out)
    assert named and judged and named[1] == judged[1]  # both count the marks that were drawn
    code, out, _ = run(TRACE + "--mark-file acme.mark --json")
    answer = json.loads(out)
    assert code == 0 and [one["customer"] for one in answer["named"]] == ["Acme"]
    code, out, _ = run("recheck acme.zip --key owner.key --json")
    answer = json.loads(out)
    assert code == 0 and answer["customer"] == "Acme" and answer["tests_counted"] == 18
    for other in ("published", "photos"):
        code, out, _ = run(TRACE + other)
        assert code == 1 and "nobody; that does not clear anybody" in out
    assert run(TRACE + "--mark-file plain.mark")[0] == 1
    refused(run(TRACE + "acme --verdict same.zip --checkpoint same.zip"), "a file of its own")
    refused(run(TRACE + "--mark-file acme.mark --turned"), "goes without")
    assert run(f"verify {OWNER}--customer Acme acme")[0] == 0
    assert run(f"verify {OWNER}acme")[0] == 1


def test_rotated_keys_still_verify_what_is_old(work: Path, run: Run, models_folder: Path) -> None:
    shutil.copy(work / "keys.json", work / "history.json")
    code, out, _ = run("rotate --key owner.key --history history.json -o second.key")
    assert code == 0 and "follows" in out
    assert stat.S_IMODE((work / "second.key").stat().st_mode) == 0o600
    code, out, _ = run(f"verify {OWNER}published --history history.json --json")
    assert code == 0 and json.loads(out)["key in use"]
    refused(run("rotate --key owner.key --history history.json -o third.key"), "successor")
    refused(run("provision --key second.key --claim claim.json -o x"), "another key")
    assert not (work / "third.key").exists()
    code, out, _ = run("revoke --key second.key --history history.json --reason stolen")
    assert code == 0 and "revoked" in out
    refused(run("revoke --key second.key --history history.json --reason again"), "revoked")
    assert run("claim-info claim.json --history history.json")[0] == 0


def test_a_key_is_backed_up_and_restored(work: Path, run: Run) -> None:
    code, out, _ = run("backup --key owner.key --shares 5 --needed 3 -o shares")
    assert code == 0 and "3 of them" in out
    assert sorted(p.name for p in (work / "shares").iterdir()) == [f"{i}.txt" for i in range(1, 6)]
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in (work / "shares").iterdir())
    assert run("restore shares/5.txt shares/1.txt shares/2.txt -o restored.key")[0] == 0
    keys = [OwnerKey.load(work / name, PASSPHRASE) for name in ("owner.key", "restored.key")]
    assert keys[0] == keys[1]
    refused(run("restore shares/5.txt shares/1.txt -o few.key"), "3 different shares")
    refused(run("restore claim.json -o few.key"), "share")
    assert not (work / "few.key").exists()
    shutil.rmtree(work / "shares")  # they are secrets; what stays is searched for those


def test_a_new_passphrase(work: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "repassphrase --key owner.key -o new.key"
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    refused(run(line), shared.NEW_PASSPHRASE_VARIABLE)
    monkeypatch.setenv(shared.NEW_PASSPHRASE_VARIABLE, "another secret phrase")
    assert run(line)[0] == 0
    assert OwnerKey.load(work / "new.key", "another secret phrase")
    read, write = os.pipe()
    os.write(write, b"a third one\n")
    os.close(write)
    assert run(f"repassphrase --key owner.key -o third.key --new-passphrase-fd {read}")[0] == 0
    os.close(read)
    assert OwnerKey.load(work / "third.key", "a third one")
    monkeypatch.delenv(shared.NEW_PASSPHRASE_VARIABLE)
    for sent in (f"{PASSPHRASE}\r\na fourth one\nrest", f"{PASSPHRASE}\n"):
        read, write = os.pipe()
        os.write(write, sent.encode())
        os.close(write)
        name = "fourth.key" if "fourth" in sent else "no.key"
        both = f"-o {name} --passphrase-fd {read} --new-passphrase-fd {read}"
        answer = run(f"repassphrase --key owner.key {both}")
        assert os.read(read, 9) == (b"rest" if "fourth" in sent else b"")
        os.close(read)
        if "fourth" in sent:
            assert answer[0] == 0 and OwnerKey.load(work / name, "a fourth one")
        else:
            refused(answer, "the passphrase is empty")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = iter(["one", "other"])
    monkeypatch.setattr(shared.getpass, "getpass", lambda prompt: next(answers))
    refused(run("repassphrase --key owner.key -o x"), "differ")


def test_a_claim_is_stamped_and_its_stamp_checked(
    work: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = Authority(tmp_path_factory.mktemp("tsa"))
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    with authority.served() as url:
        code, out, _ = run(f"stamp --tsa {url} claim.json -o stamped.json")
    assert code == 0 and "Test-authority" in out
    assert Claim.load(work / "stamped.json").digest == Claim.load(work / "claim.json").digest
    code, out, _ = run("claim-info stamped.json")
    assert code == 0 and "NOT checked" in out
    code, out, _ = run(f"claim-info stamped.json --tsa-roots {authority.roots} --json")
    assert code == 0 and json.loads(out)["stamp"].endswith("trusted")
    line = "verify --key owner.key --claim stamped.json published --verdict s.zip --report s.html"
    assert run(f"{line} --tsa-roots {authority.roots}")[0] == 0
    assert "Test-authority" in (work / "s.html").read_text()
    code, out, _ = run(f"recheck s.zip --tsa-roots {authority.roots}")
    assert code == 0 and "trusted" in out
    refused(run(f"recheck s.zip --tsa-roots {stranger.roots}"), "no trusted authority")
    refused(run(f"claim-info claim.json --tsa-roots {authority.roots}"), "no time stamp")
    refused(run("claim-info stamped.json --tsa-roots broken.pem"), "broken.pem")
    refused(run("stamp --tsa http://127.0.0.1:9/ claim.json -o x.json"), "127.0.0.1")
    refused(run("stamp --tsa ftp://example.org/ claim.json -o x.json"), "ftp")
    assert not (work / "x.json").exists()


def test_an_expert_with_the_disclosed_key_repeats_everything(work: Path, run: Run) -> None:
    assert run(f"verify {OWNER}published --verdict v.zip")[0] == 0
    code, out, _ = run(f"disclose {OWNER}-o expert.key")
    assert code == 0 and Claim.load(work / "claim.json").commitment in out
    code, out, _ = run("recheck v.zip --claim-key expert.key --json")
    assert code == 0 and not json.loads(out)["needs_key"]
    assert json.loads(run("recheck v.zip --json")[1])["needs_key"]
    (work / "wrong.key").write_text((work / "expert.key").read_text()[:-5] + "0000\n")
    refused(run("recheck v.zip --claim-key wrong.key"), "commitment")
    refused(run("recheck v.zip --claim-key claim.json"), "disclosed")
    refused(run("recheck v.zip --claim-key expert.key --key owner.key"), "one is enough")
    (work / "expert.key").unlink()
    (work / "wrong.key").unlink()


def test_a_suspect_is_traced_in_all_orientations(run: Run, models_folder: Path) -> None:
    ask = TRACE + f"--suspect {models_folder / 'espcn_x2.onnx'} --inputs photos --json"
    answers = [run(ask), run(ask + " --turned")]
    once, turned = (json.loads(out) for code, out, _ in answers)
    assert [code for code, _, _ in answers] == [1, 1]
    assert once["named"] == turned["named"] == []
    assert once["leads"] != turned["leads"]


def test_a_registry_keeps_no_signature_of_an_address(work: Path, run: Run) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(work / "published"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/p0.png"
        code, _, error = run(f"verify {OWNER}{address}?Signature=SECRET --registry signed.db")
        server.shutdown()
    assert code in (0, 1), error
    assert f"{address}\n" in run("registry --registry signed.db")[1]
    assert b"SECRET" not in (work / "signed.db").read_bytes()


def test_a_trial_from_declaration_to_recheck(work: Path, run: Run, models_folder: Path) -> None:
    model = models_folder / "espcn_x2.onnx"
    ask = f"verify {OWNER}--suspect {model} --inputs photos "
    assert run(f"declare {OWNER}--inputs photos --queries 4 -o trial.json")[0] == 0
    code, out, _ = run("join trial.json -o joined.json")
    assert code == 0 and "keep it" in out
    code, out, _ = run(ask + "--trial joined.json --json --verdict t.zip --report t.html")
    answer = json.loads(out)
    assert code == 1 and answer["queries_declared"] == 4 == len(answer["asked"])
    assert "nonces" in (work / "t.html").read_text()
    assert run("recheck t.zip --key owner.key")[0] == 0
    refused(run(ask + f"--trial trial.json --model {model}"), "declared blind")
    refused(run(ask + "--trial claim.json"), "claim.json")
    refused(run(ask + "--trial joined.json --turned"), "asked once")
    refused(run(f"verify {OWNER}published --trial trial.json"), "go with --suspect")
    refused(run(ask + "--trial joined.json --customer Acme"), "not as the trial declared: none")
    refused(run(ask + "--trial joined.json --tests-counted 2"), "not as the trial declared: 1")
    assert run(f"declare {OWNER}--inputs photos --queries 4 --customer Acme -o acme.json")[0] == 0
    assert json.loads(run(ask + "--trial acme.json --json")[1])["customer"] == "Acme"
    trace = f"trace {OWNER}--customers names.txt --suspect {model} --inputs photos "
    refused(run(trace + "--trial joined.json"), "about one mark")
    refused(run(f"declare {OWNER}--inputs photos --queries 4 --tests-counted 0 -o x.json"), "tests")
    for seed, name in ((1, "learned.onnx"), (2, "suspect.onnx")):
        learn = f"surrogate --model {model} --student espcn --steps 2 --seed {seed} -o {name}"
        assert run(learn)[0] == 0
    ask = ask.replace(str(model), "suspect.onnx")
    beside = f"--model {model} --reference learned.onnx "
    code, out, _ = run(ask + beside + "--json --verdict r.zip")
    assert json.loads(out)["log10_p_without_references"] is not None
    assert len(json.loads(run("recheck r.zip --key owner.key --json")[1])["references"]) == 1
    declare = f"declare {OWNER}--inputs photos --queries 4 --informed --reference learned.onnx "
    assert run(declare + "-o beside.json")[0] == 0
    code, out, _ = run(ask + beside + "--trial beside.json")
    assert code == 1 and "references  1; without them p = " in out
    refused(run(ask + f"--model {model} --trial beside.json"), "references are not those")
    refused(run(ask + "--reference learned.onnx"), "goes with --model")
    refused(run(f"surrogate --model {model} --outputs photos -o x.onnx"), "either")
    refused(run("surrogate --outputs photos -o x.onnx"), "either")
    refused(run("join joined.json -o x.json"), "before")
    refused(run("join trial.json --nonce xyz -o x.json"), "hex")
    refused(run("join trial.json --nonce ab -o x.json"), "32 bytes")
    refused(run(f"declare {OWNER}--inputs photos --queries 99 -o x.json"), "queries")
    refused(run(f"verify {OWNER}--suspect {model} --inputs stale"), "stale")
    (work / "stale").mkdir()
    for name in ("p0.png", "p1.png"):
        shutil.copy(work / "published" / name, work / "stale" / name)
    refused(run(f"verify {OWNER}--suspect {model} --inputs stale"), "carries the mark itself")


def refused(result: tuple[int, str, str], word: str) -> None:
    code, out, error = result
    *progress, last = error.splitlines()
    assert all(line.startswith(("measuring: ", "customers: ")) for line in progress)
    assert code == 2 and out == "" and last.startswith("birthmark: error: ")
    assert word in last and PASSPHRASE not in error


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("keygen -o new2.key --history claim.json", "exists"),
        ("rotate --key owner.key --history claim.json -o x", "key history"),
        ("rotate --key owner.key --history keys.json -o owner.key", "exists"),
        ("revoke --key owner.key --history missing --reason r", "missing"),
        ("backup --key owner.key --shares 2 --needed 3 -o x", "3 of 2"),
        ("backup --key owner.key --shares 3 --needed 2 -o photos", "not empty"),
        ("restore missing.txt -o x", "missing.txt"),
        ("stamp --tsa http://x/ missing.json -o x", "missing.json"),
        ("claim-info owner.key", "claim"),
        (f"disclose {OWNER}-o claim.json", "exists"),
        (TRACE, "either"),
        (TRACE + "acme --mark-file acme.mark", "--mark-file"),
        (TRACE + "--mark-file claim.json", "mark file"),
        (TRACE + "acme --false-positive-rate 2", "rate"),
        (f"trace {OWNER}--customers missing.txt acme", "missing.txt"),
        (f"trace {OWNER}--customers acme.mark acme", "UTF-8"),
        ("provision --key owner.key --claim claim.json --customer \t -o x", "one line of text"),
        (f"verify {OWNER}acme --tests-counted 0", "at least one test"),
        (f"verify {OWNER}acme --history claim.json", "key history"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    work: Path, run: Run, monkeypatch: pytest.MonkeyPatch, line: str, word: str
) -> None:
    before = sorted(p.name for p in work.iterdir())
    if "\t" in line:
        head, _, tail = line.partition("\t")
        code = cli.main([*head.split(), " ", *tail.split()])
        assert code == 2
    else:
        refused(run(line), word)
    assert sorted(p.name for p in work.iterdir()) == before


def test_a_file_that_is_named_twice_is_said(tmp_path: Path) -> None:
    same, other = str(tmp_path / "same"), str(tmp_path / "other")
    for paths, kept in (((same, same, other), None), ((same, None, other), same)):
        with pytest.raises(ValueError, match="same: named for two things"):
            shared.new_files(*paths, kept=kept)
    shared.new_files(same, None, other, kept=str(tmp_path / "third"))


@pytest.mark.parametrize("command", ["embed", "protect"])
def test_resume_goes_on_with_what_failed(
    work: Path, run: Run, models_folder: Path, tmp_path: Path, command: str
) -> None:
    model = f"--model {models_folder / 'espcn_x2.onnx'} " if command == "protect" else ""
    given, output = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    shutil.copy(work / "photos" / "p0.png", given)
    (given / "p1.png").write_bytes(b"")
    line = f"{command} {model}--mark plain.mark {given} -o"
    for _ in range(2):
        code, _, error = run(f"{line} {output} --resume")
        assert code == 2 and "1 of 2 published; left out: " in error and "p1.png" in error
    shutil.copy(work / "photos" / "p1.png", given)
    code, out, _ = run(f"{line} {output} --resume --json")
    assert code == 0 and json.loads(out)["pictures"] == 2
    assert run(f"{line} {tmp_path / 'whole'}")[0] == 0
    made, whole = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (output, tmp_path / "whole")
    )
    assert made == whole
    code, _, error = run(f"{line} {output} --resume")
    assert code == 2 and "not of a run that was interrupted" in error


def test_secrets_are_in_nothing_that_was_printed_or_written(work: Path, run: Run) -> None:
    """After all of the above: in no output, and in no file but key files, which are encrypted."""
    assert SAID and (work / "t.zip").exists()
    owner = OwnerKey.load(work / "owner.key", PASSPHRASE)
    claim = Claim.load(work / "claim.json")
    mark = claim.mark_key(owner)
    secrets = [owner._secret, owner._signer.private_bytes_raw(), claim.claim_key(owner)._secret]
    secrets += [mark._secret, mark.customer("Acme")._secret, PASSPHRASE.encode()]
    everything = {"what was printed": "\n".join(SAID).encode()}
    everything |= {p.name: p.read_bytes() for p in work.rglob("*") if p.is_file()}
    for name, data in everything.items():
        for secret in secrets:
            for spelling in (
                secret,
                secret.hex().encode(),
                secret.hex().upper().encode(),
                base64.b64encode(secret)[:40],
                base64.b32encode(secret)[:40],
                repr(secret).encode()[2:-1],
            ):
                assert spelling not in data, name
    assert b"Acme" not in (work / "acme.mark").read_bytes()


def test_prints_the_emblem_of_a_claim(work: Path, run: Run) -> None:
    emblem = Claim.load(work / "claim.json").emblem
    code, out, _ = run("claim-info claim.json")
    assert code == 0 and all(line.rstrip() in out for line in text(emblem))
    assert json.loads(run("claim-info claim.json --json")[1])["emblem"] == emblem


def test_a_claim_says_what_its_emblem_is_drawn_from(
    work: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(key, owner, model, path, inputs, *, draws, **stated):
        return Claim.create(key, owner, path, b"c", **stated)

    monkeypatch.setattr(marking, "claim_model", quick)
    model = work / "model.onnx"
    shutil.copy(resources.models_folder() / "espcn_x2.onnx", model)
    bar = np.full((80, 80, 3), 255, np.uint8)
    bar[20:60, 30:50] = 0
    flat = np.full_like(bar, 9)
    for name, picture, source in (("bar", bar, "logo"), ("flat", flat, "public key")):
        cv2.imwrite(str(work / f"{name}.png"), picture)
        files = f"--model model.onnx --logo {name}.png -o {name}.json"
        code, out, _ = run(f"claim --key owner.key --owner A {files}")
        assert code == 0 and f"drawn from the {source}" in out
        drawn = Claim.load(work / f"{name}.json").emblem
        assert f"emblem {drawn}" in out and all(row.rstrip() in out for row in text(drawn))
    assert Claim.load(work / "bar.json").emblem == "33333333"


def test_verify_shows_claimed_and_restored(run: Run) -> None:
    _, out, _ = run("verify --key owner.key --claim claim.json photos --json")
    facts = json.loads(out)
    assert facts["payload"] is None and facts["payload_guess"] != facts["emblem"]
    _, out, _ = run("verify --key owner.key --claim claim.json photos")
    assert "likeliest is noise" in out and "restored  " not in out
    rows = zip(text(facts["emblem"]), text(facts["payload_guess"]), strict=True)
    assert all(f"{left}    {right}".rstrip() in out for left, right in rows)
