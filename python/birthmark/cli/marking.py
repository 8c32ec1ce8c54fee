"""Commands from an owner's key to marked pictures: keygen, claim, provision, protect, embed, graft;
and surrogate, which steals what they publish."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from birthmark.cli import shared
from birthmark.errors import InvalidPicture
from birthmark.model_calibration import DRAWS, calibration_inputs, claim_model, loaded
from birthmark.progress import Progress


def add_commands(commands: shared.Commands) -> None:
    """Add this module's commands to the parser."""
    added = commands.add("keygen", _keygen, "Make an owner's key.", "birthmark keygen -o owner.key")
    added.add_argument("-o", "--output", required=True, help="the new key file (mode 0600)")
    added.add_argument("--history", metavar="FILE", help="begin a public history of your keys")
    shared.add_passphrase(added)

    added = commands.add(
        "claim",
        _claim,
        "Sign a claim to a model, and calibrate the mark on the model's own outputs.",
        'birthmark claim --key owner.key --owner "Studio X" --model M.onnx -o claim.json',
    )
    added.add_argument("--key", required=True)
    added.add_argument("--owner", required=True, help="the name that the claim is made in")
    added.add_argument("--model", required=True, help="the ONNX model to protect")
    added.add_argument("--logo", help="a PNG picture; the mark's emblem is drawn from it")
    added.add_argument("--contact", default="", help="how to reach the owner")
    added.add_argument(
        "--inputs",
        nargs="+",
        metavar="INPUT",
        help="typical inputs of the model to calibrate on (else photographs of the package)",
    )
    added.add_argument(
        "--draws",
        type=shared.count,
        metavar="N",
        help="keep the mark that reads best of N; verdicts count them (default:"
        f" {DRAWS}, or 1 where the model's outputs are as large as its inputs)",
    )
    shared.add_registry(added)
    added.add_argument("-o", "--output", required=True)
    shared.add_threads(added)
    shared.add_passphrase(added)

    added = commands.add(
        "provision",
        _provision,
        "Make the mark file that a device needs; it holds neither key nor payload in the clear.",
        "birthmark provision --key owner.key --claim claim.json -o m.mark\n"
        '  birthmark provision --key owner.key --claim claim.json --customer "Acme" -o acme.mark',
    )
    shared.add_key_and_claim(added)
    added.add_argument(
        "--customer", metavar="NAME", help="a mark of this customer's (device's) own"
    )
    shared.add_registry(added)
    added.add_argument("-o", "--output", required=True)
    shared.add_passphrase(added)

    added = commands.add(
        "protect",
        _protect,
        "Run a model over pictures and publish its outputs marked, as PNG with the same stems.",
        "birthmark protect --model M.onnx --mark m.mark photos/ -o published/",
    )
    added.add_argument("--model", required=True)
    _add_publishing(added, "INPUT")
    shared.add_threads(added)

    added = commands.add(
        "embed",
        _embed,
        "Mark pictures that already exist.",
        "birthmark embed --mark m.mark outputs/ -o published/",
    )
    _add_publishing(added, "PICTURE")

    added = commands.add(
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

    added = commands.add(
        "surrogate",
        _surrogate,
        "Steal a model: train a student on (input, output) pairs, to see whether it convicts."
        " Or train one on your own model's unmarked outputs: a reference for verify.",
        "birthmark surrogate --inputs photos/ --outputs published/ --student unet -o S.onnx\n"
        "  birthmark surrogate --model M.onnx --student resnet --steps 4000 -o reference.onnx",
    )
    added.add_argument("--inputs", help="folder of inputs (of a reference: else the package's)")
    added.add_argument("--outputs", help="folder of outputs with the same stems")
    added.add_argument("--model", help="instead: your model, which is run over the inputs")
    added.add_argument("--student", default="unet", help="unet (default), resnet, cnn, espcn ...")
    added.add_argument("--steps", type=shared.count, default=1500)
    added.add_argument("--seed", type=shared.count, default=0)
    added.add_argument("--loss", default="mse", help="mse (default), l1, charbonnier ...")
    added.add_argument("--checkpoint", help="save progress here, and go on from it")
    shared.add_threads(added, 1)
    added.add_argument("-o", "--output", required=True)


def _add_publishing(added: argparse.ArgumentParser, what: str) -> None:
    added.add_argument("--mark", required=True)
    added.add_argument(
        "inputs", nargs="+", metavar=what, help="picture files and folders; URLs too"
    )
    added.add_argument("-o", "--output", required=True, help="a new folder; a URL too")
    added.add_argument(
        "--resume",
        action="store_true",
        help="fill the folder in place, and go on where such a run was interrupted",
    )
    shared.add_engine(added)
    added.add_argument(
        "--kernel",
        help="scalar, sse4, avx2, avx512, avx512vnni or neon (all give the same bytes)",
    )


def _keygen(options: argparse.Namespace) -> int:
    from birthmark.key_history import KeyHistory
    from birthmark.keys import OwnerKey

    shared.new_files(options.output, options.history)
    key = OwnerKey.generate()
    key.save(options.output, shared.passphrase(options, twice=True))
    if options.history:
        KeyHistory.begin(key).save(options.history)
    public_key = key.public_key.hex()
    shared.say(
        options,
        f"{options.output}: public key {public_key}",
        output=options.output,
        public_key=public_key,
        history=options.history,
    )
    return 0


def _claim(options: argparse.Namespace) -> int:
    from birthmark.emblem import from_logo, text
    from birthmark.models import ImageModel

    shared.new_file(options.output)
    with shared.open_registry(options):
        pass  # one that cannot be used is said before any work is done
    key = shared.load_key(options)
    logo = Path(options.logo).read_bytes() if options.logo else None
    model = ImageModel(options.model, threads=options.threads)
    claim = claim_model(
        key,
        options.owner,
        model,
        options.model,
        calibration_inputs(model, options.inputs),
        draws=options.draws,
        logo=logo,
        contact=options.contact,
    )
    with shared.open_registry(options) as registry:
        claim.save(options.output)
        if registry:
            registry.add_claim(claim)
    digest = claim.digest.hex()
    shared.say(
        options,
        f"{options.output}: claim {digest}",
        output=options.output,
        claim=digest,
        emblem=claim.emblem,
    )
    if not options.json:
        drawn = "the logo" if logo and from_logo(logo, len(claim.emblem)) else "the public key"
        print(f"its emblem {claim.emblem}, drawn from {drawn}:")
        print("\n".join(f"  {line}".rstrip() for line in text(claim.emblem)))
    return 0


def _provision(options: argparse.Namespace) -> int:
    from birthmark.claim import Claim
    from birthmark.mark import provision

    shared.new_file(options.output)
    claim = Claim.load(options.claim)
    mark = provision(shared.load_key(options), claim, options.customer)
    with shared.open_registry(options) as registry:
        if registry:  # before the file: no mark may be out that nobody knows of
            registry.add_mark(claim, mark, options.customer)
        mark.save(options.output)
    shared.say(
        options,
        f"{options.output}: mark {mark.id}",
        output=options.output,
        mark=mark.id,
        customer=options.customer,
    )
    return 0


def _protect(options: argparse.Namespace) -> int:
    return _publish(options, options.model, options.threads)


def _embed(options: argparse.Namespace) -> int:
    return _publish(options, None, 0)


def _publish(options: argparse.Namespace, model: str | None, threads: int) -> int:
    """Mark pictures, or what a model makes of them, into a new folder."""
    from birthmark.mark import Mark
    from birthmark.publish import listed, publish

    progress = Progress("publishing")
    with shared.engine(options) as engine:
        published = publish(
            options.inputs,
            options.output,
            Mark.load(options.mark),
            model=model,
            kernel=options.kernel,
            threads=threads,
            resume=options.resume,
            engine=engine,
            progress=progress,
        )
    progress.close()
    count = published.done + len(published.failed)
    if published.failed:
        left_out = listed(published.failed)
        raise InvalidPicture(f"{published.done} of {count} published; left out: {left_out}")
    shared.say(
        options,
        f"{options.output}: {count} pictures published",
        output=options.output,
        pictures=count,
    )
    return 0


def _graft(options: argparse.Namespace) -> int:
    from birthmark.files import write_atomically
    from birthmark.graft import graft
    from birthmark.mark import Mark

    if bool(options.mark) == bool(options.mark_file):
        raise ValueError("give the mark file once, as MARK or with --mark")
    shared.new_file(options.output)
    mark = Mark.load(options.mark or options.mark_file)
    model = graft(
        options.model, mark, picture=options.picture, range=options.range, keep=options.keep
    )
    # It holds the mark in the clear, as the mark file does.
    write_atomically(options.output, model, mode=0o600)
    shared.say(options, f"{options.output}: mark {mark.id}", output=options.output, mark=mark.id)
    return 0


def _surrogate(options: argparse.Namespace) -> int:
    from birthmark.models import ImageModel
    from birthmark.training.surrogates import steal, steal_folder

    if bool(options.model) == bool(options.outputs) or not (options.model or options.inputs):
        raise ValueError("give either --inputs and --outputs, or --model, which makes its outputs")
    shared.new_files(options.output, kept=options.checkpoint)
    progress = Progress("stealing")
    if options.model:
        model = ImageModel(options.model, threads=options.threads)
        given = calibration_inputs(model, [options.inputs] if options.inputs else None)
        inputs = list(map(loaded, given))
        learn = partial(steal, inputs, [model(picture) for picture in inputs])
    else:
        learn = partial(steal_folder, options.inputs, options.outputs)
    surrogate = learn(
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
    shared.say(
        options,
        f"{options.output}: {options.student}, loss {surrogate.final_loss:.3g}",
        output=options.output,
        student=options.student,
        loss=float(surrogate.final_loss),
    )
    return 0
