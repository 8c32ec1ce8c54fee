"""The ``birthmark`` command.

Exit codes: 0 done (verify: MARKED), 1 verify: UNMARKED or UNDECIDED, 2 an error, said in one line,
130 interrupted.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from birthmark.errors import BirthmarkError, InvalidPicture, OutputExists, WrongPassphrase
from birthmark.progress import Progress

if TYPE_CHECKING:
    from birthmark.calibration import Calibration
    from birthmark.keys import OwnerKey
    from birthmark.models import ImageModel
    from birthmark.pictures import Picture
    from birthmark.verdict import Verdict

PASSPHRASE_VARIABLE = "BIRTHMARK_PASSPHRASE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # OpenCV reports damaged pictures on its own; here each is reported once, in one line.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BirthmarkError as error:
        message = str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror or error}"
    except ValueError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("\nbirthmark: interrupted", file=sys.stderr)
        return 130
    print(f"birthmark: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="birthmark",
        description="Mark an image model's outputs, and prove it when a model was trained on them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    def secret(added: argparse.ArgumentParser) -> None:
        added.add_argument(
            "--passphrase-fd",
            type=int,
            metavar="N",
            help=f"read the passphrase from file descriptor N (else {PASSPHRASE_VARIABLE}, or ask)",
        )

    added = command("keygen", _keygen, "Make an owner's key.", "birthmark keygen -o owner.key")
    added.add_argument("-o", "--output", required=True, help="the new key file (mode 0600)")
    secret(added)

    added = command(
        "claim",
        _claim,
        "Sign a claim to a model, and calibrate the mark on the model's own outputs.",
        'birthmark claim --key owner.key --owner "Studio X" --model M.onnx -o claim.json',
    )
    added.add_argument("--key", required=True)
    added.add_argument("--owner", required=True, help="the name that the claim is made in")
    added.add_argument("--model", required=True, help="the ONNX model to protect")
    added.add_argument("--logo", help="a PNG picture")
    added.add_argument("--contact", default="", help="how to reach the owner")
    added.add_argument(
        "--inputs",
        nargs="+",
        metavar="INPUT",
        help="typical inputs of the model to calibrate on (else photographs of the package)",
    )
    added.add_argument("-o", "--output", required=True)
    secret(added)

    added = command(
        "provision",
        _provision,
        "Make the mark file that a device needs; it holds neither key nor payload in the clear.",
        "birthmark provision --key owner.key --claim claim.json -o m.mark",
    )
    added.add_argument("--key", required=True)
    added.add_argument("--claim", required=True)
    added.add_argument("-o", "--output", required=True)
    secret(added)

    added = command(
        "protect",
        _protect,
        "Run a model over pictures and publish its outputs marked, as PNG with the same stems.",
        "birthmark protect --model M.onnx --mark m.mark photos/ -o published/",
    )
    added.add_argument("--model", required=True)
    added.add_argument("--mark", required=True)
    added.add_argument("inputs", nargs="+", metavar="INPUT", help="picture files and folders")
    added.add_argument("-o", "--output", required=True, help="a new folder")
    added.add_argument("--kernel", help="scalar, avx2, avx512 or neon (all give the same bytes)")
    added.add_argument("--threads", type=int, default=0, help="of the model (0: onnxruntime's)")

    added = command(
        "embed",
        _embed,
        "Mark pictures that already exist.",
        "birthmark embed --mark m.mark outputs/ -o published/",
    )
    added.add_argument("--mark", required=True)
    added.add_argument("inputs", nargs="+", metavar="PICTURE", help="picture files and folders")
    added.add_argument("-o", "--output", required=True, help="a new folder")
    added.add_argument("--kernel", help="scalar, avx2, avx512 or neon (all give the same bytes)")

    added = command(
        "surrogate",
        _surrogate,
        "Steal a model: train a student on (input, output) pairs, to see whether it convicts.",
        "birthmark surrogate --inputs photos/ --outputs published/ --student unet -o S.onnx",
    )
    added.add_argument("--inputs", required=True, help="folder of inputs")
    added.add_argument("--outputs", required=True, help="folder of outputs with the same stems")
    added.add_argument("--student", default="unet", help="unet (default), resnet or cnn")
    added.add_argument("--steps", type=int, default=1500)
    added.add_argument("--seed", type=int, default=0)
    added.add_argument("--loss", default="mse", help="mse (default), l1 or charbonnier")
    added.add_argument("--checkpoint", help="save progress here, and go on from it")
    added.add_argument("-o", "--output", required=True)

    added = command(
        "verify",
        _verify,
        "Judge whether pictures, or a suspect model, carry the claim's mark."
        " Exit code 0 marked, 1 unmarked or undecided, 2 could not judge.",
        "birthmark verify --key owner.key --claim claim.json suspect-pictures/\n"
        "  birthmark verify --key owner.key --claim claim.json --suspect S.onnx --inputs fresh/",
    )
    added.add_argument("--key", required=True)
    added.add_argument("--claim", required=True)
    added.add_argument("pictures", nargs="*", metavar="PICTURE", help="picture files and folders")
    added.add_argument("--suspect", help="a suspect ONNX model, to be asked")
    added.add_argument("--inputs", help="folder of inputs to ask it")
    added.add_argument("--model", help="the owner's model: the informed test")
    added.add_argument("--false-positive-rate", type=float, default=1e-6, metavar="P")
    added.add_argument("--report", metavar="R.html", help="write a report for people")
    added.add_argument("--verdict", metavar="V.zip", help="write a bundle for recheck")
    added.add_argument("--json", action="store_true", help="print one JSON object")
    secret(added)

    added = command(
        "recheck",
        _recheck,
        "Repeat a verdict from its bundle, offline.",
        "birthmark recheck V.zip",
    )
    added.add_argument("bundle", metavar="V.zip")
    added.add_argument("--key", help="the owner's key, to repeat the secret step too")
    added.add_argument("--json", action="store_true", help="print one JSON object")
    secret(added)
    return parser


def _passphrase(options: argparse.Namespace, *, twice: bool = False) -> str:
    if options.passphrase_fd is not None:
        with os.fdopen(options.passphrase_fd, closefd=False) as stream:
            return stream.readline().rstrip("\r\n")
    if PASSPHRASE_VARIABLE in os.environ:
        return os.environ[PASSPHRASE_VARIABLE]
    if not sys.stdin.isatty():
        raise WrongPassphrase(f"no passphrase: set {PASSPHRASE_VARIABLE} or use --passphrase-fd")
    passphrase = getpass.getpass("passphrase: ")
    if twice and getpass.getpass("once more: ") != passphrase:
        raise WrongPassphrase("the two passphrases differ")
    return passphrase


def _load_key(options: argparse.Namespace) -> OwnerKey:
    from birthmark.keys import OwnerKey

    return OwnerKey.load(options.key, _passphrase(options))


def _keygen(options: argparse.Namespace) -> int:
    from birthmark.keys import OwnerKey

    if os.path.lexists(options.output):
        raise OutputExists(f"{options.output}: exists; a key is never overwritten")
    key = OwnerKey.generate()
    key.save(options.output, _passphrase(options, twice=True))
    print(f"{options.output}: public key {key.public_key.hex()}")
    return 0


def _claim(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.models import ImageModel

    key = _load_key(options)
    logo = Path(options.logo).read_bytes() if options.logo else None
    model = ImageModel(options.model)
    calibration = calibrate_model(model, _calibration_inputs(model, options.inputs))
    claim = Claim.create(
        key,
        options.owner,
        options.model,
        calibration.to_bytes(),
        logo=logo,
        contact=options.contact,
    )
    claim.save(options.output)
    print(f"{options.output}: claim {claim.digest.hex()}")
    return 0


def _calibration_inputs(model: ImageModel, given: list[str] | None) -> list[Picture]:
    """The owner's own inputs, or the package's photographs at the model's input size."""
    import cv2

    from birthmark.pictures import gather_pictures, read_picture
    from birthmark.resources import calibration_photographs

    if given:
        return [read_picture(path) for path in gather_pictures(given).files]
    pictures = [read_picture(path) for path in calibration_photographs()]
    if model.scale == 1:
        return pictures
    factor = 1 / model.scale
    return [
        np.ascontiguousarray(
            cv2.resize(p, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8
        )
        for p in pictures
    ]


def calibrate_model(model: ImageModel, inputs: Sequence[Picture]) -> Calibration:
    """Run a model over inputs and calibrate on its outputs, with a progress line."""
    from birthmark.calibration import calibrate

    progress = Progress("running the model")
    outputs = []
    for i, picture in enumerate(inputs):
        progress(i, len(inputs))
        outputs.append(model.run(as_planes(picture))[0])
    progress.close()
    progress = Progress("calibrating")
    calibration = calibrate(outputs, progress=progress)
    progress.close()
    return calibration


def as_planes(picture: Picture) -> np.ndarray[Any, np.dtype[np.float32]]:
    """uint8 [h, w, 3] -> float32 [1, 3, h, w] in [0, 1]."""
    planes = picture.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
    return np.ascontiguousarray(planes / np.float32(255))


def _provision(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.mark import provision

    mark = provision(_load_key(options), Claim.load(options.claim))
    mark.save(options.output)
    print(f"{options.output}: mark {mark.id}")
    return 0


def _protect(options: argparse.Namespace) -> int:
    from birthmark.models import ImageModel

    model = ImageModel(options.model, threads=options.threads)
    return _publish(options, lambda picture: model.run(as_planes(picture))[0])


def _embed(options: argparse.Namespace) -> int:
    return _publish(options, lambda picture: picture)


def _publish(
    options: argparse.Namespace, outputs_of: Callable[[Picture], np.ndarray[Any, Any]]
) -> int:
    """Mark what `outputs_of` makes of each picture, into a new folder."""
    from birthmark.embed import Embedder
    from birthmark.files import new_folder
    from birthmark.mark import Mark
    from birthmark.pictures import gather_pictures, read_picture, write_png

    embedder = Embedder(Mark.load(options.mark), kernel=options.kernel)
    files = gather_pictures(options.inputs).files
    targets = {file: f"{file.stem}.png" for file in files}
    if len(set(targets.values())) < len(files):
        raise InvalidPicture("two inputs have the same stem; their outputs would be one file")
    folder = new_folder(options.output)
    progress = Progress("publishing")
    failed: list[str] = []
    for i, file in enumerate(files):
        progress(i, len(files), file.name)
        try:
            write_png(folder / targets[file], embedder.embed(outputs_of(read_picture(file))))
        except BirthmarkError as error:
            failed.append(str(error))
    progress.close()
    if failed:
        done = len(files) - len(failed)
        raise InvalidPicture(f"{done} of {len(files)} published; left out: {'; '.join(failed)}")
    print(f"{folder}: {len(files)} pictures published")
    return 0


def _surrogate(options: argparse.Namespace) -> int:
    from birthmark.training.surrogates import steal_folder

    progress = Progress("stealing")
    surrogate = steal_folder(
        options.inputs,
        options.outputs,
        student=options.student,
        steps=options.steps,
        seed=options.seed,
        loss=options.loss,
        checkpoint=options.checkpoint,
        progress=progress,
    )
    progress.close()
    surrogate.save(options.output)
    print(f"{options.output}: {options.student}, loss {surrogate.final_loss:.3g}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.report import write_report
    from birthmark.verdict import Decision, verify

    if options.suspect and not options.inputs:
        raise ValueError("--suspect needs --inputs")
    if bool(options.suspect) == bool(options.pictures):
        raise ValueError("give either PICTURE, or --suspect and --inputs")
    if not options.suspect and (options.inputs or options.model):
        raise ValueError("--inputs and --model go with --suspect")
    claim = Claim.load(options.claim)
    key = _load_key(options)
    progress = Progress("measuring", enabled=not options.json)
    verdict = verify(
        options.pictures or None,
        claim,
        key,
        suspect=options.suspect,
        inputs=[options.inputs] if options.inputs else None,
        model=options.model,
        false_positive_rate=options.false_positive_rate,
        progress=progress,
    )
    progress.close()
    if options.verdict:
        verdict.save(options.verdict, key)
    if options.report:
        write_report(verdict, options.report)
    if options.json:
        print(json.dumps(verdict.summary(), ensure_ascii=False))
    else:
        _print_verdict(verdict)
    return 0 if verdict.decision is Decision.MARKED else 1


def _print_verdict(verdict: Verdict) -> None:
    tests = verdict.tests
    payload = verdict.payload or "not readable"
    if verdict.payload_is_claimed:
        payload += " (the claim's)"
    for name, value in (
        ("decision", str(verdict.decision)),
        ("log10 p", f"{verdict.log10_p:.2f}  ({verdict.mode}, {verdict.tests_counted} test)"),
        ("pictures", str(verdict.pictures)),
        ("chips", f"{tests.chips_matched} of {tests.coordinates}"),
        ("decoys as good", f"{tests.decoys_as_good} of {tests.decoys}"),
        ("payload", payload),
    ):
        print(f"{name:>15}  {value}")
    for name, reason in verdict.rejected:
        print(f"{'left out':>15}  {name}: {reason}")


def _recheck(options: argparse.Namespace) -> int:
    from birthmark.bundle import recheck

    rechecked = recheck(options.bundle, _load_key(options) if options.key else None)
    summary = rechecked.summary
    if options.json:
        checks = {"repeated": rechecked.repeated, "needs_key": rechecked.needs_key}
        print(json.dumps({**summary, **checks}, ensure_ascii=False))
        return 0
    print(f"{options.bundle}: {summary['decision']}, log10 p {summary['log10_p']:.2f}: holds")
    for step in rechecked.repeated:
        print(f"  repeated: {step}")
    for step in rechecked.needs_key:
        print(f"  needs the owner's key (--key): {step}")
    return 0
