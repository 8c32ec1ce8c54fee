"""A progress line on standard error: bar, share done, time left."""

from __future__ import annotations

import sys
import time

_QUIET_S = 2.0
_WIDTH = 28


class Progress:
    """Call it as (done, total, message). Silent for the first two seconds.

    On a terminal the line is redrawn; elsewhere a plain line is printed every 10 % of the way.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._began = time.monotonic()
        self._drawn = 0.0
        self._printed_tenth = 0
        self._open = False

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """Draw the line, at most ten times a second."""
        now = time.monotonic()
        elapsed = now - self._began
        if total <= 0 or elapsed < _QUIET_S:
            return
        share = min(1.0, done / total)
        left = f"{elapsed / share - elapsed:.0f} s left" if 0 < share < 1 else f"{elapsed:.0f} s"
        if sys.stderr.isatty():
            if now - self._drawn < 0.1 and share < 1:
                return
            self._drawn = now
            bar = "#" * round(share * _WIDTH)
            line = f"{self._label} [{bar:<{_WIDTH}}] {share:4.0%} {left}  {message}"
            sys.stderr.write("\r\x1b[K" + line[:110])
            sys.stderr.flush()
            self._open = True
        elif int(share * 10) > self._printed_tenth:
            self._printed_tenth = int(share * 10)
            print(f"{self._label}: {share:.0%}, {left}", file=sys.stderr)

    def close(self) -> None:
        """End the line."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False
