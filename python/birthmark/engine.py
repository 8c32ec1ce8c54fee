"""Where work on many pictures is done: in this process, or by Dask's workers.

Protecting is a map over files, and verifying a map over files whose results are added up, so one
interface serves both: :meth:`Engine.map` gives the results of all items in their order, whoever
worked on them. A worker that dies is replaced and what it had not handed over is done again, so
the result is that of one process, to the last byte.

Dask and not Ray: all of it is a few MB of Python that installs wherever Python does (Ray's wheel
is 79 MB and has no place on small devices), a cluster of processes on one machine starts within
two seconds and without a server, and it needs no object store: the results are sums.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from birthmark.errors import EngineFailed, MissingLibrary
from birthmark.extract import extractor_sha256

Item = TypeVar("Item")
Result = TypeVar("Result")

# One task is so many items: few enough that a lost one costs little, and enough that a scheduler,
# which can do some thousand tasks a second, is no bottleneck.
_ITEMS_A_TASK = 8
_TASKS_A_THREAD = 4
_ANSWER_WITHIN_S = 10


class Engine(Protocol):
    """Does work on items."""

    def map(
        self, work: Callable[[Item], Iterable[Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        """All that ``work`` gives for each item, in the order of the items.

        ``work`` must give the same for the same item whenever and wherever it is called, and be
        picklable (a function of a module, or a partial of one), as must be items and results.

        Raises:
            BirthmarkError: what ``work`` raised; nothing more is begun.
            EngineFailed: the workers are gone or cannot be used.
        """
        ...


class Here:
    """The engine that is this process."""

    def map(
        self, work: Callable[[Item], Iterable[Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        """As :meth:`Engine.map`; nothing is done before it is asked for."""
        for item in items:
            yield from work(item)


class DaskEngine:
    """The workers of a Dask cluster. Made by :func:`open_engine`.

    Args:
        client: a ``distributed.Client``.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def map(
        self, work: Callable[[Item], Iterable[Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        """As :meth:`Engine.map`. Some tasks for each worker's thread are under way at a time."""
        import distributed
        from distributed.comm import CommClosedError

        task = partial(_work_on, work, extractor_sha256())
        remaining = iter(items)
        waiting: deque[Any] = deque()
        try:
            at_once = _TASKS_A_THREAD * max(1, sum(self._client.nthreads().values()))
            while True:
                while len(waiting) < at_once:
                    batch = list(itertools.islice(remaining, _ITEMS_A_TASK))
                    if not batch:
                        break
                    waiting.append(self._client.submit(task, batch, pure=False))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        except distributed.KilledWorker as error:
            raise EngineFailed(
                f"{error.allowed_failures + 1} workers died over the same few pictures"
            ) from error
        except (CommClosedError, CancelledError) as error:
            why = " ".join(str(error).split())
            raise EngineFailed(f"the cluster is gone: {why}") from error
        finally:
            with suppress(OSError, TimeoutError, CancelledError):  # of a cluster that is gone
                self._client.cancel(list(waiting), force=True)


def _work_on(
    work: Callable[[Item], Iterable[Result]], extractor: str, batch: list[Item]
) -> list[Result]:
    """A task, on a worker."""
    if extractor != extractor_sha256():
        raise EngineFailed("a worker runs another version of birthmark than you do")
    return [result for item in batch for result in work(item)]


@contextmanager
def open_engine(where: str = "here", workers: int = 0) -> Iterator[Engine]:
    """Open an engine, and close it (and the processes that were started for it) at the end.

    Args:
        where: "here"; "dask" for worker processes on this machine, which talk TLS among themselves
            under a certificate of their own; or the address of a Dask scheduler
            (``tls://host:8786``, ``tcp://host:8786``). Whoever can reach a scheduler by tcp can run
            anything on its workers.
        workers: how many processes "dask" starts; 0 for one a core.

    Raises:
        EngineFailed: nobody answers at the address.
        MissingLibrary: Dask is not installed.
        ValueError: no such engine.
    """
    if where == "here":
        yield Here()
        return
    if where != "dask" and "://" not in where:
        raise ValueError(f"engine: here, dask, or a scheduler's address, not {where!r}")
    try:
        import distributed
    except ImportError:
        raise MissingLibrary("this engine needs Dask (pip install 'birthmark[scale]')") from None
    with ExitStack() as stack:
        try:
            cluster = where if where != "dask" else stack.enter_context(_processes(workers))
            client = distributed.Client(cluster, timeout=_ANSWER_WITHIN_S, set_as_default=False)
        except (OSError, RuntimeError, TimeoutError, ValueError) as error:
            raise EngineFailed(f"{where}: no scheduler answers: {error}") from error
        yield DaskEngine(stack.enter_context(client))


def _processes(workers: int) -> Any:
    """A cluster on this machine: a process a worker, and nobody else gets in."""
    import distributed

    return distributed.LocalCluster(
        n_workers=workers or None,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        security=True,
        silence_logs=logging.CRITICAL,
    )
