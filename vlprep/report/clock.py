"""Times of a video as people write them."""

from __future__ import annotations


def clock_text(seconds: float) -> str:
    """`0:04.5`, `12:30.0`, `1:02:07.2`."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"
