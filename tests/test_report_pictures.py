"""The pictures that a report shows of a case, wherever they came from."""

from __future__ import annotations

import base64
import html
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from birthmark import cli, verdict
from birthmark.cli import shared
from birthmark.pictures import Picture, decode_picture, encode_png, psnr_db, write_png
from conftest import Published
from test_report import CHROMIUM, checked

PASSPHRASE = "correct horse battery staple"
HEIGHT, WIDTH = 120, 160
EVERY = 10
Shown = dict[str, Picture]
Report = Callable[[str], Shown]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, session_claim, published: Published) -> Path:
    """A folder with key and claim, and the same pictures in a folder, an archive, a video."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    key, claim, _ = session_claim
    key.save(folder / "owner.key", PASSPHRASE)
    claim.save(folder / "claim.json")
    pictures = [np.ascontiguousarray(p[:HEIGHT, :WIDTH]) for p in published.marked[:6]]
    (folder / "files").mkdir()
    for i, picture in enumerate(pictures[:5]):
        write_png(folder / "files" / f"p{i}.png", picture)
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for name, data in {
            "a.png": encode_png(pictures[0]),
            "b.png": encode_png(pictures[1]),
            "c.png": b"no picture",
            "d.png": encode_png(pictures[0]),  # once more
            "e.png": encode_png(pictures[2]),
            "f.png": encode_png(pictures[3]),
        }.items():
            archive.writestr(name, data)
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(folder / "film.avi"), code, 25, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for picture in pictures[:5]:
        for _ in range(EVERY):
            writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    (folder / "mixed").mkdir()
    write_png(folder / "mixed" / "p4.png", pictures[4])
    (folder / "mixed" / "film.avi").write_bytes((folder / "film.avi").read_bytes())
    with zipfile.ZipFile(folder / "one.zip", "w") as archive:
        archive.writestr("a.png", encode_png(pictures[5]))
    return folder


@pytest.fixture
def report(work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Report:
    """Judge suspects by the command line; what its report shows, by caption."""
    monkeypatch.chdir(work)
    monkeypatch.setenv(shared.PASSPHRASE_VARIABLE, PASSPHRASE)

    def shown(suspects: str) -> Shown:
        line = f"verify --key owner.key --claim claim.json {suspects} --report {tmp_path}/r.html"
        assert cli.main(line.split()) in (0, 1)
        text = (tmp_path / "r.html").read_text()
        checked(text)
        section = re.search(r'<section id="examples".*?</section>', text, re.S)
        figures = re.findall(
            r'<img src="data:image/png;base64,([^"]*)".*?<figcaption>(.*?)</figcaption>',
            section[0] if section else "",
        )
        return {
            html.unescape(caption): decode_picture(base64.b64decode(data), caption)
            for data, caption in figures
        }

    return shown


@pytest.mark.parametrize(
    ("suspects", "expected"),
    [
        ("files", {"files/p0.png": 0, "files/p1.png": 1, "files/p2.png": 2}),
        ("all.zip", {"all.zip: a.png": 0, "all.zip: b.png": 1, "all.zip: e.png": 2}),
        ("film.avi", {"film.avi: frame 0": 0, "film.avi: frame 10": 1, "film.avi: frame 20": 2}),
        ("film.avi --every 25", {"film.avi: frame 0": 0, "film.avi: frame 25": 2}),
        (
            "one.zip mixed",
            {"one.zip: a.png": 5, "mixed/film.avi: frame 0": 0, "mixed/film.avi: frame 10": 1},
        ),
        (
            "mixed one.zip --every 50",
            {"mixed/film.avi: frame 0": 0, "mixed/p4.png": 4, "one.zip: a.png": 5},
        ),
    ],
)
def test_a_report_shows_the_first_three_wherever_they_are(
    work: Path, report: Report, published: Published, suspects: str, expected: dict[str, int]
) -> None:
    """Those that were judged: neither the one that cannot be read nor the one that is there twice.
    Nothing is unpacked to the disk."""
    before = sorted(work.rglob("*"))
    shown = report(suspects)
    assert sorted(work.rglob("*")) == before
    assert list(shown) == list(expected)
    for caption, picture in shown.items():
        original = published.marked[expected[caption]][:HEIGHT, :WIDTH]
        if "frame" in caption:
            assert psnr_db(picture, original) > 25
        else:
            assert np.array_equal(picture, original)


@pytest.mark.parametrize("suspect", ["files/p0.png", "all.zip", "film.avi"])
def test_what_is_gone_by_then_is_not_shown(
    work: Path, report: Report, monkeypatch: pytest.MonkeyPatch, suspect: str
) -> None:
    """The verdict stands, and so does the report."""
    data, judge = (work / suspect).read_bytes(), verdict.verify

    def verify_and_remove(*given: Any, **settings: Any) -> verdict.Verdict:
        answer = judge(*given, **settings)
        (work / suspect).unlink()
        return answer

    monkeypatch.setattr(verdict, "verify", verify_and_remove)
    try:
        assert list(report(f"{suspect} one.zip")) == ["one.zip: a.png"]
    finally:
        (work / suspect).write_bytes(data)


@pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium (Debian's package) here")
@pytest.mark.parametrize("suspects", ["all.zip", "film.avi", "one.zip mixed"])
def test_a_browser_shows_them(report: Report, tmp_path: Path, suspects: str) -> None:
    from playwright.sync_api import sync_playwright

    captions = list(report(suspects))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.goto((tmp_path / "r.html").as_uri(), timeout=120_000)
        section = tab.get_by_role("region", name="Pictures of the case")
        assert section.get_by_role("figure").all_inner_texts() == captions
        sizes = section.get_by_role("img").evaluate_all("all => all.map(i => i.naturalWidth)")
        assert sizes == [WIDTH] * len(captions)
        section.screenshot(path=tmp_path / "pictures.png")
        tab.screenshot(path=tmp_path / "r.png", full_page=True)
        browser.close()
    assert (tmp_path / "pictures.png").stat().st_size > 10_000
