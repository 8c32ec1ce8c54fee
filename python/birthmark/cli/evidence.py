"""Commands about claims, customers, trials and verdicts: stamp to serve."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from typing import Any

from birthmark.cli import shared
from birthmark.errors import InvalidTrial
from birthmark.progress import Progress


def add_commands(commands: shared.Commands) -> None:
    """Add this module's commands to the parser."""
    added = commands.add(
        "stamp",
        _stamp,
        "Have a time-stamping authority (RFC 3161) sign that the claim exists today."
        " It sees a hash and nothing else.",
        "birthmark stamp --tsa http://timestamp.example/tsr claim.json -o stamped.json",
    )
    added.add_argument("claim", metavar="CLAIM")
    added.add_argument("--tsa", required=True, metavar="URL", help="the authority's address")
    added.add_argument("-o", "--output", required=True, help="the claim with the stamp in it")

    added = commands.add(
        "claim-info",
        _claim_info,
        "Show a claim, and check its signature, its time stamp and its key's history.",
        "birthmark claim-info stamped.json --tsa-roots ca.pem --history keys.json",
    )
    added.add_argument("claim", metavar="CLAIM")
    shared.add_trust(added)

    added = commands.add(
        "disclose",
        _disclose,
        "Write the secret of ONE claim, unencrypted, for an expert: with it recheck repeats"
        " everything. The owner's other claims stay safe; that claim's marks are then known.",
        "birthmark disclose --key owner.key --claim claim.json -o for-the-expert.key",
    )
    shared.add_key_and_claim(added)
    added.add_argument("-o", "--output", required=True, help="a new file (mode 0600)")
    shared.add_passphrase(added)

    added = commands.add(
        "trace",
        _trace,
        "Name the customer whose marked pictures a suspect learned from, or a mark file is of."
        " Exit code 0 somebody is named, 1 nobody, 2 could not judge.",
        "birthmark trace --key owner.key --claim claim.json --customers names.txt published/\n"
        "  birthmark trace --key owner.key --claim claim.json --customers names.txt"
        " --mark-file found.mark",
    )
    shared.add_key_and_claim(added)
    added.add_argument(
        "--customers", metavar="FILE", help="names, one a line, as provisioned (else --registry's)"
    )
    shared.add_registry(added)
    shared.add_suspect(added)
    added.add_argument("--mark-file", help="a mark file that was found, instead of pictures")
    added.add_argument("--false-positive-rate", type=float, default=1e-6, metavar="P")
    added.add_argument("--verdict", metavar="V.zip", help="write a bundle for the first one named")
    shared.add_passphrase(added)

    added = commands.add(
        "serve",
        _serve,
        "Open a local page where a claim and pictures are dropped and judged with your key.",
        "birthmark serve --key owner.key",
    )
    added.add_argument("--key", required=True)
    added.add_argument("--port", type=shared.count, default=0, help="(default: a free one)")
    added.add_argument(
        "--host", default="127.0.0.1", help="where to listen (default: this machine only)"
    )
    shared.add_passphrase(added)

    added = commands.add(
        "registry",
        _registry,
        "List the claims, the marks issued and the verdicts of a registry.",
        "birthmark registry --registry marks.db",
    )
    shared.add_registry(added)

    added = commands.add(
        "report-stolen",
        _report_stolen,
        "Record that a mark file was stolen; trace then says so when it names that customer.",
        'birthmark report-stolen --registry marks.db --mark MARK-ID --note "device 7, Lyon"',
    )
    shared.add_registry(added)
    added.add_argument("--mark", required=True, metavar="MARK-ID", help="as provision printed it")
    added.add_argument("--note", required=True)

    added = commands.add(
        "declare",
        _declare,
        "Declare a trial before a suspect is asked: whose mark will be looked for, the inputs, and"
        " how many will be asked.",
        "birthmark declare --key owner.key --claim claim.json --inputs fresh/ --queries 200"
        " -o trial.json",
    )
    shared.add_key_and_claim(added)
    added.add_argument("--inputs", required=True, nargs="+", metavar="INPUT")
    added.add_argument("--queries", required=True, type=shared.count, metavar="N")
    added.add_argument("--informed", action="store_true", help="verify will be given --model")
    shared.add_references(added)
    shared.add_tests(added)
    added.add_argument("-o", "--output", required=True)
    shared.add_passphrase(added)

    added = commands.add(
        "join",
        _join,
        "Add the accused's nonce to a declared trial, so that both sides choose the inputs.",
        "birthmark join trial.json -o joined.json",
    )
    added.add_argument("trial", metavar="TRIAL")
    added.add_argument("--nonce", metavar="HEX", help="64 hex digits (else drawn and printed)")
    added.add_argument("-o", "--output", required=True)


def _stamp(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim, to_time
    from birthmark.stamp import request_stamp

    shared.new_file(options.output)
    claim = Claim.load(options.claim)
    stamped = claim.stamped(request_stamp(claim.canonical_form(), options.tsa))
    stamped.save(options.output)
    said = stamped.stamp_read
    assert said is not None
    shared.say(
        options,
        f"{options.output}: stamped {said.time:%Y-%m-%d %H:%M:%S} UTC by {said.authority}",
        output=options.output,
        stamped=to_time(said.time),
        authority=said.authority,
    )
    return 0


def _claim_info(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.emblem import text
    from birthmark.extract import extractor_sha256

    claim = Claim.load(options.claim)
    same = claim.extractor_sha256 == extractor_sha256()
    rows = {
        "owner": claim.owner,
        "contact": claim.contact,
        "model": claim.model_name,
        "model_sha256": claim.model_sha256,
        "created": claim.created,
        "emblem": claim.emblem,
        "digest": claim.digest.hex(),
        "public_key": claim.public_key.hex(),
        "commitment": claim.commitment,
        "threshold": f"1e{claim.log10_false_positive_rate}",
        "code_version": claim.code_version,
        "extractor": "this one" if same else f"another version ({claim.extractor_sha256[:16]})",
        **shared.trust(options, claim),
    }
    if options.json:
        print(json.dumps(rows))
    else:
        for name, value in rows.items():
            print(f"{name:>13}  {shared.printable(str(value))}")
        print("\n".join(f"{'':>13}  {line}".rstrip() for line in text(claim.emblem)))
    return 0


def _disclose(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim

    shared.new_file(options.output)
    secret = Claim.load(options.claim).claim_key(shared.load_key(options))
    secret.save(options.output)
    commitment = secret.commitment.hex()
    shared.say(
        options,
        f"{options.output}: discloses the claim whose commitment is {commitment}",
        output=options.output,
        commitment=commitment,
    )
    return 0


def _trace(options: argparse.Namespace) -> int:
    from birthmark.calibration import Calibration
    from birthmark.claim import Claim
    from birthmark.mark import Mark
    from birthmark.measure import measure
    from birthmark.trace import SEARCHES, Customers, read_customers
    from birthmark.verdict import judge

    if options.trial:
        raise ValueError("a trial is about one mark, which verify looks for")
    shared.new_files(options.verdict, kept=options.checkpoint)
    if options.mark_file:
        beside = (options.pictures, options.suspect, options.inputs, options.model)
        if any((*beside, options.reference, options.turned, options.verdict, options.checkpoint)):
            raise ValueError("--mark-file goes without pictures, a suspect and their options")
    else:
        shared.check_suspect(options)
    if not options.customers and not options.registry:
        raise ValueError("--customers or --registry is needed: who could it be?")
    claim = Claim.load(options.claim)
    claim.check_date()
    stolen: dict[str, str] = {}
    if options.customers:
        names = read_customers(options.customers)
    with shared.open_registry(options) as registry:
        if registry:
            if not options.customers:
                names = registry.customers(claim)
            stolen = {
                m.customer: f"{m.stolen}: {m.note}" for m in registry.marks(claim) if m.stolen
            }
    key = shared.load_key(options)
    mark_key = claim.mark_key(key)
    progress = Progress("customers")
    customers = Customers(names, claim, mark_key, progress=progress)
    progress.close()
    measured, tint = None, None
    calibration = Calibration.from_bytes(claim.calibration)
    if options.mark_file:
        estimate = Mark.load(options.mark_file).read(calibration)
    else:
        progress = Progress("measuring")
        measured = measure(
            shared.suspect_pictures(options),
            claim,
            mark_key,
            **shared.suspect_arguments(options),
            progress=progress,
        )
        progress.close()
        customers.check_controls(measured, claim)
        estimate = measured.estimate(calibration)
        tint = measured.tint_estimate(calibration)
    found = customers.trace(estimate, options.false_positive_rate, tint=tint)
    verdict = None
    if options.verdict and measured is not None and found.named:
        verdict = judge(
            measured,
            claim,
            mark_key,
            options.false_positive_rate,
            customer=found.named[0].customer,
            tests_counted=len(names) * SEARCHES,
        )
        verdict.save(options.verdict, key)
    if measured is not None:
        shared.remove_checkpoint(options)
    if options.json:
        decision = None if verdict is None else str(verdict.decision)
        print(json.dumps({**found.summary(), "reported_stolen": stolen, "verdict": decision}))
        return 0 if found.found else 1
    for one in found.named:
        print(
            f"{'named':>15}  {shared.printable(one.customer)}  p = {shared.p_text(one.log10_p)}"
            f"  ({one.how})"
        )
        if one.customer in stolen:
            said = shared.printable(stolen[one.customer])
            print(f"{'NOTE':>15}  that mark file was reported stolen on {said}")
    if found.group is not None:
        who = ", ".join(map(shared.printable, found.group.customers))
        print(f"{'at least one of':>15}  {who}  p = {shared.p_text(found.group.log10_p)}")
    if verdict is not None:  # it need not convict whom this names
        print(
            f"{'verdict':>15}  {verdict.decision}, p = {shared.p_text(verdict.log10_p)}: of"
            f" {shared.printable(found.named[0].customer)} alone"
        )
    if not found.found:
        print(f"{'named':>15}  nobody; that does not clear anybody")
    print(f"{'compared':>15}  {found.customers} customers; every p counts the whole search")
    for lead in found.leads:
        print(f"{'largest cosine':>15}  {lead.cosine:+.3f}  {shared.printable(lead.customer)}")
    return 0 if found.found else 1


def _serve(options: argparse.Namespace) -> int:
    from birthmark.serve import VerifierServer

    with VerifierServer(shared.load_key(options), options.host, options.port) as server:
        if options.json:
            print(json.dumps({"url": server.url}), flush=True)
        else:
            print(f"{server.url}\nOpen this address in a browser; stop with Ctrl-C.", flush=True)
        server.serve_forever()
    return 0


def _registry(options: argparse.Namespace) -> int:
    with shared.open_registry(options) as registry:
        if registry is None:
            raise ValueError("--registry is needed")
        rows: list[dict[str, Any]] = [
            {
                "claim": claim.digest.hex(),
                "owner": claim.owner,
                "model": claim.model_name,
                "created": claim.created,
                "stamped": claim.stamp is not None,
                "marks": [asdict(m) for m in registry.marks(claim)],
                "verdicts": [asdict(v) for v in registry.verdicts(claim)],
            }
            for claim in registry.claims()
        ]
    if options.json:
        print(json.dumps(rows))
        return 0
    say = shared.printable
    for row in rows:
        print(f"claim {row['claim']}  {say(row['owner'])}: {say(row['model'])}, {row['created']}")
        for mark in row["marks"]:
            stolen = f"  STOLEN {mark['stolen']}: {mark['note']}" if mark["stolen"] else ""
            whose = mark["customer"] or "(the claim's own)"
            print(f"  mark {mark['id']}  {mark['issued']}  {say(whose)}{say(stolen)}")
        for verdict in row["verdicts"]:
            print(
                f"  verdict {verdict['created']}  {verdict['decision']}"
                f"  p = {shared.p_text(verdict['log10_p'])}  {say(verdict['suspect'])}"
            )
    return 0


def _report_stolen(options: argparse.Namespace) -> int:
    with shared.open_registry(options) as registry:
        if registry is None:
            raise ValueError("--registry is needed")
        registry.report_stolen(options.mark, options.note)
    shared.say(options, f"{options.mark}: recorded as stolen", mark=options.mark, note=options.note)
    return 0


def _declare(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.extract import pixels_sha256
    from birthmark.models import ImageModel
    from birthmark.pictures import gather_pictures, read_picture
    from birthmark.trial import Trial

    shared.new_file(options.output)
    claim = Claim.load(options.claim)
    files = gather_pictures(options.inputs).files
    key = shared.load_key(options)
    trial = Trial.declare(
        key,
        claim,
        (pixels_sha256(read_picture(file)) for file in files),
        options.queries,
        informed=options.informed,
        references=[ImageModel(path).sha256 for path in options.reference],
        customer=options.customer,
        tests_counted=1 if options.tests_counted is None else options.tests_counted,
        false_positive_rate=options.false_positive_rate,
    )
    trial.save(options.output)
    shared.say(
        options,
        f"{options.output}: {trial.queries} of {len(trial.inputs)} inputs will be asked",
        output=options.output,
        queries=trial.queries,
        inputs=len(trial.inputs),
    )
    return 0


def _join(options: argparse.Namespace) -> int:
    from birthmark.trial import NONCE_BYTES, Trial

    shared.new_file(options.output)
    try:
        nonce = os.urandom(NONCE_BYTES) if options.nonce is None else bytes.fromhex(options.nonce)
    except ValueError:
        raise InvalidTrial("--nonce: not hex digits") from None
    Trial.load(options.trial).joined(nonce).save(options.output)
    shared.say(
        options,
        f"{options.output}: joined with the nonce {nonce.hex()}; keep it, to compare",
        output=options.output,
        nonce=nonce.hex(),
    )
    return 0
