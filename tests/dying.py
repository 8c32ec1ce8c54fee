"""An engine whose workers die: what a power cut does in the middle of a run, made repeatable."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from birthmark.engine import Engine


@dataclass(frozen=True)
class Dying:
    """Does work through another engine; ``deaths`` times a worker is killed (SIGKILL).

    Each time the worker has done an item, and has handed over nothing of the task that it is in.
    """

    engine: Engine
    graves: Path
    """An empty folder; afterwards a file for each that died."""
    deaths: int = 1

    def map(self, work: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
        return self.engine.map(partial(work_and_die, self.graves, self.deaths, work), items)


def work_and_die(
    graves: Path, deaths: int, work: Callable[[Any], Iterable[Any]], item: Any
) -> list[Any]:
    done = list(work(item))
    for i in range(deaths):
        try:
            (graves / f"{i}").touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    return done


def squares(x: int) -> Iterator[int]:
    """As many results as the item says."""
    return (x * x for _ in range(x % 3))


def kill_the_worker(x: int) -> list[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    return [x]


def refuse_seven(x: int) -> list[int]:
    from birthmark.errors import InvalidPicture

    if x == 7:
        raise InvalidPicture("seven is no picture")
    return [x]
