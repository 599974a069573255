"""A queue between threads that is bounded by bytes, not by items."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from vlprep.errors import VlprepError

Item = TypeVar("Item")


class BufferClosedError(Exception):
    """Nobody takes from the buffer any more."""


class Buffer(Generic[Item]):
    """Producers put and at last leave, one consumer iterates; the iteration ends when all have left."""

    def __init__(self, limit: int, *, producers: int) -> None:
        """`limit` in bytes; an item that is larger by itself passes alone."""
        self._limit = limit
        self._producers = producers
        self._used = 0
        self._items: deque[tuple[Item, int]] = deque()
        self._failure: VlprepError | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item, size: int = 0) -> None:
        """Wait for room and add an item. Raises BufferClosedError."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._used or self._used + size <= self._limit)
            if self._closed:
                raise BufferClosedError
            self._used += size
            self._items.append((item, size))
            self._changed.notify_all()

    def leave(self, failure: VlprepError | None = None) -> None:
        """A producer is done; its failure, if any, ends the iteration at once."""
        with self._changed:
            self._producers -= 1
            self._failure = self._failure or failure
            self._changed.notify_all()

    def close(self) -> None:
        """The consumer is done: whoever waits to put is woken."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._failure or not self._producers)
                if self._failure:
                    raise self._failure
                if not self._items:
                    return
                item, size = self._items.popleft()
                self._used -= size
                self._changed.notify_all()
            yield item
