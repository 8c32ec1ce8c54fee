"""Suspect pictures: every way to give them, and everything that can be wrong with them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthmark import suspects
from birthmark.errors import CouldNotJudge, InvalidPicture
from birthmark.pictures import Picture, encode_png, psnr_db, write_png
from birthmark.suspects import SuspectPictures
from birthmark.verdict import verify
from conftest import Published


def noise(seed: int, height: int = 40, width: int = 60) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def readable(given: SuspectPictures) -> dict[str, Picture]:
    """Names and pixels of those that can be read."""
    return {name: picture for name, picture, _ in read_all(given) if picture is not None}


def refused(given: SuspectPictures) -> dict[str, str]:
    """Names and reasons of those that cannot."""
    return {name: reason for name, _, reason in read_all(given) if reason}


def read_all(given: SuspectPictures) -> list[tuple[str, Picture | None, str]]:
    found: list[tuple[str, Picture | None, str]] = []
    for picture in given:
        try:
            found.append((picture.name, picture.read(), ""))
        except InvalidPicture as error:
            said = str(error)
            assert said.startswith(f"{picture.name}: ") and "\n" not in said
            found.append((picture.name, None, said.removeprefix(f"{picture.name}: ")))
    return found


def smooth(index: int, height: int = 96, width: int = 128) -> Picture:
    """A frame that a lossy codec keeps well, and that differs from its neighbours."""
    y, x = np.mgrid[0:height, 0:width]
    grey = 128 + 90 * np.sin(x / 17 + index / 4) * np.cos(y / 13)
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)


def write_video(path: Path, frames: int) -> None:
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (128, 96))
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.ascontiguousarray(smooth(i)[:, :, ::-1]))
    writer.release()


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_a_folder_gives_its_pictures_and_names_the_rest(tmp_path: Path) -> None:
    write_png(tmp_path / "b.png", noise(1))
    write_png(tmp_path / "a.png", noise(0))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / "sub").mkdir()
    zipped(tmp_path / "z.zip", {"c.png": encode_png(noise(2))})
    given = SuspectPictures([tmp_path, tmp_path / "a.png"])
    pictures = readable(given)
    assert list(pictures) == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert np.array_equal(pictures[str(tmp_path / "b.png")], noise(1))
    reasons = {Path(name).name: reason for name, reason in refused(given).items()}
    assert reasons.keys() == {"broken.jpg", "Thumbs.db", "sub", "z.zip"}
    assert "folder" in reasons["sub"] and "archive" in reasons["z.zip"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_would_never_end_is_named_and_not_opened(tmp_path: Path) -> None:
    """A pipe waits for somebody who writes, a device gives bytes for ever."""
    write_png(tmp_path / "a.png", noise(0))
    for name in ("pipe.png", "pipe.mp4", "pipe.zip"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    (tmp_path / "round.png").symlink_to("round.png")
    (tmp_path / "nowhere.png").symlink_to("missing")
    given = SuspectPictures([tmp_path, tmp_path / "pipe.zip"])
    assert list(readable(given)) == [str(tmp_path / "a.png")]
    assert given.count() == 8
    reasons = {Path(name).name: reason for name, reason in refused(given).items()}
    special = {name for name, reason in reasons.items() if "not a regular file" in reason}
    assert special == {"pipe.png", "pipe.mp4", "pipe.zip", "zeros.png"}
    assert "No such file" in reasons["nowhere.png"]
    assert "symbolic links" in reasons["round.png"]


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may look everywhere")
def test_a_locked_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    for name in ("locked", "locked/a.png"):
        with pytest.raises(InvalidPicture, match=r"locked.*Permission denied"):
            SuspectPictures([tmp_path / name])


def test_a_name_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidPicture, match="File name too long"):
        SuspectPictures(["x" * 300])


@pytest.mark.parametrize("name", ["nowhere.png", "no*.png", "empty"])
def test_nothing_there_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidPicture, match=name.replace("*", r"\*")):
        SuspectPictures([tmp_path / name])


def test_patterns(tmp_path: Path) -> None:
    for name in ("a1.png", "a2.png", "b1.png", "deep/er/a3.png", "[a].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / name, noise(len(name)))

    def names(*patterns: str) -> list[str]:
        return [Path(p.name).name for p in SuspectPictures(tmp_path / t for t in patterns)]

    assert names("a*.png") == ["a1.png", "a2.png"]
    assert names("?1.png", "a1.png") == ["a1.png", "b1.png"]
    assert sorted(names("**/a*.png")) == ["a1.png", "a2.png", "a3.png"]
    assert names("[a].png") == ["[a].png"]  # a file of that name is no pattern
    assert sorted(names("**")) == ["[a].png", "a1.png", "a2.png", "a3.png", "b1.png"]


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
@pytest.mark.parametrize("every", [1, 4, 100])
def test_every_nth_frame_of_a_video(tmp_path: Path, suffix: str, every: int) -> None:
    path = tmp_path / f"film{suffix}"
    write_video(path, 22)
    given = SuspectPictures([path], every=every)
    wanted = list(range(0, 22, every))
    pictures = readable(given)
    assert list(pictures) == [f"{path}: frame {i}" for i in wanted]
    assert refused(given) == {}
    assert given.count() == len(wanted)
    for i, picture in zip(wanted, pictures.values(), strict=True):
        assert psnr_db(picture, smooth(i)) > 30
        assert psnr_db(picture, smooth(i)) > psnr_db(picture, smooth(i + 3))


def test_every_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SuspectPictures([], every=0)


PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"


@pytest.mark.parametrize("data", [b"", PLAYLIST, b"\0\0\0\x18ftypmp42" + bytes(40), bytes(100)])
def test_what_is_no_video_is_named(tmp_path: Path, data: bytes) -> None:
    write_png(tmp_path / "a.png", noise(0))
    (tmp_path / "film.mp4").write_bytes(data)
    given = SuspectPictures([tmp_path])
    assert len(readable(given)) == 1
    assert list(refused(given)) == [str(tmp_path / "film.mp4")]


def test_a_playlist_does_not_open_other_files(tmp_path: Path) -> None:
    """FFmpeg reads this one as the frames of the other file, whatever its name."""
    write_video(tmp_path / "secret.avi", 5)
    (tmp_path / "film.mp4").write_text("ffconcat version 1.0\nfile secret.avi\n")
    given = SuspectPictures([tmp_path / "film.mp4"])
    assert not readable(given)
    assert "not an MP4" in refused(given)[str(tmp_path / "film.mp4")]


def test_a_truncated_video_is_named_and_its_frames_count(tmp_path: Path) -> None:
    whole = tmp_path / "whole.avi"
    write_video(whole, 40)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    given = SuspectPictures([cut], every=5)
    assert 0 < len(readable(given)) < 8
    reasons = refused(given)
    assert reasons and str(cut) in reasons


def test_an_archive_s_pictures_are_read_in_memory(tmp_path: Path) -> None:
    members = {
        "b/2.png": encode_png(noise(2)),
        "1.PNG": encode_png(noise(1)),
        "notes.txt": b"hello",
        "inner.zip": b"PK",
        "broken.png": encode_png(noise(3))[:-20],
        "empty.png": b"",
    }
    path = zipped(tmp_path / "case.zip", members)
    given = SuspectPictures([path])
    pictures = readable(given)
    assert list(pictures) == [f"{path}: 1.PNG", f"{path}: b/2.png"]
    assert np.array_equal(pictures[f"{path}: b/2.png"], noise(2))
    assert set(refused(given)) == {
        f"{path}: {name}" for name in ("notes.txt", "inner.zip", "broken.png", "empty.png")
    }
    assert given.count() == 6
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/evil.png", "..\\evil.png", "a\nb.png"])
def test_a_member_s_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    work = tmp_path / "deep" / "er"
    work.mkdir(parents=True)
    path = zipped(work / "x.zip", {name: encode_png(noise(0))})
    before = sorted(tmp_path.rglob("*"))
    assert len(readable(SuspectPictures([path]))) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.exists("/etc/evil.png")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = encode_png(noise(0))
    path = zipped(tmp_path / "x.zip", {"bomb.png": bytes(8 << 20), "good.png": good})
    given = SuspectPictures([path])
    assert "times its size" in refused(given)[f"{path}: bomb.png"]
    assert list(readable(given)) == [f"{path}: good.png"]
    monkeypatch.setattr(suspects, "MAX_MEMBER_BYTES", len(good) - 1)
    assert "accepted" in refused(SuspectPictures([path]))[f"{path}: good.png"]


def test_a_member_that_holds_more_than_it_states_is_not_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"liar.png": bytes(64 << 20)})
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + at, 1000)
    path.write_bytes(data)
    code = (
        "import resource, sys; from birthmark.suspects import SuspectPictures\n"
        "import cv2\n"
        "held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for p in SuspectPictures(sys.argv[1:]):\n"
        "    try: p.read()\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    kind, grown_kib = done.stdout.split()
    assert kind == "InvalidPicture"
    assert int(grown_kib) < 32 << 10


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    """As in Fifield, "A better zip bomb", WOOT 2019: many entries of one compressed kernel."""
    path = zipped(tmp_path / "x.zip", {"a.png": encode_png(noise(0))})
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    directory = data[start:end] * 50
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 50, 50, len(directory), start, 0)
    path.write_bytes(data[:start] + directory + tail)
    given = SuspectPictures([path])
    assert "overlap" in refused(given)[str(path)] and not readable(given)


def test_a_directory_without_end_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "x.zip", {f"{i}.png": b"" for i in range(300)})
    monkeypatch.setattr(suspects, "_MAX_DIRECTORY_BYTES", 10_000)
    assert "too large" in refused(SuspectPictures([path]))[str(path)]


def test_encrypted_and_oddly_packed_members_are_named(tmp_path: Path) -> None:
    good = encode_png(noise(0))
    path = zipped(tmp_path / "x.zip", {"a.png": good})
    packed = zipped(tmp_path / "y.zip", {"a.png": good}, zipfile.ZIP_LZMA)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert refused(SuspectPictures([path])) == {f"{path}: a.png": "encrypted"}
    assert "method" in refused(SuspectPictures([packed]))[f"{packed}: a.png"]


def changed(path: Path, change: Callable[[bytearray], object]) -> Path:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    return path


def test_each_way_to_damage_an_archive_is_named(tmp_path: Path) -> None:
    """zipfile answers each of these with an exception of another kind."""
    picture = cv2.imencode(".bmp", np.zeros((40, 60, 3), np.uint8))[1].tobytes()

    def fresh(name: str, member: str = "a.bmp") -> Path:
        return zipped(tmp_path / name, {member: picture, "b.png": encode_png(noise(0))})

    def directory(data: bytearray) -> int:
        return data.index(b"PK\x01\x02")

    no_utf8 = changed(fresh("name.zip", "é.bmp"), lambda d: d.__setitem__(directory(d) + 46, 0xFF))
    too_new = changed(fresh("new.zip"), lambda d: d.__setitem__(directory(d) + 6, 99))
    away = changed(
        fresh("away.zip"), lambda d: struct.pack_into("<I", d, directory(d) + 42, 1 << 31)
    )
    rubbish = changed(fresh("zlib.zip"), lambda d: d.__setitem__(slice(35, 45), b"\xff" * 10))
    cut = changed(fresh("cut.zip"), lambda d: d.__delitem__(slice(len(d) // 2, None)))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.zip").symlink_to("/proc/self/mem")
    for path in (no_utf8, too_new, cut, folder / "link.zip"):
        assert list(refused(SuspectPictures([path]))) == [str(path)]
    for path in (away, rubbish):
        given = SuspectPictures([path])
        assert list(refused(given)) == [f"{path}: a.bmp"]
        assert list(readable(given)) == [f"{path}: b.png"]


@settings(max_examples=150)
@given(data=st.data())
def test_damage_to_an_archive_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    zipped(path, {"a.png": encode_png(noise(0, 5, 7)), "é.png": encode_png(noise(1, 5, 7))})
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    given = SuspectPictures([path])
    assert given.count() >= 0
    read_all(given)


def test_some_are_spread_and_skip_what_is_broken(tmp_path: Path) -> None:
    for i in range(12):
        write_png(tmp_path / f"{i:02}.png", noise(i))
    (tmp_path / "00.png").write_bytes(b"nothing")
    some = SuspectPictures([tmp_path]).some(6)
    taken = [next(i for i in range(12) if np.array_equal(p, noise(i))) for p in some]
    assert len(taken) == 6 and taken == sorted(taken) and taken[0] == 1 and taken[-1] >= 10
    assert len(SuspectPictures([tmp_path / "03.png"]).some(6)) == 1
    with pytest.raises(InvalidPicture, match=r"00\.png"):
        SuspectPictures([tmp_path / "00.png"]).some(6)


def test_the_same_pictures_give_the_same_verdict_however_they_come(
    session_claim, published: Published, tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    folder = tmp_path / "published"
    folder.mkdir()
    for i, picture in enumerate(published.marked):
        write_png(folder / f"{i}.png", picture)
    members = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    archive = zipped(tmp_path / "x.zip", {**members, "broken.png": b"nothing"}, zipfile.ZIP_STORED)
    verdicts = [
        verify(given, claim, key)
        for given in (published.marked, [folder], [folder / "*.png"], [archive], [archive, folder])
    ]
    assert {v.log10_p for v in verdicts} == {verdicts[0].log10_p}
    assert verdicts[0].log10_p < -9
    assert verdicts[3].rejected == (
        (f"{archive}: broken.png", "not a PNG, JPEG, WebP, BMP or TIFF file"),
    )
    assert len(verdicts[4].rejected) == 1 + len(members)  # the same pixels count once


def test_the_mark_is_read_from_a_lossless_video(
    session_claim, published: Published, tmp_path: Path
) -> None:
    key, claim, _ = session_claim
    shape = published.marked[0].shape
    frames = [p for p in published.marked if p.shape == shape]
    path = tmp_path / "film.avi"
    codec = cv2.VideoWriter.fourcc(*"FFV1")
    writer = cv2.VideoWriter(str(path), codec, 25, (shape[1], shape[0]))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
        writer.write(np.zeros_like(frame))
    writer.release()
    of_video = verify(SuspectPictures([path], every=2), claim, key)
    of_frames = verify(frames, claim, key)
    assert of_video.pictures == len(frames)
    assert of_video.log10_p < -4 and of_video.log10_p < of_frames.log10_p / 2


def test_an_archive_without_a_picture_cannot_be_judged(session_claim, tmp_path: Path) -> None:
    key, claim, _ = session_claim
    for path in (zipped(tmp_path / "x.zip", {"a.txt": b"x"}), tmp_path / "y.zip"):
        path.touch()
        with pytest.raises(CouldNotJudge, match="no picture could be used"):
            verify([path], claim, key)
