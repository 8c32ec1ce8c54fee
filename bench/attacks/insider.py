"""Attacks by somebody who has the code and more: a claim, a mark file, a verifier, other marks."""

from __future__ import annotations

import numpy as np
from scene import Gains, Published, Scene, enlarged, halved, without

from birthmark import _core
from birthmark.calibration import Calibration, calibrate
from birthmark.embed import Embedder
from birthmark.extract import Pool, read_echo
from birthmark.files import write_atomically
from birthmark.mark import provision
from birthmark.pictures import Picture
from birthmark.regression import Regression
from birthmark.tails import log10_p_of_cosine

TURNS = 2
ASKED_ABOUT = 4
"""Pictures that a verifier is asked about, over and over."""
PROBE_LENGTH = 4.0
"""Of a question's step; a mark has the square root of the number of coordinates."""


def read(pictures: list[Picture], calibration: Calibration) -> np.ndarray:
    """What anybody reads who has pictures and a calibration, and no key: coordinates."""
    pool = Pool()
    for i, picture in enumerate(pictures):
        pool.add(str(i), picture)
    return read_echo(pool.total(), calibration)


def believed(pictures: list[Picture], calibration: Calibration) -> np.ndarray:
    """The echo as one reads it without a key: read, subtract, and read what is left."""
    z = np.zeros(calibration.coordinates)
    left = pictures
    for _ in range(TURNS):
        z = z + read(left, calibration)
        left = without(pictures, calibration.gains(z))
    return z


def tint_believed(
    pictures: list[Picture], inputs: list[Picture], calibration: Calibration
) -> np.ndarray:
    """The tint as one reads it without key and model: coordinates.

    Enlarged, the inputs have nearly the colours of the unmarked outputs.
    """
    regression = Regression.empty()
    for picture, asked in zip(pictures, inputs, strict=True):
        regression.add(picture, enlarged(asked, picture))
    return regression.read_tint(calibration)


def mark_believed(of: Published, outputs: int, calibration: Calibration) -> Gains:
    """The gains of echo and tint, as read from so many published outputs and their inputs."""
    pictures, inputs = of.marked[:outputs], of.inputs[:outputs]
    return calibration.gains(
        believed(pictures, calibration), tint_believed(pictures, inputs, calibration)
    )


def estimated(scene: Scene, of: Published, outputs: int) -> list[Picture]:
    """Read from so many published outputs with the claim's calibration, and subtracted."""
    return without(of.marked, mark_believed(scene.thiefs, outputs, scene.calibration))


def estimated_alone(scene: Scene, of: Published, strength: float) -> list[Picture]:
    """Each picture cleaned of the echo that is read from it alone, times a strength."""
    out = []
    for picture in of.marked:
        z = read([picture], scene.calibration)
        out += without([picture], scene.calibration.gains(strength * z))
    return out


def own_calibration(scene: Scene) -> Calibration:
    """What the attacker measures himself: photographs, halved and enlarged as anybody can."""
    file = scene.work / "attacker.calibration"
    if not file.exists():
        outputs = [enlarged(halved(p), p) for p in scene.thiefs.truth]
        planes = [np.ascontiguousarray(p.transpose(2, 0, 1), np.float32) / 255 for p in outputs]
        write_atomically(file, calibrate(planes).to_bytes())
    return Calibration.from_bytes(file.read_bytes())


def estimated_without_claim(scene: Scene, of: Published, outputs: int) -> list[Picture]:
    """The same with the attacker's own calibration: he knows the code, and has no claim."""
    return without(of.marked, mark_believed(scene.thiefs, outputs, own_calibration(scene)))


def mark_gains(scene: Scene) -> Gains:
    """What a stolen mark file holds."""
    _, stolen = _core.read_mark(scene.mark.data)
    return stolen.astype(np.float64)


def subtracted(scene: Scene, of: Published, share: float) -> list[Picture]:
    """The stolen mark's negative added, times a share."""
    return without(of.marked, share * mark_gains(scene))


def direction_asked_for(scene: Scene, questions: int) -> np.ndarray:
    """The key's own direction of the echo, from a verifier that tells p as often as he is asked.

    p gives the cosine c between that direction d and the estimate, which anybody can read. A
    question adds a step along one axis of the (public) space of marks to a few marked pictures, or
    subtracts it; two give the cosine's slope along that axis. The slope is d less its part along
    the estimate; that part's size is c.
    """
    pictures = scene.thiefs.marked[:ASKED_ABOUT]
    n = scene.calibration.coordinates
    estimate = read(pictures, scene.calibration)
    estimate /= np.linalg.norm(estimate)
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0][: questions // 2]
    slope = np.zeros(n)
    for axis in axes:
        step = scene.calibration.gains(PROBE_LENGTH * axis)
        less, more = (scene.judge(without(pictures, sign * step)).log10_p for sign in (1, -1))
        slope += (cosine_of(more, n) - cosine_of(less, n)) * axis
    along = cosine_of(scene.judge(pictures).log10_p, n)
    slope -= slope @ estimate * estimate
    across = slope / max(float(np.linalg.norm(slope)), 1e-12)
    return along * estimate + np.sqrt(1 - along**2) * across


def cosine_of(log10_p: float, n: int) -> float:
    """The cosine, at least 0, that has this p-value in n dimensions."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if log10_p_of_cosine(middle, n) > log10_p else (low, middle)
    return low


def asked_verifier(scene: Scene, of: Published, questions: int) -> list[Picture]:
    """The mark of that direction subtracted: a mark's length is public."""
    d = direction_asked_for(scene, questions)
    return without(of.marked, scene.calibration.gains(np.sqrt(len(d)) * d))


def overwritten(scene: Scene, of: Published, marks: int) -> list[Picture]:
    """So many marks of the attacker's own on top, by the same code."""
    pictures = of.marked
    for embedder in scene.proxies(marks):
        pictures = [embedder.embed(p) for p in pictures]
    return pictures


def averaged(scene: Scene, of: Published, copies: int) -> list[Picture]:
    """The mean of so many differently marked outputs of each input, this one's among them."""
    others = [
        Embedder(provision(scene.key, scene.claim, f"customer {i}")) for i in range(1, copies)
    ]
    out = []
    for marked, host in zip(of.marked, of.host, strict=True):
        stack = [marked, *(e.embed(host) for e in others)]
        out.append(np.rint(np.mean(stack, axis=0)).astype(np.uint8))
    return out
