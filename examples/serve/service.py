"""An HTTP service that runs an image model and answers with marked pictures.

    pip install 'birthmark[serve]'
    python examples/serve/service.py --model models/espcn_x2.onnx --mark m.mark
    curl --data-binary @photo.jpg 'http://127.0.0.1:8000/pictures?format=webp' -o marked.webp

POST /pictures  the body is a picture (PNG, JPEG, WebP, BMP, TIFF); ?format=png|jpeg|webp
GET  /health    200 while the service takes pictures
GET  /metrics   Prometheus text

A fixed number of pictures is worked on at a time and a fixed number waits; whoever comes on top
of that is answered 503 with Retry-After at once, so that memory and waiting time stay bounded. The
mark file comes from `birthmark provision`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import ClientDisconnect

from birthmark import Embedder, ImageModel
from birthmark.errors import BirthmarkError, InvalidPicture
from birthmark.picture_headers import picture_size
from birthmark.pictures import decode_picture

FORMATS = {
    "png": ("image/png", ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]),
    "jpeg": ("image/jpeg", ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]),
    "webp": ("image/webp", ".webp", [cv2.IMWRITE_WEBP_QUALITY, 95]),
}
BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class TooLarge(Exception):
    """The picture has more bytes or pixels than the service takes."""


class Metrics:
    """What /metrics tells."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        add = {"registry": self.registry}
        self.answers = Counter("pictures", "Answers by HTTP status", ["status"], **add)
        self.working = Gauge("pictures_working", "Pictures being worked on", **add)
        self.waiting = Gauge("pictures_waiting", "Pictures waiting for a worker", **add)
        self.seconds = Histogram(
            "stage_seconds", "Time of each stage of a picture", ["stage"], buckets=BUCKETS_S, **add
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time of the block under the stage's name."""
        begin = time.perf_counter()
        yield
        self.seconds.labels(stage).observe(time.perf_counter() - begin)


class Publisher:
    """An encoded picture in, the model's output out: marked, and encoded.

    Args:
        model: path of an ONNX model, as birthmark.ImageModel takes it.
        mark: path of a mark file; None publishes without a mark (for comparison).
        max_pixels: the largest picture that is decoded.
    """

    def __init__(
        self, model: str, mark: str | None, *, metrics: Metrics, max_pixels: int = 4_000_000
    ) -> None:
        self._model = ImageModel(model, threads=1)
        self._embedder = Embedder(mark)
        self._metrics = metrics
        self._max_pixels = max_pixels

    def __call__(self, data: bytes, kind: str) -> bytes:
        """Publish one picture; ``kind`` is a key of FORMATS. Safe to call from many threads.

        Raises:
            TooLarge, BirthmarkError: the picture is not one that can be published.
        """
        timed = self._metrics.timed
        with timed("decode"):
            picture = self._decoded(data)
        with timed("model"):
            output = self._model.output(picture)
        with timed("mark"):
            published = self._embedder.embed(output)
        with timed("encode"):
            _, ending, options = FORMATS[kind]
            bgr = cv2.cvtColor(published, cv2.COLOR_RGB2BGR)
            try:
                done, encoded = cv2.imencode(ending, bgr, options)
            except cv2.error:  # what some versions do instead of saying that it is not done
                done = False
            if not done:
                size = f"{bgr.shape[1]} x {bgr.shape[0]} pixels"
                raise InvalidPicture(f"the output, {size}, cannot be written as {kind}")
            return bytes(encoded)

    def _decoded(self, data: bytes) -> np.ndarray:
        try:
            width, height = picture_size(data)
        except ValueError as error:
            raise InvalidPicture(str(error)) from None
        if width * height > self._max_pixels:
            raise TooLarge(f"{width} x {height} pixels, more than the {self._max_pixels} accepted")
        return decode_picture(data, "the picture")


def create_app(
    publish: Callable[[bytes, str], bytes],
    metrics: Metrics,
    *,
    workers: int = 2,
    waiting: int = 8,
    max_bytes: int = 16 << 20,
    upload_s: float = 10,
) -> FastAPI:
    """The service around ``publish``, which is called from ``workers`` threads.

    Args:
        publish: what a Publisher does.
        metrics: what /metrics tells.
        workers: pictures worked on at a time.
        waiting: pictures that may wait, those whose upload is not complete among them.
        max_bytes: the largest body that is read.
        upload_s: how long reading a body may take.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="picture")

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        yield
        pool.shutdown()  # pictures that were taken are still answered

    app = FastAPI(title="marked pictures", lifespan=lifespan)
    taken = 0  # pictures worked on and waiting; only the event loop's thread changes it

    def answer(status: int, content: bytes | str, **headers: str) -> Response:
        metrics.answers.labels(str(status)).inc()
        kind = headers.pop("media_type", "text/plain; charset=utf-8")
        return Response(content, status, headers=headers, media_type=kind)

    def work(data: bytes, kind: str) -> bytes:
        metrics.waiting.dec()
        with metrics.working.track_inprogress():
            return publish(data, kind)

    @app.post("/pictures")
    async def pictures(request: Request, format: str = "png") -> Response:
        nonlocal taken
        if format not in FORMATS:
            return answer(400, f"format is one of {', '.join(FORMATS)}\n")
        if taken >= workers + waiting:
            return answer(503, "busy, try again\n", **{"Retry-After": "1"})
        taken += 1
        try:
            data = bytearray()
            async with asyncio.timeout(upload_s):
                async for part in request.stream():
                    data += part
                    if len(data) > max_bytes:
                        raise TooLarge(f"more than the {max_bytes} bytes accepted")
            metrics.waiting.inc()
            loop = asyncio.get_running_loop()
            encoded = await loop.run_in_executor(pool, work, bytes(data), format)
            return answer(200, encoded, media_type=FORMATS[format][0])
        except TooLarge as error:
            return answer(413, f"{error}\n")
        except BirthmarkError as error:
            return answer(422, f"{error}\n")
        except TimeoutError:
            return answer(408, f"not received within {upload_s} s\n")
        except ClientDisconnect:
            return answer(400, "cut off\n")  # counted; nobody reads it
        finally:
            taken -= 1

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=METRICS_TYPE)

    return app


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Answer with a model's outputs, marked.")
    parser.add_argument("--model", required=True, help="an ONNX model")
    parser.add_argument("--mark", help="the mark file; without it nothing is marked")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=2, help="pictures worked on at a time")
    parser.add_argument("--waiting", type=int, default=8, help="pictures that may wait")
    options = parser.parse_args()
    metrics = Metrics()
    publisher = Publisher(options.model, options.mark, metrics=metrics)
    app = create_app(publisher, metrics, workers=options.workers, waiting=options.waiting)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
