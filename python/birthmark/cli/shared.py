"""What the commands share: options, passphrases, output files, ways to print."""

from __future__ import annotations

import argparse
import errno
import getpass
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from birthmark.errors import OutputExists, WrongPassphrase
from birthmark.files import remove_abandoned
from birthmark.remote import RemotePath, as_path, real_path
from birthmark.suspects import EVERY, SuspectPictures

if TYPE_CHECKING:
    from birthmark.claim import Claim
    from birthmark.engine import Engine
    from birthmark.keys import OwnerKey
    from birthmark.registry import Registry

PASSPHRASE_VARIABLE = "BIRTHMARK_PASSPHRASE"
NEW_PASSPHRASE_VARIABLE = "BIRTHMARK_NEW_PASSPHRASE"
REGISTRY_VARIABLE = "BIRTHMARK_REGISTRY"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        self.exit(2, f"birthmark: error: {printable(message)} (see {self.prog} --help)\n")


class Commands:
    """The commands of a parser; each has a line of help, an example and ``--json``."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        self, name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
    ) -> argparse.ArgumentParser:
        """Add a command; ``run`` takes the options and returns the exit code."""
        added: argparse.ArgumentParser = self._subparsers.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("--json", action="store_true", help="print one JSON object")
        added.set_defaults(run=run)
        return added


def add_passphrase(added: argparse.ArgumentParser) -> None:
    """Add the option for a passphrase's file descriptor; there is none for the passphrase."""
    added.add_argument(
        "--passphrase-fd",
        type=int,
        metavar="N",
        help=f"read the passphrase from file descriptor N (else {PASSPHRASE_VARIABLE}, or ask)",
    )


def add_new_passphrase(added: argparse.ArgumentParser) -> None:
    """The same for the passphrase that is to be."""
    added.add_argument(
        "--new-passphrase-fd",
        type=int,
        metavar="N",
        help=f"read the new one from file descriptor N (else {NEW_PASSPHRASE_VARIABLE}, or ask)",
    )


def add_key_and_claim(added: argparse.ArgumentParser) -> None:
    """Add --key and --claim."""
    added.add_argument("--key", required=True)
    added.add_argument("--claim", required=True)


def add_threads(added: argparse.ArgumentParser, default: int = 0) -> None:
    """Add --threads."""
    added.add_argument(
        "--threads",
        type=count,
        default=default,
        metavar="N",
        help=f"threads of a model (default {default}; 0: as many as onnxruntime likes)",
    )


def add_tests(added: argparse.ArgumentParser) -> None:
    """Add whose mark is looked for, how many tests are counted, and the threshold."""
    added.add_argument("--customer", metavar="NAME", help="look for this customer's mark")
    added.add_argument(
        "--tests-counted",
        type=count,
        metavar="N",
        help="how often this suspect is tested in all; p is multiplied by it (default 1)",
    )
    added.add_argument(
        "--false-positive-rate", type=float, metavar="P", help="(default: what the claim states)"
    )


def add_suspect(added: argparse.ArgumentParser) -> None:
    """Add the ways to say who is suspected: pictures, or a model and inputs to ask it."""
    added.add_argument(
        "pictures",
        nargs="*",
        metavar="PICTURE",
        help="picture files, folders, quoted patterns, videos and zip archives; URLs too",
    )
    added.add_argument(
        "--every",
        type=count,
        default=EVERY,
        metavar="N",
        help=f"of a video, take one frame in N (default {EVERY})",
    )
    added.add_argument("--suspect", help="a suspect ONNX model, to be asked")
    added.add_argument("--inputs", help="folder of inputs to ask it")
    added.add_argument("--model", help="the owner's model: the informed test")
    add_references(added)
    added.add_argument(
        "--turned",
        action="store_true",
        help="ask every input in all eight orientations and judge the mean: 8 times as many"
        " queries, and with --model weaker marks are seen",
    )
    added.add_argument("--trial", metavar="TRIAL", help="the trial that was declared before")
    added.add_argument(
        "--time-limit",
        type=count,
        default=300,
        metavar="S",
        help="seconds that the suspect may take for a picture (default 300; 0: any)",
    )
    added.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="save what was measured here, and go on from it after an interruption;"
        " removed when all is done",
    )
    add_threads(added)


def add_references(added: argparse.ArgumentParser) -> None:
    """Add --reference."""
    added.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="R.onnx",
        help="a surrogate of the owner's unmarked outputs (birthmark surrogate --model): where the"
        " suspect fails as it does, that is left out, and weaker marks are seen; may be repeated",
    )


def check_suspect(options: argparse.Namespace) -> None:
    """Refuse what does not go together among the options of :func:`add_suspect`."""
    if options.suspect and not options.inputs:
        raise ValueError("--suspect needs --inputs")
    if bool(options.suspect) == bool(options.pictures):
        raise ValueError("give either PICTURE, or --suspect and --inputs")
    if not options.suspect and (options.inputs or options.model or options.trial or options.turned):
        raise ValueError("--inputs, --model, --turned and --trial go with --suspect")
    if options.reference and not options.model:
        raise ValueError("--reference goes with --model")


def suspect_pictures(options: argparse.Namespace) -> SuspectPictures | None:
    """The PICTUREs of :func:`add_suspect`, or None where a suspect is asked."""
    return SuspectPictures(options.pictures, every=options.every) if options.pictures else None


def suspect_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`add_suspect` as keyword arguments of birthmark.measure.measure."""
    from birthmark.models import ImageModel
    from birthmark.trial import Trial

    suspect, model = (
        ImageModel(path, threads=options.threads, limit_s=limit_s) if path else None
        for path, limit_s in (
            (options.suspect, options.time_limit or None),
            (options.model, None),
        )
    )
    return {
        "suspect": suspect,
        "inputs": [options.inputs] if options.inputs else None,
        "model": model,
        "references": [ImageModel(path, threads=options.threads) for path in options.reference],
        "trial": Trial.load(options.trial) if options.trial else None,
        "turned": options.turned,
        "checkpoint": options.checkpoint,
    }


def remove_checkpoint(options: argparse.Namespace) -> None:
    """Remove the checkpoint of :func:`add_suspect`, when what it was for is written."""
    if options.checkpoint:
        os.unlink(options.checkpoint)


def add_engine(added: argparse.ArgumentParser) -> None:
    """Add --engine and --workers."""
    added.add_argument(
        "--engine",
        default="here",
        metavar="WHERE",
        help="dask: worker processes; tls://host:port: a Dask scheduler (default here: no workers)",
    )
    added.add_argument(
        "--workers",
        type=count,
        default=0,
        metavar="N",
        help="how many processes --engine dask starts (default: one a core)",
    )


def engine(options: argparse.Namespace) -> AbstractContextManager[Engine]:
    """The engine of :func:`add_engine`, open until the end of a ``with``."""
    from birthmark.engine import open_engine

    return open_engine(options.engine, options.workers)


def add_registry(added: argparse.ArgumentParser) -> None:
    """Add the option for a registry; a URL with a password belongs into the environment."""
    added.add_argument(
        "--registry",
        metavar="DB",
        default=os.environ.get(REGISTRY_VARIABLE),
        help=f"a SQLite file or database URL to record it in (else {REGISTRY_VARIABLE})",
    )


@contextmanager
def open_registry(options: argparse.Namespace) -> Iterator[Registry | None]:
    """The registry of --registry, or None."""
    if not options.registry:
        yield None
        return
    from birthmark.registry import Registry

    with Registry(options.registry) as registry:
        yield registry


def add_trust(added: argparse.ArgumentParser) -> None:
    """Add what a reader of a claim trusts: authorities, and the owner's key history."""
    added.add_argument(
        "--tsa-roots", metavar="PEM", help="certificates of time-stamping authorities you trust"
    )
    added.add_argument("--history", metavar="FILE", help="the owner's public key history")


def trust(options: argparse.Namespace, claim: Claim) -> dict[str, str]:
    """Check what :func:`add_trust` asks for; returns what can be said of the claim's date and key.

    Raises:
        InvalidStamp: there are roots, and none vouches for the stamp, or there is no stamp.
        InvalidKeyHistory: there is a history, and the claim's key was not in use at its date.
    """
    from birthmark.claim import to_time
    from birthmark.errors import InvalidStamp
    from birthmark.key_history import KeyHistory
    from birthmark.stamp import check_stamp, load_certificates

    said = claim.stamp_read
    rows = {"stamp": "none: the date is what the owner says"}
    if options.tsa_roots:
        roots = load_certificates(options.tsa_roots)
        if claim.stamp is None:
            raise InvalidStamp("the claim has no time stamp")
        said = check_stamp(claim.stamp, claim.digest, roots)
        rows["stamp"] = f"{to_time(said.time)} by {said.authority}, trusted"
    elif said is not None:
        rows["stamp"] = f"{to_time(said.time)} by {said.authority}, NOT checked (--tsa-roots)"
    if options.history:
        period = KeyHistory.load(options.history).check(claim)
        until = period.until or "today"
        rows["key in use"] = f"{period.since} to {until}"
        if period.revoked_for:
            rows["key revoked"] = period.revoked_for
    return rows


def count(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"not a whole number of at least 0: {text!r}")
    return int(text)


def new_files(*paths: str | None, kept: str | None = None) -> None:
    """Refuse outputs of which two are one file (or one is that which is ``kept``), or as alone."""
    wanted = [path for path in paths if path]
    seen: set[str] = set()
    for path in (*wanted, kept):
        real = real_path(as_path(path)) if path else None
        if real in seen:
            raise ValueError(f"{path}: named for two things; each needs a file of its own")
        if real:
            seen.add(real)
    for path in wanted:
        new_file(path)


def new_file(path: str) -> None:
    """Refuse an output file before any work is done for it: nothing is ever overwritten.

    What was left half-written beside it by a command that was killed is removed.
    """
    remote = as_path(path)
    if isinstance(remote, RemotePath):
        if remote.exists():
            raise OutputExists(f"{path}: exists; it is not overwritten")
        return
    if os.path.lexists(path):
        raise OutputExists(f"{path}: exists; it is not overwritten")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "no such folder to write to", folder)
    remove_abandoned(folder)


def passphrase(options: argparse.Namespace, *, twice: bool = False) -> str:
    """The passphrase, from a file descriptor, the environment or a prompt."""
    return _secret(
        options.passphrase_fd, PASSPHRASE_VARIABLE, "passphrase", "--passphrase-fd", twice
    )


def new_passphrase(options: argparse.Namespace) -> str:
    """The passphrase that is to be, asked for twice."""
    return _secret(
        options.new_passphrase_fd,
        NEW_PASSPHRASE_VARIABLE,
        "new passphrase",
        "--new-passphrase-fd",
        True,
    )


def _secret(descriptor: int | None, variable: str, what: str, option: str, twice: bool) -> str:
    # From here on there are secrets in memory: a crash must not write them to a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if descriptor is not None:
        try:
            return _line_from(descriptor).decode().rstrip("\r\n")
        except UnicodeDecodeError:  # its message would show some of it
            raise WrongPassphrase(f"the {what} is not UTF-8 text") from None
    if variable in os.environ:
        return os.environ[variable]
    if not sys.stdin.isatty():
        raise WrongPassphrase(f"no {what}: set {variable} or use {option}")
    typed = getpass.getpass(f"{what}: ")
    if twice and getpass.getpass("once more: ") != typed:
        raise WrongPassphrase("the two passphrases differ")
    return typed


def _line_from(descriptor: int) -> bytes:
    """The next line. Not a byte beyond it is read: another secret may follow."""
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return bytes(line)


def load_key(options: argparse.Namespace) -> OwnerKey:
    """The owner's key of --key."""
    from birthmark.keys import OwnerKey

    return OwnerKey.load(options.key, passphrase(options))


def say(options: argparse.Namespace, line: str, **facts: Any) -> None:
    """Print what was done: a line for people, or the facts as one JSON object."""
    print(json.dumps(facts) if options.json else printable(line))


def printable(text: str) -> str:
    """On one line, and without what a file's name could do to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def p_text(log10_p: float) -> str:
    """A p-value for a terminal."""
    return f"{10**log10_p:.2g}" if log10_p > -300 else f"10^{log10_p:.0f}"
