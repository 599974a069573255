"""The page of leaves: a row each, a frame each, whatever is missing."""

from __future__ import annotations

import numpy as np
import pytest

from vlprep.report.clock import clock_text
from vlprep.report.draw import colour
from vlprep.report.leaves import LeafFrame, LeafRow, leaf_page


def frame(red: int, size: tuple[int, int] = (120, 160), said: str = "words") -> LeafFrame:
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0] = red
    return LeafFrame(image_HW3=pixels, place="video 0:01.0", said=said)


def row(token: int, *frames: LeafFrame) -> LeafRow:
    return LeafRow(token=token, path=(token // 12, token % 12), notes=["3 clips"], frames=frames)


def test_frames_stand_in_their_rows_in_order():
    reds = [[200, 150], [100, 250]]
    page = np.asarray(leaf_page("heading", "note", [row(3 + n, *map(frame, these)) for n, these in enumerate(reds)]))
    for red in (200, 150, 100, 250):
        rows, columns = np.nonzero((page == (red, 0, 0)).all(axis=2))
        assert (np.ptp(rows), np.ptp(columns)) == (139, 223)
    place = {red: np.argwhere((page == (red, 0, 0)).all(axis=2)).min(axis=0).tolist() for red in (200, 150, 100, 250)}
    assert place[200][0] == place[150][0] < place[100][0] == place[250][0]
    assert place[200][1] == place[100][1] < place[150][1] == place[250][1]


def test_leaves_of_one_branch_have_one_colour():
    page = np.asarray(leaf_page("heading", "note", [row(13, frame(1)), row(14, frame(1)), row(25, frame(1))]))
    found = {tuple(pixel) for pixel in page.reshape(-1, 3).tolist()}
    wanted = [tuple(int(colour(branch)[at : at + 2], 16) for at in (1, 3, 5)) for branch in (1, 2, 3)]
    assert [pixel in found for pixel in wanted] == [True, True, False]


@pytest.mark.parametrize("size", [(20, 300), (300, 20), (1, 1)])
def test_odd_frames_and_long_texts_fit(size):
    pages = [leaf_page("x" * 300, "y" * 300, [row(1, frame(9, size, said), frame(9))]) for said in ("", "word " * 90)]
    assert pages[0].size == pages[1].size


def test_a_row_without_frames_and_a_page_without_rows():
    assert leaf_page("heading", "note", [row(1)]).height > leaf_page("heading", "note", []).height


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (4.54, "0:04.5"), (59.97, "1:00.0"), (3727.2, "1:02:07.2")]
)
def test_clock(seconds, text):
    assert clock_text(seconds) == text
