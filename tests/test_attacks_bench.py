"""The adversary's bench: every attack runs, is resumed, and makes tables; the sure ones succeed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from birthmark import _core
from birthmark.calibration import Calibration, tint_fields
from birthmark.claim import Claim
from birthmark.extract import extractor_sha256
from birthmark.keys import OwnerKey
from birthmark.pictures import Picture
from conftest import ROOT, bench_script, some_photographs

EMPTY_BLOCK = "# Title\n\n<!-- attacks -->\nold\n<!-- /attacks -->\n\nThe end.\n"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with bench_script("attacks") as module:
        yield module


@pytest.fixture
def command(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    session_claim: tuple[OwnerKey, Claim, Calibration],
) -> list[str]:
    """Options for a run on a few small pictures, every attack at its first strength."""
    photos = some_photographs(tmp_path / "photos", 4, 3)
    key, claim, calibration = session_claim
    kept = tmp_path / "work" / extractor_sha256()[:12]
    kept.mkdir(parents=True)
    key.save(kept / "owner.key", "bench")
    claim.save(kept / "claim.json")
    (kept / "attacker.calibration").write_bytes(calibration.to_bytes())
    first = [
        replace(attack, strengths=attack.strengths[:1] or ("denoise_small",))
        for attack in bench.ATTACKS
    ]
    rows = [
        *(bench.Row(f"attack {one.name}", partial(bench.attacked, one)) for one in first),
        *(row for row in bench.ROWS if not row.name.startswith("attack ")),
    ]
    monkeypatch.setattr(bench, "ROWS", rows)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "HERE", tmp_path)
    (tmp_path / "docs").mkdir()
    for document in ("SECURITY.md", "docs/threat-model.md"):
        (tmp_path / document).write_text(EMPTY_BLOCK)
    return [
        *("run", "--steps", "2", "--side", "192", "--photos", str(photos)),
        *("--models", str(ROOT / "models"), "--work", str(tmp_path / "work")),
        *("--rows", str(tmp_path / "rows")),
    ]


def test_every_attack_runs_is_resumed_and_is_told_of(
    bench: ModuleType,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", command)
    assert bench.main() == 0
    printed = capsys.readouterr().out.splitlines()
    rows = {row["row"]: row for row in map(json.loads, printed)}
    assert list(rows) == [row.name for row in bench.ROWS]
    results = (tmp_path / "RESULTS.md").read_text()
    assert all(f"| {attack.name} |" in results for attack in bench.ATTACKS)
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    for document in ("SECURITY.md", "docs/threat-model.md"):
        text = (tmp_path / document).read_text()
        assert "old" not in text and text.endswith("The end.\n")
        assert "| mark file subtracted: share 0.25 | blind " in text

    before, after = (rows[f"attack {name}"]["points"][0] for name in ("none", "gains from pairs"))
    assert before["left"] == 1 and abs(after["left"]) < 0.75, "one small pair"
    assert after["log10_p"] > before["log10_p"] and after["psnr_db"] > before["psnr_db"] + 2
    levels = rows["curated"]["levels"]
    assert levels["flat"] < levels["photographs"] / 2, "there is no texture to echo"

    finished = tmp_path / "rows" / "attack-jpeg.json"
    stale = json.loads(finished.read_text()) | {"extractor": "of another state"}
    finished.write_text(json.dumps(stale))
    assert bench.main() == 0
    again = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["row"] for line in again] == ["attack JPEG"]

    (tmp_path / "SECURITY.md").write_text("No block here.\n")
    monkeypatch.setattr(sys, "argv", [*command, "--write"])
    with pytest.raises(ValueError, match=r"SECURITY\.md: the block of attacks stands there 0"):
        bench.main()


@pytest.mark.usefixtures("command")
def test_the_gains_are_found_from_pairs(tmp_path: Path) -> None:
    import learned
    from scene import Scene

    scene = Scene(tmp_path / "photos", ROOT / "models", tmp_path / "work", steps=2, side_px=192)
    found = learned.gains_of_pairs(scene.thiefs.marked, scene.thiefs.host)
    true = sys.modules["insider"].mark_gains(scene)
    # Tones that four small pictures hardly hold are not found.
    echoes = [gains[: _core.ORBITS].ravel() for gains in (found, true)]
    assert np.corrcoef(*echoes)[0, 1] > 0.5
    tints = [
        np.concatenate([tint_of(gains, p).ravel() for p in scene.thiefs.host])
        for gains in (found, true)
    ]
    assert np.corrcoef(*tints)[0, 1] > 0.5


def tint_of(gains: np.ndarray, picture: Picture) -> np.ndarray:
    """What the tint of these gains adds to a picture, in grey levels [h, w, 3]."""
    tone, fields = tint_fields(_core.fields(picture))
    of_fields = gains[_core.ORBITS :].reshape(3, _core.TINT_FIELDS, _core.TONES)[..., tone]
    units = np.array([64, 32768, 32768, 32768])[:, None, None]
    return np.einsum("cfhw,fhw->hwc", of_fields / units, fields)
