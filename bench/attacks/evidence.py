"""Whether a forged mark is told from an inherited one, and what helps against the worst attacks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from insider import believed, cosine_of, mark_believed, read
from learned import gains_of_pairs, remover
from scene import Gains, Scene, amplitude, folded, without

from birthmark.embed import Embedder
from birthmark.extract import pixels_sha256
from birthmark.mark import coordinates, provision
from birthmark.models import ImageModel
from birthmark.pictures import Picture
from birthmark.tails import log10_p_of_cosine
from birthmark.trial import NONCE_BYTES, Trial
from birthmark.verdict import Suspect, Verdict, verify

QUARTERS = 4
OTHER = "another customer"


def direction(scene: Scene, customer: str | None = None) -> np.ndarray:
    """The coordinates of a mark, of length 1: known to the owner alone."""
    key = scene.claim.mark_key(scene.key)
    key = key if customer is None else key.customer(customer)
    z = coordinates(key, scene.claim, scene.calibration.coordinates)
    return z / np.linalg.norm(z)


def profile(scene: Scene, estimate: np.ndarray) -> np.ndarray:
    """How much of the mark is read in each quarter of its coordinates, 1 where all of it is."""
    own = direction(scene)
    whole = scene.before.estimate * own
    now, full = (np.array_split(x, QUARTERS) for x in (estimate * own, whole))
    return np.array([part.sum() / of.sum() for part, of in zip(now, full, strict=True)])


def forgeries(scene: Scene) -> dict[str, list[Picture]]:
    """Innocent answers under marks that were put on them, each in another way."""
    innocent = scene.surrogate("of unmarked outputs", scene.thiefs.host)
    answers = [innocent(x) for x in scene.judged.inputs]
    inherited = scene.surrogate("of marked outputs", scene.thiefs.marked)
    taught = [inherited(x) for x in scene.judged.inputs]
    network = scene.trained(
        "forger", scene.thiefs.host, scene.thiefs.marked, share=0.5, student="resnet"
    )
    residuals = [
        m.astype(np.int16) - h for m, h in zip(scene.judged.marked, scene.judged.host, strict=True)
    ]
    own = direction(scene)
    # Somebody who stole a thief's network can see how strong each part of the mark is in it.
    shape = np.repeat(
        profile(scene, scene.judge(taught).estimate),
        [len(part) for part in np.array_split(own, QUARTERS)],
    )
    shaped = shape * own * np.sqrt(len(own))
    tint = coordinates(
        scene.claim.mark_key(scene.key).tint, scene.claim, scene.calibration.tint_coordinates
    )
    return {
        "inherited: trained on marked outputs": taught,
        "innocent: trained on unmarked outputs": answers,
        "forged with a stolen mark file": _marked(scene.mark, answers),
        "forged with what the claim lets one read": _marked(
            folded(mark_believed(scene.thiefs, len(scene.thiefs.marked), scene.calibration)),
            answers,
        ),
        "forged with gains from pairs": _marked(
            folded(gains_of_pairs(scene.thiefs.marked, scene.thiefs.host)), answers
        ),
        "forged by a network taught on pairs": [network(p) for p in answers],
        "forged: residual of the same input copied": _with(answers, residuals),
        "forged: residual of another input copied": _with(answers, _shifted(residuals)),
        "forged to look inherited (key known)": _marked(
            folded(scene.calibration.gains(shaped, tint)), answers
        ),
    }


def _marked(mark: Any, pictures: Sequence[Picture]) -> list[Picture]:
    embedder = Embedder(mark)
    return [embedder.embed(p) for p in pictures]


def _with(pictures: Sequence[Picture], residuals: Sequence[np.ndarray]) -> list[Picture]:
    return [
        np.clip(p + r, 0, 255).astype(np.uint8) for p, r in zip(pictures, residuals, strict=True)
    ]


def _shifted(residuals: list[np.ndarray]) -> list[np.ndarray]:
    """Each picture's residual on the next one, cut or repeated to its size."""
    return [np.resize(residuals[i - 1], r.shape) for i, r in enumerate(residuals)]


def forgery_rows(scene: Scene) -> list[dict[str, Any]]:
    """Each way's evidence, and how the mark is spread over its coordinates."""
    rows = []
    for name, pictures in forgeries(scene).items():
        verdict = scene.judge(pictures)
        rows.append(
            {
                "name": name,
                "decision": str(verdict.decision),
                "log10_p": round(verdict.log10_p, 1),
                "informed_log10_p": round(scene.informed(scene.answers(pictures)), 1),
                "left": round(amplitude(verdict) / amplitude(scene.before), 2),
                "quarters": [round(float(x), 2) for x in profile(scene, verdict.estimate)],
                "payload": verdict.payload_is_claimed,
            }
        )
    return rows


def trial_rows(scene: Scene) -> list[dict[str, Any]]:
    """Fresh questions that both sides chose, put to the accused's model itself."""
    innocent = scene.surrogate("of unmarked outputs", scene.thiefs.host)
    forged = _marked(
        folded(mark_believed(scene.thiefs, len(scene.thiefs.marked), scene.calibration)),
        [innocent(x) for x in scene.thiefs.inputs],
    )
    suspects: dict[str, Suspect] = {
        "the innocent's model, whose forged pictures were found": innocent,
        "a thief's network": scene.surrogate("of marked outputs", scene.thiefs.marked),
        "a network that somebody trained on forged pictures": scene.surrogate(
            "of forged pictures", forged
        ),
    }
    return [{"name": name, **_tried(scene, suspect)} for name, suspect in suspects.items()]


def _tried(scene: Scene, suspect: Suspect) -> dict[str, Any]:
    blind, informed = (_trial(scene, suspect, model) for model in (None, scene.model))
    return {
        "queries": len(blind.measured.inputs),
        "decision": str(blind.decision),
        "log10_p": round(blind.log10_p, 1),
        "informed_decision": str(informed.decision),
        "informed_log10_p": round(informed.log10_p, 1),
    }


def _trial(scene: Scene, suspect: Suspect, model: ImageModel | None) -> Verdict:
    inputs = scene.judged.inputs
    digests = [pixels_sha256(x) for x in inputs]
    queries = max(1, 3 * len(inputs) // 4)
    informed = model is not None
    trial = Trial.declare(scene.key, scene.claim, digests, queries, informed=informed)
    trial = trial.joined(os.urandom(NONCE_BYTES))
    return verify(
        None, scene.claim, scene.key, suspect=suspect, inputs=inputs, trial=trial, model=model
    )


def customer_rows(scene: Scene) -> list[dict[str, Any]]:
    """What was learned from one customer's outputs, tried on another's."""
    embedder = Embedder(provision(scene.key, scene.claim, OTHER))
    theirs = [embedder.embed(h) for h in scene.judged.host]
    known = mark_believed(scene.thiefs, len(scene.thiefs.marked), scene.calibration)
    removals = {
        "nothing": lambda pictures: pictures,
        "network from pairs": lambda pictures: remover(
            scene, scene.judged.of(pictures), len(scene.thiefs.marked)
        ),
        "gains from pairs": lambda pictures: without(
            pictures, gains_of_pairs(scene.thiefs.marked, scene.thiefs.host)
        ),
        "read with the claim": lambda pictures: without(pictures, known),
    }
    rows = []
    for name, removed in removals.items():
        own, other = removed(scene.judged.marked), removed(theirs)
        rows.append(
            {
                "name": name,
                "own_log10_p": round(scene.judge(own).log10_p, 1),
                "other_log10_p": round(scene.judge(other, OTHER).log10_p, 1),
            }
        )
    return rows


def rotation_row(scene: Scene, marks: int) -> dict[str, Any]:
    """Outputs under several marks in turn, and what pooling does to them and to the evidence."""
    names = [f"period {i}" for i in range(marks)]
    embedders = [Embedder(provision(scene.key, scene.claim, name)) for name in names]
    marked, judged = (
        [embedders[i % marks].embed(h) for i, h in enumerate(of.host)]
        for of in (scene.thiefs, scene.judged)
    )
    common: Gains = np.sum([direction(scene, name) for name in names], axis=0)
    common /= np.linalg.norm(common)
    z = believed(marked, scene.calibration)
    figures: dict[str, Any] = {"marks": marks}
    after = without(judged, scene.calibration.gains(z))
    for when, pictures in (("before", judged), ("after", after)):
        estimate = read(pictures, scene.calibration)
        figures[f"common_log10_p_{when}"] = round(_log10_p(estimate, common), 1)
        own = [
            scene.judge(pictures[i::marks], name).log10_p
            for i, name in enumerate(names)
            if pictures[i::marks]
        ]
        figures[f"own_log10_p_{when}"] = round(float(np.median(own)), 1)
    thief = scene.surrogate(f"of {marks} marks", marked)
    answers = [thief(x) for x in scene.judged.inputs]
    figures["surrogate_log10_p"] = round(_log10_p(read(answers, scene.calibration), common), 1)
    return figures


def reading_rows(scene: Scene) -> list[dict[str, Any]]:
    """What the owner proves from some outputs, and how near the mark anybody reads from them."""
    rows = []
    for count in (1, 4, 16, len(scene.thiefs.marked)):
        pictures = scene.thiefs.marked[:count]
        z = read(pictures, scene.calibration)
        rows.append(
            {
                "outputs": count,
                "log10_p": round(scene.judge(pictures).log10_p, 1),
                "cosine": round(float(z @ direction(scene) / np.linalg.norm(z)), 2),
            }
        )
    return rows


def coordinates_rows() -> list[dict[str, Any]]:
    """Computed: the cosine of what anybody reads where the owner's p-value is this."""
    return [
        {
            "coordinates": n,
            "cosines": {str(p): round(cosine_of(p, n), 2) for p in (-6, -12, -24)},
        }
        for n in (68, 272, 1000, 4000)
    ]


def _log10_p(estimate: np.ndarray, along: np.ndarray) -> float:
    return log10_p_of_cosine(float(estimate @ along / np.linalg.norm(estimate)), len(along))
