"""Reading ahead of a network and writing behind it, in bounded memory and in an order that no timing can change."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopwatch:
    """Seconds by step; steps of several threads may overlap and then add up to more than the wall clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def time(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - began
            with self._lock:
                self.seconds[step] = self.seconds.get(step, 0.0) + passed


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Sequence[Item], depth: int
) -> Iterator[Result]:
    """`map` on a pool, in order, with at most `depth` results begun and not yet taken."""
    waiting: deque[Future[Result]] = deque()
    rest = iter(items)
    try:
        while True:
            while len(waiting) < depth and (item := next(rest, None)) is not None:
                waiting.append(pool.submit(work, item))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def alike(
    items: Iterator[Item], key: Callable[[Item], Hashable], *, batch: int, lookahead: int
) -> Iterator[list[Item]]:
    """Batches of at most `batch` items of one key: the first item waiting and those like it among the next `lookahead`.

    Depends on the order of the items only, so that a repeated run forms the same batches.
    """
    waiting: list[Item] = []
    while True:
        while len(waiting) < lookahead and (item := next(items, None)) is not None:
            waiting.append(item)
        if not waiting:
            return
        wanted = key(waiting[0])
        chosen = [place for place, item in enumerate(waiting) if key(item) == wanted][:batch]
        yield [waiting[place] for place in chosen]
        taken = set(chosen)
        waiting = [item for place, item in enumerate(waiting) if place not in taken]


class Behind:
    """Runs calls one after another on a thread of its own, at most `depth` behind; an error in one comes out later.

    Leaving the block waits for all of them; leaving it by an exception drops those not begun.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Behind:
        return self

    def do(self, call: Callable[[], None]) -> None:
        """Queue a call; waits while `depth` of them are behind."""
        if len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(call))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._waiting:
                future.result()
