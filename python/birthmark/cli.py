"""The ``birthmark`` command.

Exit codes: 0 done (verify: MARKED), 1 verify: UNMARKED or UNDECIDED, 2 an error, said in one line,
130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import getpass
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from birthmark.errors import BirthmarkError, InvalidPicture, OutputExists, WrongPassphrase
from birthmark.model_calibration import calibrate_model, calibration_inputs
from birthmark.progress import Progress

if TYPE_CHECKING:
    from birthmark.keys import OwnerKey
    from birthmark.pictures import Picture
    from birthmark.verdict import Verdict

PASSPHRASE_VARIABLE = "BIRTHMARK_PASSPHRASE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # OpenCV reports damaged pictures on its own; here each is reported once, in one line.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name must not stop a terminal of few letters
            stream.reconfigure(errors="backslashreplace")
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
    except EOFError:
        message = "no passphrase was given"
    except MemoryError:
        message = "not enough memory"
    except KeyboardInterrupt:
        print("\nbirthmark: interrupted", file=sys.stderr)
        return 130
    print(f"birthmark: error: {_printable(message)}", file=sys.stderr)
    return 2


def _printable(text: str) -> str:
    """On one line, and without what a file's name could do to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"birthmark: error: {_printable(message)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    from birthmark.claim import code_version

    parser = _Parser(
        prog="birthmark",
        description="Mark an image model's outputs, and prove it when a model was trained on them.",
    )
    parser.add_argument("--version", action="version", version=f"birthmark {code_version()}")
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

    def threads(added: argparse.ArgumentParser, default: int = 0) -> None:
        added.add_argument(
            "--threads",
            type=_count,
            default=default,
            metavar="N",
            help=f"threads of a model (default {default}; 0: as many as onnxruntime likes)",
        )

    def publishes(added: argparse.ArgumentParser, what: str) -> None:
        added.add_argument("--mark", required=True)
        added.add_argument("inputs", nargs="+", metavar=what, help="picture files and folders")
        added.add_argument("-o", "--output", required=True, help="a new folder")
        added.add_argument(
            "--kernel",
            help="scalar, sse4, avx2, avx512, avx512vnni or neon (all give the same bytes)",
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
    threads(added)
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
    publishes(added, "INPUT")
    threads(added)

    added = command(
        "embed",
        _embed,
        "Mark pictures that already exist.",
        "birthmark embed --mark m.mark outputs/ -o published/",
    )
    publishes(added, "PICTURE")

    added = command(
        "graft",
        _graft,
        "Put the mark into an ONNX model's own graph: its picture output becomes a marked one.",
        "birthmark graft M.onnx m.mark -o marked.onnx",
    )
    added.add_argument("model", metavar="MODEL", help="an ONNX model with a picture output")
    added.add_argument("mark_file", nargs="?", metavar="MARK", help="the mark file")
    added.add_argument("--mark", help="the mark file, as an option")
    added.add_argument("--picture", metavar="NAME", help="the output to mark, if there are several")
    added.add_argument("--range", default="unit", help="of its values: unit, signed or byte")
    added.add_argument("--keep", action="store_true", help="keep the unmarked output as well")
    added.add_argument("-o", "--output", required=True, help="the new model (mode 0600)")

    added = command(
        "surrogate",
        _surrogate,
        "Steal a model: train a student on (input, output) pairs, to see whether it convicts.",
        "birthmark surrogate --inputs photos/ --outputs published/ --student unet -o S.onnx",
    )
    added.add_argument("--inputs", required=True, help="folder of inputs")
    added.add_argument("--outputs", required=True, help="folder of outputs with the same stems")
    added.add_argument("--student", default="unet", help="unet (default), resnet or cnn")
    added.add_argument("--steps", type=_count, default=1500)
    added.add_argument("--seed", type=_count, default=0)
    added.add_argument("--loss", default="mse", help="mse (default), l1 or charbonnier")
    added.add_argument("--checkpoint", help="save progress here, and go on from it")
    threads(added, 1)
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
    threads(added)
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


def _count(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a whole number of at least 0: {text!r}")
    return int(text)


def _new_file(path: str) -> None:
    """Refuse an output file before any work is done for it: nothing is ever overwritten."""
    if os.path.lexists(path):
        raise OutputExists(f"{path}: exists; it is not overwritten")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "no such folder to write to", folder)


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

    _new_file(options.output)
    key = OwnerKey.generate()
    key.save(options.output, _passphrase(options, twice=True))
    print(f"{options.output}: public key {key.public_key.hex()}")
    return 0


def _claim(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.models import ImageModel

    _new_file(options.output)
    key = _load_key(options)
    logo = Path(options.logo).read_bytes() if options.logo else None
    model = ImageModel(options.model, threads=options.threads)
    calibration = calibrate_model(model, calibration_inputs(model, options.inputs))
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


def _provision(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.mark import provision

    _new_file(options.output)
    mark = provision(_load_key(options), Claim.load(options.claim))
    mark.save(options.output)
    print(f"{options.output}: mark {mark.id}")
    return 0


def _protect(options: argparse.Namespace) -> int:
    from birthmark.models import ImageModel

    model = ImageModel(options.model, threads=options.threads)
    return _publish(options, model.output)


def _embed(options: argparse.Namespace) -> int:
    return _publish(options, lambda picture: picture)


def _publish(
    options: argparse.Namespace, outputs_of: Callable[[Picture], np.ndarray[Any, Any]]
) -> int:
    """Mark what `outputs_of` makes of each picture, into a new folder."""
    from birthmark.embed import Embedder
    from birthmark.files import folder_atomically
    from birthmark.mark import Mark
    from birthmark.pictures import gather_pictures, read_picture, write_png

    embedder = Embedder(Mark.load(options.mark), kernel=options.kernel)
    files = gather_pictures(options.inputs).files
    targets = {file: f"{file.stem}.png" for file in files}
    if len(set(targets.values())) < len(files):
        raise InvalidPicture("two inputs have the same stem; their outputs would be one file")
    failed: list[str] = []
    progress = Progress("publishing")
    with folder_atomically(options.output) as folder:
        for i, file in enumerate(files):
            progress(i, len(files), file.name)
            try:
                write_png(folder / targets[file], embedder.embed(outputs_of(read_picture(file))))
            except BirthmarkError as error:
                failed.append(str(error))
        progress.close()
        done = len(files) - len(failed)
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        reasons = "; ".join(failed[:5]) + more
        if not done:
            raise InvalidPicture(f"none of {len(files)} could be published: {reasons}")
    if failed:
        raise InvalidPicture(f"{done} of {len(files)} published; left out: {reasons}")
    print(f"{options.output}: {len(files)} pictures published")
    return 0


def _graft(options: argparse.Namespace) -> int:
    from birthmark.files import write_atomically
    from birthmark.graft import graft
    from birthmark.mark import Mark

    if bool(options.mark) == bool(options.mark_file):
        raise ValueError("give the mark file once, as MARK or with --mark")
    _new_file(options.output)
    mark = Mark.load(options.mark or options.mark_file)
    model = graft(
        options.model, mark, picture=options.picture, range=options.range, keep=options.keep
    )
    # It holds the mark in the clear, as the mark file does.
    write_atomically(options.output, model, mode=0o600)
    print(f"{options.output}: mark {mark.id}")
    return 0


def _surrogate(options: argparse.Namespace) -> int:
    from birthmark.training.surrogates import steal_folder

    _new_file(options.output)
    progress = Progress("stealing")
    surrogate = steal_folder(
        options.inputs,
        options.outputs,
        student=options.student,
        steps=options.steps,
        seed=options.seed,
        loss=options.loss,
        checkpoint=options.checkpoint,
        threads=options.threads,
        progress=progress,
    )
    progress.close()
    surrogate.save(options.output)
    print(f"{options.output}: {options.student}, loss {surrogate.final_loss:.3g}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.models import ImageModel
    from birthmark.report import write_report
    from birthmark.verdict import Decision, verify

    if options.suspect and not options.inputs:
        raise ValueError("--suspect needs --inputs")
    if bool(options.suspect) == bool(options.pictures):
        raise ValueError("give either PICTURE, or --suspect and --inputs")
    if not options.suspect and (options.inputs or options.model):
        raise ValueError("--inputs and --model go with --suspect")
    for path in filter(None, (options.report, options.verdict)):
        _new_file(path)
    claim = Claim.load(options.claim)
    key = _load_key(options)
    suspect, model = (
        ImageModel(path, threads=options.threads) if path else None
        for path in (options.suspect, options.model)
    )
    progress = Progress("measuring")
    verdict = verify(
        options.pictures or None,
        claim,
        key,
        suspect=suspect,
        inputs=[options.inputs] if options.inputs else None,
        model=model,
        false_positive_rate=options.false_positive_rate,
        progress=progress,
    )
    progress.close()
    if options.verdict:
        verdict.save(options.verdict, key)
    if options.report:
        write_report(verdict, options.report)
    if options.json:
        print(json.dumps(verdict.summary()))
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
        ("p", f"{_p(verdict.log10_p)}  ({verdict.mode})"),
        ("tests counted", str(verdict.tests_counted)),
        ("pictures", str(verdict.pictures)),
        ("chips", f"{tests.chips_matched} of {tests.coordinates}"),
        ("decoys as good", f"{tests.decoys_as_good} of {tests.decoys}"),
        ("payload", payload),
    ):
        print(f"{name:>15}  {value}")
    for name, reason in verdict.rejected:
        print(f"{'left out':>15}  {_printable(f'{name}: {reason}')}")


def _p(log10_p: float) -> str:
    return f"{10**log10_p:.2g}" if log10_p > -300 else f"10^{log10_p:.0f}"


def _recheck(options: argparse.Namespace) -> int:
    from birthmark.bundle import recheck

    rechecked = recheck(options.bundle, _load_key(options) if options.key else None)
    summary = rechecked.summary
    if options.json:
        checks = {"repeated": rechecked.repeated, "needs_key": rechecked.needs_key}
        print(json.dumps({**summary, **checks}))
        return 0
    print(f"{options.bundle}: {summary['decision']}, p = {_p(summary['log10_p'])}: holds")
    print(f"  claim of {_printable(summary['owner'])}, public key {summary['public_key']}")
    for step in rechecked.repeated:
        print(f"  repeated: {step}")
    for step in rechecked.needs_key:
        print(f"  needs the owner's key (--key): {step}")
    return 0
