"""The command line: the whole way, and one clear line for everything that is wrong."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from birthmark import cli, model_calibration
from birthmark.calibration import Calibration
from birthmark.cli import shared

ROOT = Path(__file__).resolve().parent.parent
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="module")
def work(
    tmp_path_factory: pytest.TempPathFactory,
    models_folder: Path,
    eval_photos: list[np.ndarray],
    calibration: Calibration,
) -> Path:
    """A folder in which key, claim and mark were made by the commands themselves."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "photos").mkdir()
    for i, photo in enumerate(eval_photos[:4]):
        small = cv2.resize(photo, (240, 160), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / "photos" / f"p{i}.png"), small[..., ::-1])
    logo = np.zeros((16, 16, 3), np.uint8)
    logo[4:12, 4:12] = 255
    cv2.imwrite(str(folder / "logo.png"), logo)
    patch = pytest.MonkeyPatch()
    patch.setenv(shared.PASSPHRASE_VARIABLE, PASSPHRASE)
    # The calibration itself is measured in test_calibration; here it need not be made again.
    patch.setattr(model_calibration, "_calibrated", lambda model, outputs: calibration)
    model = models_folder / "espcn_x2.onnx"
    for line in (
        "keygen -o owner.key",
        f"claim --key owner.key --owner Studio --model {model} --logo logo.png --draws 2"
        " -o claim.json",
        "provision --key owner.key --claim claim.json -o m.mark",
        f"protect --model {model} --mark m.mark photos -o published",
    ):
        with pytest.MonkeyPatch.context() as inside:
            inside.chdir(folder)
            assert cli.main(line.split()) == 0, line
    patch.undo()
    return folder


@pytest.fixture
def run(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str, str]]:
    """Run a command line in the folder; returns exit code, standard output and error."""
    monkeypatch.chdir(work)
    monkeypatch.setenv(shared.PASSPHRASE_VARIABLE, PASSPHRASE)

    def run_line(line: str) -> tuple[int, str, str]:
        code = cli.main(line.split())
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_line


VERIFY = "verify --key owner.key --claim claim.json "


def test_key_file_is_private(work: Path) -> None:
    assert stat.S_IMODE((work / "owner.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((work / "m.mark").stat().st_mode) == 0o600


def test_published_pictures_have_the_same_stems_and_keep_42_db(work: Path, run) -> None:
    assert sorted(p.name for p in (work / "published").iterdir()) == [f"p{i}.png" for i in range(4)]


def test_verify_prints_json_and_writes_what_was_asked(work: Path, run) -> None:
    code, out, _ = run(VERIFY + "published --json --report r.html --verdict v.zip")
    answer = json.loads(out)
    keys = {"decision", "p_value", "log10_p", "pictures", "payload", "emblem", "tests_counted"}
    assert keys <= set(answer)
    assert answer["pictures"] == 4
    assert code == (0 if answer["decision"] == "MARKED" else 1)
    report = (work / "r.html").read_text()
    assert report.startswith("<!doctype html>")
    assert "<code>birthmark recheck v.zip</code>" in report
    assert report.count("<figcaption>published/p") == 3
    code, out, _ = run("recheck v.zip --json")
    assert code == 0
    assert json.loads(out)["decision"] == answer["decision"]
    assert run("recheck v.zip --key owner.key")[0] == 0


def test_unmarked_pictures_exit_with_1(run) -> None:
    code, out, _ = run(VERIFY + "photos")
    assert code == 1
    assert "MARKED" in out


def test_embed_marks_pictures_that_exist(work: Path, run) -> None:
    assert run("embed --mark m.mark photos -o embedded --kernel scalar")[0] == 0
    for i in range(4):
        before = cv2.imread(str(work / "photos" / f"p{i}.png")).astype(int)
        after = cv2.imread(str(work / "embedded" / f"p{i}.png")).astype(int)
        assert 0 < np.abs(after - before).max() <= 2


def test_surrogate_and_suspect(work: Path, run, models_folder: Path) -> None:
    steal = "surrogate --inputs photos --outputs published --student cnn --steps 5 -o S.onnx"
    assert run(steal)[0] == 0
    code, out, _ = run(VERIFY + "--suspect S.onnx --inputs photos --json")
    assert code == 1
    once = json.loads(out)
    assert once["mode"] == "blind" and not once["turned"]
    _, out, _ = run(VERIFY + "--suspect S.onnx --inputs photos --turned --json")
    turned = json.loads(out)
    assert turned["turned"] and turned["decision"] != "MARKED"
    refused(run(VERIFY + "published --turned"), "--suspect")
    model = models_folder / "espcn_x2.onnx"
    _, out, _ = run(
        VERIFY + f"--suspect S.onnx --inputs photos --model {model} --report informed.html --json"
    )
    assert json.loads(out)["mode"] == "informed"
    report = (work / "informed.html").read_text()
    assert report.count("the suspect&#x27;s answer</figcaption>") == 2
    assert report.count("less that of the owner&#x27;s model, 20 times</figcaption>") == 2


def test_passphrase_from_a_descriptor(work: Path, run, monkeypatch) -> None:
    monkeypatch.delenv(shared.PASSPHRASE_VARIABLE)
    read, write = os.pipe()
    os.write(write, PASSPHRASE.encode() + b"\n")
    os.close(write)
    code, _, _ = run(
        f"provision --key owner.key --claim claim.json -o fd.mark --passphrase-fd {read}"
    )
    os.close(read)
    assert code == 0
    assert (work / "fd.mark").read_bytes() == (work / "m.mark").read_bytes()
    read, write = os.pipe()
    os.write(write, b"pass\xe9word\n")
    os.close(write)
    answer = run(f"provision --key owner.key --claim claim.json -o no.mark --passphrase-fd {read}")
    os.close(read)
    refused(answer, "not UTF-8")
    assert "xe9" not in answer[2]


def refused(result: tuple[int, str, str], word: str) -> None:
    code, out, error = result
    assert code == 2
    assert out == ""
    assert error.startswith("birthmark: error: ")
    assert error.count("\n") == 1
    assert word in error
    assert PASSPHRASE not in error


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("keygen -o owner.key", "exists"),
        ("keygen -o nowhere/owner.key", "nowhere"),
        ("claim --key owner.key --owner X --model x.onnx -o claim.json", "exists"),
        ("claim --key owner.key --owner X --model x.onnx -o x", "x.onnx"),
        ("claim --key owner.key --owner X --model photos --logo photos -o x", "photos"),
        ("provision --key owner.key --claim claim.json -o m.mark", "exists"),
        ("provision --key missing.key --claim claim.json -o x", "missing.key"),
        ("provision --key claim.json --claim claim.json -o x", "key file"),
        ("provision --key owner.key --claim owner.key -o x", "claim"),
        ("protect --model claim.json --mark m.mark photos -o x", "claim"),
        ("embed --mark claim.json photos -o x", "mark file"),
        ("embed --mark m.mark nowhere -o x", "nowhere"),
        ("embed --mark m.mark photos -o published", "not empty"),
        ("embed --mark m.mark photos -o x --kernel sse9", "kernel"),
        ("embed --mark m.mark photos/p0.png published/p0.png -o x", "stem"),
        (VERIFY + "nowhere", "nowhere"),
        (VERIFY + "photos --suspect S --inputs photos", "either"),
        (VERIFY + "--suspect S.onnx", "--inputs"),
        (VERIFY + "--suspect claim.json --inputs photos", "claim"),
        (VERIFY + "photos --false-positive-rate 2", "false-positive"),
        (VERIFY + "photos --report claim.json", "exists"),
        (VERIFY + "photos --verdict nowhere/v.zip", "nowhere"),
        ("recheck claim.json", "bundle"),
        ("recheck nowhere.zip", "nowhere.zip"),
        ("surrogate --inputs photos --outputs nowhere -o x", "nowhere"),
        ("surrogate --inputs photos --outputs published --student vgg -o x", "vgg"),
        ("surrogate --inputs photos --outputs published --steps 0 -o x", "steps"),
        ("surrogate --inputs photos --outputs published --loss hinge -o x", "hinge"),
        ("surrogate --inputs photos --outputs published -o claim.json", "exists"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(work: Path, run, line: str, word: str) -> None:
    before = sorted(p.name for p in work.iterdir())
    refused(run(line), word)
    assert sorted(p.name for p in work.iterdir()) == before


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "COMMAND"),
        ("keygne", "keygne"),
        ("keygen", "--output"),
        ("surrogate --inputs a --outputs b --steps many -o x", "many"),
        ("protect --model m --mark m --threads -1 photos -o x", "-1"),
        (VERIFY + "photos --false-positive-rate rarely", "rarely"),
    ],
)
def test_a_wrong_option_is_one_line(
    line: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(line.split())
    captured = capsys.readouterr()
    refused((int(str(stop.value.code)), captured.out, captured.err), word)


def test_passphrase_is_asked_for_twice_when_made(work: Path, run, monkeypatch) -> None:
    monkeypatch.delenv(shared.PASSPHRASE_VARIABLE)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = iter(["one", "another", "same", "same", "same"])
    monkeypatch.setattr(shared.getpass, "getpass", lambda prompt: next(answers))
    refused(run("keygen -o typed.key"), "differ")
    assert run("keygen -o typed.key")[0] == 0
    refused(run("provision --key typed.key --claim claim.json -o x"), "another key")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    refused(run("keygen -o x"), shared.PASSPHRASE_VARIABLE)
    (work / "typed.key").unlink()


def test_an_interrupted_command_leaves_nothing(work: Path, run, monkeypatch) -> None:
    from birthmark import publish

    written: list[Path] = []

    def stop_at_the_third(path: Path, picture: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        path.write_bytes(b"picture")

    monkeypatch.setattr(publish, "write_png", stop_at_the_third)
    before = sorted(p.name for p in work.iterdir())
    code, out, error = run("embed --mark m.mark photos -o stopped")
    assert (code, out, error) == (130, "", "\nbirthmark: interrupted\n")
    assert len(written) == 2
    assert sorted(p.name for p in work.iterdir()) == before


def test_an_empty_folder_is_taken_and_kept_empty_on_failure(work: Path, run) -> None:
    (work / "waiting").mkdir()
    (work / "broken.png").write_bytes(b"nothing")
    refused(run("embed --mark m.mark broken.png -o waiting"), "none of 1")
    assert list((work / "waiting").iterdir()) == []
    assert run("embed --mark m.mark photos/p0.png -o waiting")[0] == 0
    assert [p.name for p in (work / "waiting").iterdir()] == ["p0.png"]
    (work / "broken.png").unlink()


def test_hostile_names_reach_no_terminal(work: Path, run) -> None:
    (work / "evil").mkdir()
    (work / "evil" / "\x1b[31mred\n.png").write_bytes(b"nothing")
    (work / "evil" / "p0.png").write_bytes((work / "published" / "p0.png").read_bytes())
    _, out, _ = run(VERIFY + "evil")
    assert "\x1b" not in out and "?[31mred" in out
    _, _, error = run("embed --mark m.mark evil -o x")
    assert "\x1b" not in error and error.count("\n") == 1
    assert [p.name for p in (work / "x").iterdir()] == ["p0.png"]
    shutil.rmtree(work / "x")


@pytest.mark.parametrize("command", ["embed --mark m.mark {} -o x", VERIFY + "{}"])
@pytest.mark.parametrize("damaged", ["damaged.png", "damaged.mp4"])
def test_nothing_but_the_one_line_is_printed_by_the_libraries(
    work: Path, command: str, damaged: str
) -> None:
    """In a process of its own: libpng, FFmpeg and onnxruntime write past Python's streams."""
    png = (work / "published" / "p0.png").read_bytes()
    (work / "damaged.png").write_bytes(png[:400] + bytes([png[400] ^ 255]) + png[401:])
    (work / "damaged.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + png)
    done = subprocess.run(
        [sys.executable, "-m", "birthmark", *command.format(damaged).split()],
        cwd=work,
        env={**os.environ, shared.PASSPHRASE_VARIABLE: PASSPHRASE},
        capture_output=True,
        text=True,
        check=False,
    )
    word = damaged if command.startswith("embed") else "no picture could be used"
    refused((done.returncode, done.stdout, done.stderr), word)
    (work / "damaged.png").unlink()
    (work / "damaged.mp4").unlink()


def test_wrong_passphrase(run, monkeypatch) -> None:
    monkeypatch.setenv(shared.PASSPHRASE_VARIABLE, "wrong")
    refused(run("provision --key owner.key --claim claim.json -o x"), "passphrase")


def test_tampered_claim_and_mark(work: Path, run) -> None:
    claim = (work / "claim.json").read_text()
    (work / "tampered.json").write_text(claim.replace("Studio", "Thief!"))
    refused(run("provision --key owner.key --claim tampered.json -o x"), "changed")
    (work / "short.mark").write_bytes((work / "m.mark").read_bytes()[:-5])
    refused(run("embed --mark short.mark photos -o x"), "truncated")


def test_a_corrupt_picture_is_named_and_the_rest_goes_on(work: Path, run) -> None:
    (work / "mixed").mkdir(exist_ok=True)
    (work / "mixed" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    for i in range(4):
        data = (work / "published" / f"p{i}.png").read_bytes()
        (work / "mixed" / f"p{i}.png").write_bytes(data)
    code, out, _ = run(VERIFY + "mixed --json")
    answer = json.loads(out)
    assert code in (0, 1)
    assert answer["pictures"] == 4
    assert "broken.png" in answer["rejected"][0][0]
    refused(run("embed --mark m.mark mixed -o rest"), "broken.png")
    assert len(list((work / "rest").iterdir())) == 4


def test_a_model_that_is_not_image_to_image(work: Path, run) -> None:
    import onnx

    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 10])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 10])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(work / "classifier.onnx"))
    refused(run(VERIFY + "--suspect classifier.onnx --inputs photos"), "classifier")


def test_doctor_says_what_is_here_and_what_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from birthmark import _core, resources

    monkeypatch.setattr(resources, "models_folder", lambda: ROOT / "models")
    assert cli.main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kernels"] == _core.available_kernels() and "espcn_x2" in said["models"]
    assert said["wrong"] == [] and "CPUExecutionProvider" in said["providers"]
    monkeypatch.setattr(resources, "models_folder", lambda: tmp_path)
    assert cli.main(["doctor"]) == 1
    assert "install it anew" in capsys.readouterr().out


COMMANDS = (
    *("keygen", "claim", "provision", "protect", "embed", "graft"),
    *("surrogate", "verify", "recheck"),
    *("rotate", "revoke", "backup", "restore", "repassphrase"),
    *("stamp", "claim-info", "disclose", "trace", "declare", "join"),
    *("registry", "report-stolen", "serve", "doctor", "completion"),
)


def test_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            cli.main([name, "--help"])
        assert stop.value.code == 0
        assert f"birthmark {name}" in capsys.readouterr().out.split("example:")[1]


def test_every_command_is_listed_here() -> None:
    assert set(commands(cli._parser())) == set(COMMANDS)


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


def test_pictures_come_as_patterns_and_archives(work: Path, run) -> None:
    with zipfile.ZipFile(work / "suspects.zip", "w") as archive:
        for path in sorted((work / "published").iterdir()):
            archive.write(path, f"../../{path.name}")
        archive.writestr("readme.txt", "hello")
    answers = [
        json.loads(run(VERIFY + f"{given} --json")[1])
        for given in ("published", "published/p?.png", "suspects.zip")
    ]
    assert {a["log10_p"] for a in answers} == {answers[0]["log10_p"]}
    assert [r[0] for r in answers[2]["rejected"]] == ["suspects.zip: readme.txt"]
    assert "readme.txt" in run(VERIFY + "suspects.zip")[1]
    (work / "suspects.zip").unlink()


def test_every_is_at_least_one(run) -> None:
    refused(run(VERIFY + "photos --every 0"), "at least 1")
    refused(run(VERIFY + "photos/x*"), "pattern")


def test_json_of_commands_that_make_something(work: Path, run) -> None:
    """One object on standard output and nothing else; it says what the line for people says."""
    lines = {
        "keygen -o json.key --history json.history": "public_key",
        "provision --key owner.key --claim claim.json -o json.mark": "mark",
        "embed --mark m.mark photos -o json-embedded": "pictures",
        "rotate --key json.key --history json.history -o json2.key": "follows",
        "revoke --key json2.key --history json.history --reason lost": "revoked",
        "backup --key json.key --shares 3 --needed 2 -o json-shares": "needed",
        "restore json-shares/1.txt json-shares/2.txt -o json3.key": "public_key",
        "disclose --key owner.key --claim claim.json -o json-expert.key": "commitment",
        "declare --key owner.key --claim claim.json --inputs photos --queries 2"
        " -o json.trial": "queries",
        "join json.trial -o json2.trial": "nonce",
        "completion bash": "script",
    }
    for line, fact in lines.items():
        code, out, error = run(f"{line} --json")
        assert (code, error) == (0, ""), line
        assert out.count("\n") == 1 and json.loads(out)[fact], line
    for path in work.glob("json*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_two_outputs_are_two_files(work: Path, run) -> None:
    (work / "same-link").symlink_to(work / "same")
    for line in (
        "keygen -o same --history same",
        "keygen -o same --history ./same",
        "keygen -o same --history same-link",
        VERIFY + "published --report same --verdict same",
        VERIFY + "published --checkpoint same --verdict same",
    ):
        refused(run(line), "a file of its own")
        assert not (work / "same").exists(), line
    (work / "same-link").unlink()


def test_a_registry_that_cannot_be_used_is_said_first(work: Path, run) -> None:
    (work / "no.db").write_text("no database")
    refused(run(VERIFY + "published --registry no.db --verdict early.zip"), "no.db")
    assert not (work / "early.zip").exists()
    (work / "no.db").unlink()


def test_what_nobody_foresaw_is_one_line_and_no_verdict(run) -> None:
    """Exit code 1 would say unmarked."""
    refused(run("serve --key owner.key --port 99999"), "unexpected OverflowError")


def test_every_command_has_json() -> None:
    for name, parser in commands(cli._parser()).items():
        assert "--json" in parser.format_help(), name


def test_nothing_is_coloured_where_there_is_no_terminal(run) -> None:
    for line in (VERIFY + "published", "doctor", VERIFY + "nowhere"):
        _, out, error = run(line)
        assert "\x1b" not in out + error, line


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["prot"], "protect"),
        (["verify", "--fal"], "--false-positive-rate"),
        (["verify", "--claim", "clai"], "claim.json"),
        (["verify", "publi"], "published"),
        (["completion", "z"], "zsh"),
    ],
)
def test_bash_completes(work: Path, run, words: list[str], wanted: str) -> None:
    code, script, _ = run("completion bash")
    assert code == 0
    before, word = (["birthmark", *words][-2], words[-1])
    ask = (
        f"COMP_WORDS=(birthmark {' '.join(words)}); COMP_CWORD={len(words)}\n"
        f"function=$(complete -p birthmark | sed -E 's/.*-F (\\S+).*/\\1/')\n"
        f'$function birthmark "{word}" "{before}"; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "-c", script + ask], capture_output=True, text=True, check=True, cwd=work
    )
    assert done.stdout.split() == [wanted]


def test_completion_without_its_library_is_one_line(run, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    refused(run("completion zsh"), "birthmark[completion]")
