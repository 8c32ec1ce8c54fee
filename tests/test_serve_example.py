"""The serving example: marked pictures over HTTP, refusals, back-pressure, metrics."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from fastapi import FastAPI

from birthmark.embed import Embedder
from birthmark.errors import InvalidPicture
from birthmark.mark import provision
from birthmark.models import ImageModel
from serve.load import Service
from serve.service import Metrics, Publisher, create_app


def asking(app: FastAPI, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run `work` with a client of the application, which is started and stopped around it."""

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            await work(client)

    asyncio.run(run())


def app_of(publish: Callable[[bytes, str], bytes], **options: int) -> FastAPI:
    return create_app(publish, Metrics(), **options)


def encoded(picture: npt.NDArray[np.uint8], ending: str = ".png") -> bytes:
    return bytes(cv2.imencode(ending, picture[..., ::-1])[1])


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.fixture(scope="module")
def mark_path(session_claim, tmp_path_factory: pytest.TempPathFactory) -> Path:
    key, claim, _ = session_claim
    path = tmp_path_factory.mktemp("serve") / "m.mark"
    provision(key, claim).save(path)
    return path


@pytest.fixture(scope="module")
def photo(eval_photos: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(eval_photos[0][:120, :161])


@pytest.fixture
def service(models_folder: Path, mark_path: Path) -> FastAPI:
    metrics = Metrics()
    model = str(models_folder / "espcn_x2.onnx")
    publisher = Publisher(model, str(mark_path), metrics=metrics, max_pixels=200_000)
    return create_app(publisher, metrics, max_bytes=1_000_000)


@pytest.fixture
def truth(
    sr_model: ImageModel, mark_path: Path, photo: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    return Embedder(mark_path).embed(sr_model.output(photo))


def test_png_is_the_marked_output_to_the_byte(service, photo, truth) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        response = await client.post("/pictures", content=encoded(photo))
        assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
        np.testing.assert_array_equal(decoded(response.content), truth)

    asking(service, work)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_lossy_formats(kind: str, service, photo, truth) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        response = await client.post(f"/pictures?format={kind}", content=encoded(photo, ".jpg"))
        assert response.headers["content-type"] == f"image/{kind}"
        picture = decoded(response.content)
        assert picture.shape == truth.shape
        assert np.abs(picture.astype(int) - truth).mean() < 6

    asking(service, work)


@pytest.mark.parametrize(
    ("query", "content", "status", "word"),
    [
        ("", b"", 422, "PNG"),
        ("", b"no picture", 422, "PNG"),
        ("", encoded(np.zeros((40, 40, 3), np.uint8))[:-20], 422, "truncated"),
        ("", encoded(np.zeros((500, 500, 3), np.uint8)), 413, "200000"),
        ("", bytes(1_000_001), 413, "bytes"),
        ("?format=gif", b"", 400, "png, jpeg, webp"),
    ],
)
def test_what_is_refused(service, query: str, content: bytes, status: int, word: str) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        response = await client.post(f"/pictures{query}", content=content)
        assert response.status_code == status
        assert word in response.text and response.text.count("\n") == 1
        assert f'pictures_total{{status="{status}"}} 1.0' in (await client.get("/metrics")).text

    asking(service, work)


def test_what_webp_cannot_hold_is_refused(service) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        wide = encoded(np.zeros((2, 9000, 3), np.uint8))
        response = await client.post("/pictures?format=webp", content=wide)
        assert response.status_code == 422 and "18000 x 4" in response.text

    asking(service, work)


def test_health_and_metrics(service, photo) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/health")).json() == {"status": "ok"}
        for _ in range(2):
            await client.post("/pictures", content=encoded(photo))
        response = await client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = response.text.splitlines()
        assert 'pictures_total{status="200"} 2.0' in lines
        assert "pictures_working 0.0" in lines and "pictures_waiting 0.0" in lines
        for stage in ("decode", "model", "mark", "encode"):
            assert f'stage_seconds_count{{stage="{stage}"}} 2.0' in lines

    asking(service, work)


class Gate:
    """A publisher that holds every picture until it is opened, and counts."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.inside = self.most = self.done = 0
        self._lock = threading.Lock()

    def __call__(self, data: bytes, kind: str) -> bytes:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.opened.wait(30)
        with self._lock:
            self.inside -= 1
            self.done += 1
        return data


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_more_than_may_wait_are_turned_away_at_once() -> None:
    gate = Gate()

    async def work(client: httpx.AsyncClient) -> None:
        taken = [asyncio.create_task(client.post("/pictures", content=b"x")) for _ in range(5)]
        await until(lambda: gate.inside == 2)
        await until(lambda: metrics.registry.get_sample_value("pictures_waiting") == 3)
        text = (await client.get("/metrics")).text
        assert "pictures_working 2.0" in text and "pictures_waiting 3.0" in text
        refused = await client.post("/pictures", content=b"x")
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert (await client.get("/health")).status_code == 200
        gate.opened.set()
        assert [r.status_code for r in await asyncio.gather(*taken)] == [200] * 5
        assert gate.most == 2
        assert (await client.post("/pictures", content=b"x")).status_code == 200

    metrics = Metrics()
    asking(create_app(gate, metrics, workers=2, waiting=3), work)


def test_a_failure_frees_its_place() -> None:
    def publish(data: bytes, kind: str) -> bytes:
        raise InvalidPicture("never")

    async def work(client: httpx.AsyncClient) -> None:
        for _ in range(5):
            assert (await client.post("/pictures", content=b"x")).status_code == 422

    asking(app_of(publish, workers=1, waiting=0), work)


def test_a_slow_upload_frees_its_place() -> None:
    async def dripping() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(30)

    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.post("/pictures", content=dripping())).status_code == 408
        assert (await client.post("/pictures", content=b"x")).content == b"x"

    # Enough for one byte, on a busy machine too.
    app = create_app(lambda data, kind: data, Metrics(), workers=1, waiting=0, upload_s=2.0)
    asking(app, work)


def test_pictures_that_were_taken_are_answered_before_it_stops() -> None:
    gate = Gate()

    async def run() -> None:
        app = app_of(gate, workers=1)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            async with app.router.lifespan_context(app):
                taken = asyncio.create_task(client.post("/pictures", content=b"x"))
                await until(lambda: gate.inside == 1)
                threading.Timer(0.1, gate.opened.set).start()
            assert gate.done == 1
            assert (await taken).status_code == 200

    asyncio.run(run())


def test_over_a_real_socket(models_folder: Path, mark_path: Path, photo, truth) -> None:
    model = str(models_folder / "espcn_x2.onnx")
    with Service("--model", model, "--mark", str(mark_path), "--workers", "1") as service:
        status, data = service.ask("POST", "/pictures", encoded(photo))
        assert status == 200
        np.testing.assert_array_equal(decoded(data), truth)
        _, statuses = service.load("/pictures", encoded(photo), clients=3, requests=2)
        assert statuses == {200: 6}
