"""The service under twice the load that it takes, for as long as asked.

    python examples/serve/soak.py --model models/espcn_x2.onnx --mark m.mark --minutes 10 photos/

As many clients ask as could wait twice over. Every answer must be 503 or, pixel for pixel, the
marked picture that it has to be. Prints answers and refusals, p50 and p99 of answers, and the
service's memory minute by minute; ends with code 1 if anything else came, or if memory grew by
more than a tenth after the first fifth of the time.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from load import Service

from birthmark import Embedder, ImageModel
from birthmark.pictures import decode_picture, gather_pictures

WORKERS, WAITING = 2, 8
CLIENTS = 2 * (WORKERS + WAITING)


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> int:
    """Run the test; 0 if all was well."""
    parser = argparse.ArgumentParser(description="The service under twice its load.")
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--model", required=True)
    parser.add_argument("--mark", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    model, embedder = ImageModel(options.model, threads=1), Embedder(options.mark)
    asked: list[tuple[bytes, np.ndarray]] = []
    for file in gather_pictures(options.pictures).files:
        picture = decode_picture(file.read_bytes(), file.name)[:240, :320]
        body = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
        asked.append((body, embedder.embed(model.output(np.ascontiguousarray(picture)))))
    seconds: list[float] = []
    answers: Counter[str] = Counter()
    limits = ("--workers", str(WORKERS), "--waiting", str(WAITING))
    with Service("--model", options.model, "--mark", options.mark, *limits) as service:
        ends = time.monotonic() + 60 * options.minutes

        def client(number: int) -> None:
            turn = number
            while time.monotonic() < ends:
                body, expected = asked[turn % len(asked)]
                turn += 1
                begin = time.perf_counter()
                status, data = service.ask("POST", "/pictures?format=png", body)
                if status == 503:
                    answers["refused"] += 1
                    time.sleep(0.2)
                elif status == 200 and np.array_equal(decode_picture(data, "answer"), expected):
                    seconds.append(time.perf_counter() - begin)
                    answers["marked"] += 1
                else:
                    answers[f"wrong ({status})"] += 1

        threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        memory: list[float] = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(60 * options.minutes / 50)
            memory.append(memory_mb(service.pid))
    p50, p99 = np.percentile(np.array(seconds), [50, 99])
    print(", ".join(f"{count} {what}" for what, count in sorted(answers.items())))
    print(f"answers: p50 {p50:.2f} s, p99 {p99:.2f} s, from {CLIENTS} clients")
    early, late = max(memory[: len(memory) // 5]), max(memory[len(memory) // 5 :])
    print(
        "memory, MB:", " ".join(f"{m:.0f}" for m in memory[::5]), f"(most {max(early, late):.0f})"
    )
    return int(set(answers) != {"marked", "refused"} or late > 1.1 * early)


if __name__ == "__main__":
    raise SystemExit(main())
