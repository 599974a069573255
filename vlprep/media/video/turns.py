"""Which video a decoding thread takes next."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

Video = tuple[str, Path]


class Turns:
    """Hands out videos in order to several threads, none more than `lead` places after the first unfinished one.

    Whoever collects results in order thus never has to hold those of more than `lead` videos.
    """

    def __init__(self, videos: Sequence[Video], lead: int) -> None:
        self._videos = videos
        self._lead = lead
        self._next = 0
        self._unfinished: set[int] = set()
        self._closed = False
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[Video]:
        """Each thread iterates for itself; a video is finished when its thread asks for another."""
        while (place := self._take()) is not None:
            try:
                yield self._videos[place]
            finally:
                self._finish(place)

    def close(self) -> None:
        """No more videos; whoever waits for one is woken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self) -> int | None:
        with self._changed:
            self._changed.wait_for(self._may_go_on)
            if self._closed or self._next == len(self._videos):
                return None
            place = self._next
            self._next += 1
            self._unfinished.add(place)
            return place

    def _may_go_on(self) -> bool:
        oldest = min(self._unfinished, default=self._next)
        return self._closed or self._next == len(self._videos) or self._next < oldest + self._lead

    def _finish(self, place: int) -> None:
        with self._changed:
            self._unfinished.remove(place)
            self._changed.notify_all()
