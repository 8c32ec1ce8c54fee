"""The ``birthmark`` command.

Exit codes: 0 done (verify: MARKED), 1 verify: UNMARKED or UNDECIDED, 2 an error, said in one line,
130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from birthmark.cli import completion, doctor, evidence, keys, marking, shared
from birthmark.errors import BirthmarkError, InvalidPicture
from birthmark.progress import Progress

if TYPE_CHECKING:
    from birthmark.claim import Claim
    from birthmark.geometry import Geometry
    from birthmark.keys import ClaimKey, OwnerKey
    from birthmark.pictures import Picture
    from birthmark.suspects import SuspectPictures
    from birthmark.verdict import Verdict

_EXAMPLES, _EXAMPLES_AMONG = 3, 12
"""A report shows so many pictures, which are looked for among so many."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # OpenCV reports damaged pictures on its own; here each is reported once, in one line.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # the same of damaged videos
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
    except ImportError as error:  # a library is broken, or there is no memory to load it into
        message = f"cannot load {error.name or 'a library'}: {error}"
    except KeyboardInterrupt:
        print("\nbirthmark: interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # a defect of ours: still one line, and never taken for a verdict
        message = f"unexpected {type(error).__name__}: {error}"
    print(f"birthmark: error: {shared.printable(message)}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    from birthmark.claim import code_version

    parser = shared.Parser(
        prog="birthmark",
        description="Mark an image model's outputs, and prove it when a model was trained on them.",
    )
    parser.add_argument("--version", action="version", version=f"birthmark {code_version()}")
    commands = shared.Commands(parser)
    marking.add_commands(commands)

    added = commands.add(
        "verify",
        _verify,
        "Judge whether pictures, or a suspect model, carry the claim's mark."
        " Exit code 0 marked, 1 unmarked or undecided, 2 could not judge.",
        "birthmark verify --key owner.key --claim claim.json suspect-pictures/\n"
        "  birthmark verify --key owner.key --claim claim.json --suspect S.onnx --inputs fresh/",
    )
    shared.add_key_and_claim(added)
    shared.add_suspect(added)
    shared.add_engine(added)
    shared.add_tests(added)
    added.add_argument(
        "--search",
        action="store_true",
        help="find out how PICTUREs were rescaled or turned a little; every try counts",
    )
    shared.add_trust(added)
    shared.add_registry(added)
    added.add_argument(
        "--report",
        metavar="R.html",
        help="write a report for people (plots: pip install 'birthmark[report]')",
    )
    added.add_argument("--verdict", metavar="V.zip", help="write a bundle for recheck")
    shared.add_passphrase(added)

    added = commands.add(
        "recheck",
        _recheck,
        "Repeat a verdict from its bundle, offline.",
        "birthmark recheck V.zip\n"
        "  birthmark recheck V.zip --claim-key for-the-expert.key --tsa-roots ca.pem",
    )
    added.add_argument("bundle", metavar="V.zip")
    added.add_argument("--key", help="the owner's key, to repeat the secret step too")
    added.add_argument("--claim-key", metavar="FILE", help="the same with what disclose wrote")
    shared.add_trust(added)
    shared.add_passphrase(added)

    keys.add_commands(commands)
    evidence.add_commands(commands)
    doctor.add_commands(commands)
    completion.add_commands(commands, parser)
    return parser


def _verify(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.remote import as_path
    from birthmark.report import write_report
    from birthmark.suspects import name_of
    from birthmark.verdict import Decision, verify

    shared.check_suspect(options)
    if options.suspect and options.engine != "here":
        raise ValueError("--engine measures PICTUREs; a suspect is asked here")
    shared.new_files(options.report, options.verdict, kept=options.checkpoint)
    claim = Claim.load(options.claim)
    trusted = shared.trust(options, claim)
    with shared.open_registry(options):
        pass  # one that cannot be used is said before any work is done
    key = shared.load_key(options)
    pictures = shared.suspect_pictures(options)
    geometry = _geometry(pictures, claim, key, options.customer) if options.search else None
    progress = Progress("measuring")
    with shared.engine(options) as engine:
        verdict = verify(
            pictures,
            claim,
            key,
            **shared.suspect_arguments(options),
            customer=options.customer,
            geometry=geometry,
            tests_counted=options.tests_counted,
            false_positive_rate=options.false_positive_rate,
            engine=engine,
            progress=progress,
        )
    progress.close()
    if options.verdict:
        verdict.save(options.verdict, key)
    if options.report:
        write_report(
            verdict,
            options.report,
            key=claim.mark_key(key),
            bundle=options.verdict,
            examples=_examples(verdict, pictures),
        )
    if options.json:
        print(json.dumps({**verdict.summary(), **trusted}))
    else:
        _print_verdict(verdict)
        for name, said in trusted.items():
            print(f"{name:>15}  {shared.printable(said)}")
    with shared.open_registry(options) as registry:
        if registry:
            given = [options.suspect] if options.suspect else options.pictures
            registry.add_verdict(verdict, " ".join(name_of(as_path(path)) for path in given))
    shared.remove_checkpoint(options)
    return 0 if verdict.decision is Decision.MARKED else 1


def _examples(verdict: Verdict, pictures: SuspectPictures | None) -> list[tuple[str, Picture]]:
    """Some pictures of the case; of a suspect that was asked, its answers and how they differ."""
    from birthmark.report.examples import AMPLIFIED, amplified_difference

    shown: list[tuple[str, Picture]] = []
    if pictures is not None:
        # Read once more, from wherever they are: nobody keeps them, and workers may have had them.
        judged = {entry.name for entry in verdict.evidence}
        again = (picture for picture in pictures if picture.name in judged)
        for picture in itertools.islice(again, _EXAMPLES_AMONG):
            with suppress(InvalidPicture):  # what was judged may be gone by now
                shown.append((picture.name, picture.read()))
            if len(shown) == _EXAMPLES:
                break
        return shown
    for example in verdict.measured.examples:
        shown.append((f"{example.name}: the suspect's answer", example.answer))
        if example.own is not None:
            caption = f"the answer less that of the owner's model, {AMPLIFIED} times"
            difference = amplified_difference(example.answer, example.own)
            shown.append((f"{example.name}: {caption}", difference))
    return shown


def _geometry(
    pictures: SuspectPictures | None, claim: Claim, key: OwnerKey, customer: str | None
) -> Geometry:
    from birthmark.geometry import LOOKED_AT, find_geometry

    if pictures is None:
        raise ValueError("--search is for PICTUREs; a suspect's own answers are not rescaled")
    progress = Progress("searching")
    looked_at = pictures.some(LOOKED_AT)
    geometry = find_geometry(looked_at, claim, key, customer=customer, progress=progress)
    progress.close()
    return geometry


def _of_tint(verdict: Verdict) -> list[tuple[str, str]]:
    """What the tint says, in an informed verdict."""
    tint = verdict.tint_tests
    if tint is None:
        return []
    p = shared.p_text(tint.log10_p_cosine)
    return [("tint", f"p = {p}, {tint.chips_matched} of {tint.coordinates} chips")]


def _of_asking(verdict: Verdict) -> list[tuple[str, str]]:
    """How a suspect was asked, where it was not once and beside the owner's model alone."""
    rows = [("asked", "each input in all eight orientations")] if verdict.measured.turned else []
    without = verdict.log10_p_without_references
    if without is not None:
        count = len(verdict.measured.references)
        rows.append(("references", f"{count}; without them p = {shared.p_text(without)}"))
    return rows


def _print_verdict(verdict: Verdict) -> None:
    tests = verdict.tests
    for name, value in (
        ("decision", str(verdict.decision)),
        ("p", f"{shared.p_text(verdict.log10_p)}  ({verdict.mode})"),
        ("likelihood", f"{_times(verdict.log10_likelihood_ratio)} under the mark as without it"),
        ("if date doubted", f"p = {shared.p_text(verdict.log10_p_if_date_doubted)}"),
        ("tests counted", str(verdict.tests_counted)),
        ("marks drawn", f"{verdict.claim.draws}; p counts them too"),
        ("pictures", str(verdict.pictures)),
        *_found(verdict.measured.geometry),
        ("chips", f"{tests.chips_matched} of {tests.coordinates}"),
        ("decoys as good", f"{tests.decoys_as_good} of {tests.decoys}"),
        *_of_tint(verdict),
        *_of_asking(verdict),
    ):
        print(f"{name:>15}  {value}")
    _print_emblems(verdict)
    if verdict.customer is not None:
        print(f"{'customer':>15}  {shared.printable(verdict.customer)}")
    for control in verdict.controls:
        print(f"{'control':>15}  {control.name}: p = {shared.p_text(control.log10_p)}")
    for name, reason in verdict.rejected:
        print(f"{'left out':>15}  {shared.printable(f'{name}: {reason}')}")


def _print_emblems(verdict: Verdict) -> None:
    """The emblem of the claim and the one in the pictures, side by side."""
    from birthmark.emblem import correlation, text
    from birthmark.verdict import Decision

    claimed, guess = verdict.claim.emblem, verdict.payload_guess
    found = "restored"
    if verdict.decision is not Decision.MARKED:
        read, found = "nothing could be restored; the likeliest is noise:", "noise"
    elif verdict.payload is None:
        doubt = f"{100 * verdict.payload_doubt:.2g} %"
        read, found = f"not certain (wrong with {doubt}); the likeliest is", "likeliest"
    else:
        read = "as claimed:" if verdict.payload_is_claimed else "another than claimed:"
    print(f"{'emblem':>15}  {read} {guess}, NC {correlation(claimed, guess):.2f}")
    print(f"{'':>15}  {'claimed':<16}    {found}")
    for left, right in zip(text(claimed), text(guess), strict=True):
        print(f"{'':>15}  {left}    {right}".rstrip())


def _found(geometry: Geometry | None) -> list[tuple[str, str]]:
    if geometry is None:
        return []
    return [("geometry", f"scale {geometry.scale:.3f}, turned {geometry.degrees:.1f} degrees")]


def _times(log10_ratio: float) -> str:
    return (
        f"{10**log10_ratio:.2g} times as likely"
        if log10_ratio < 300
        else (f"10^{log10_ratio:.0f} times as likely")
    )


def _recheck(options: argparse.Namespace) -> int:
    from birthmark.bundle import recheck
    from birthmark.keys import ClaimKey

    if options.key and options.claim_key:
        raise ValueError("--key and --claim-key: one is enough")
    key: OwnerKey | ClaimKey | None = None
    if options.claim_key:
        key = ClaimKey.load(options.claim_key)
    elif options.key:
        key = shared.load_key(options)
    rechecked = recheck(options.bundle, key)
    trusted = shared.trust(options, rechecked.claim)
    summary = rechecked.summary
    if options.json:
        checks = {
            "repeated": rechecked.repeated,
            "needs_key": rechecked.needs_key,
            "worded_otherwise": rechecked.worded_otherwise,
        }
        print(json.dumps({**summary, **checks, **trusted}))
        return 0
    print(
        f"{options.bundle}: {summary['decision']}, p = {shared.p_text(summary['log10_p'])}: holds"
    )
    print(f"  claim of {shared.printable(summary['owner'])}, public key {summary['public_key']}")
    for name, said in trusted.items():
        print(f"  {name}: {shared.printable(said)}")
    for step in rechecked.repeated:
        print(f"  repeated: {step}")
    if rechecked.worded_otherwise:
        said = ", ".join(rechecked.worded_otherwise)
        print(f"  NOTE: {said}: worded otherwise than by this version; read it in verdict.json")
    for step in rechecked.needs_key:
        print(f"  needs the owner's key, or the claim's disclosed one: {step}")
    return 0
