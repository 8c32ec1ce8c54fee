"""Load test of the service on this machine: latency with and without the mark.

    python examples/serve/load.py --model models/espcn_x2.onnx --mark m.mark photo.jpg

Starts two services on free ports of the loopback interface, one with the mark and one without, and
asks them in turns, so that both see the same machine. Every answer must be 200 and a picture. Then
it asks one of them from more clients than it takes, to see it refuse. Prints p50 and p99.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

SERVICE = Path(__file__).with_name("service.py")
MOST_REQUESTS = 10_000


class Service:
    """A running service.py, stopped when the block ends."""

    def __init__(self, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        command = [sys.executable, str(SERVICE), "--port", str(self.port), *arguments]
        self._process = subprocess.Popen(command)

    def __enter__(self) -> Service:
        for _ in range(200):
            if self._process.poll() is not None:
                raise SystemExit("the service did not start")
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return self
            except OSError:
                time.sleep(0.1)
        self.__exit__()
        raise SystemExit("the service did not answer within 20 s")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def load(
        self, path: str, body: bytes, clients: int, requests: int
    ) -> tuple[list[float], Counter[int]]:
        """Ask from several clients at once: seconds of every request, and how often each status."""
        seconds: list[float] = []
        statuses: Counter[int] = Counter()

        def client() -> None:
            for _ in range(requests):
                begin = time.perf_counter()
                status, _ = self.ask("POST", path, body)
                seconds.append(time.perf_counter() - begin)
                statuses[status] += 1

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return seconds, statuses


def main() -> None:
    """Run the test and print its table."""
    parser = argparse.ArgumentParser(description="Latency of the service with and without mark.")
    parser.add_argument("picture")
    parser.add_argument("--model", required=True)
    parser.add_argument("--mark", required=True)
    parser.add_argument("--format", default="jpeg")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--requests", type=int, default=20, help="of each client in each turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    if options.clients * options.requests * options.turns > MOST_REQUESTS:
        parser.error(f"more than {MOST_REQUESTS} requests")
    body = Path(options.picture).read_bytes()
    path = f"/pictures?format={options.format}"
    model = ("--model", options.model)
    with Service(*model, "--mark", options.mark) as marked, Service(*model) as plain:
        services = {"with the mark": marked, "without": plain}
        seconds: dict[str, list[float]] = {name: [] for name in services}
        for service in services.values():
            service.load(path, body, options.clients, 2)  # warm
        for _ in range(options.turns):
            for name, service in services.items():
                took, statuses = service.load(path, body, options.clients, options.requests)
                if set(statuses) != {200}:
                    raise SystemExit(f"{name}: {dict(statuses)}")
                seconds[name] += took
        for name, values in seconds.items():
            p50, p99 = np.percentile(np.array(values) * 1000, [50, 99])
            print(f"{name:14} {len(values):5} requests  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms")
        _, statuses = marked.load(path, body, 24, 4)
        print(f"from 24 clients: {statuses[200]} answered, {statuses[503]} refused with 503")
        if set(statuses) - {200, 503}:
            raise SystemExit(f"other answers: {dict(statuses)}")


if __name__ == "__main__":
    main()
