"""Pages and sheets: everything is on them, at its place, and odd inputs do not break them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vlprep.report.contact_sheet import Picture, contact_sheet
from vlprep.report.draw import Label, colour, draw_labels, font, resized_to_fit, shortened, shortened_front
from vlprep.report.region_page import region_page
from vlprep.report.regions import RegionView

GREY = (120, 120, 120)


def image(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def region(*box: float) -> RegionView:
    return RegionView(box=box, name="cat", confidence=0.9, background=0.05, likely=(("cat", 0.9), ("dog", 0.05)))


def pixels_of(picture, number: int) -> int:
    rgb = tuple(int(colour(number)[place : place + 2], 16) for place in (1, 3, 5))
    return int((np.asarray(picture.convert("RGB")) == rgb).all(axis=2).sum())


def test_a_box_is_drawn_at_its_place():
    picture, _ = resized_to_fit(image(100, 80), 100, 80)
    draw_labels(picture, [Label((20, 30, 60, 70), "a", 0)], line=1)
    assert picture.getpixel((60, 50)) == (255, 176, 0)
    assert picture.getpixel((40, 70)) == (255, 176, 0)
    assert picture.getpixel((40, 50)) == GREY


def test_texts_keep_clear_of_each_other():
    alone, both = (resized_to_fit(image(300, 300), 300, 300)[0] for _ in range(2))
    box = (50, 100, 250, 250)
    draw_labels(alone, [Label(box, "cat", 0)])
    draw_labels(both, [Label(box, "cat", 0), Label(box, "dog", 1)])
    assert pixels_of(both, 0) > 0.9 * pixels_of(alone, 0)
    assert pixels_of(both, 1) > 20 * 15


def test_text_stays_inside_the_picture():
    picture, _ = resized_to_fit(image(60, 40), 60, 40)
    draw_labels(picture, [Label((50, 0, 59, 39), "a rather long name", 3)])
    assert pixels_of(picture, 3) > 60 * 10


@pytest.mark.parametrize("cut", [shortened, shortened_front])
def test_shortened_text_fits(cut):
    text = "COCO_train2014_000000132417.jpg"
    assert cut(text, 14, 1000) == text
    short = cut(text, 14, 100)
    assert font(14).getlength(short) <= 100
    assert "…" in short


def test_the_front_is_cut_where_ends_differ():
    assert shortened_front("COCO_train2014_000000132417.jpg", 14, 120).endswith("132417.jpg")


@pytest.mark.parametrize("regions", [0, 1, 8, 40])
@pytest.mark.parametrize("size", [(200, 120), (90, 400), (1, 1)])
def test_a_page_shows_as_many_cards_as_asked_for(regions, size):
    views = [region(0, 0, size[0], size[1])] * regions
    page = region_page("x.jpg", image(*size), views, detailed=4)
    assert (pixels_of(page, 3) > 0) == (regions >= 4)
    assert pixels_of(page, 4) == 0


def test_unsure_regions_have_no_card_but_the_first_has():
    unsure = replace(region(5, 5, 50, 50), confidence=0.01)
    page = region_page("x.jpg", image(100, 100), [unsure, unsure])
    assert pixels_of(page, 0) > 0
    assert pixels_of(page, 1) == 0


def test_a_sheet_holds_all_pictures_whatever_their_shape():
    pictures = [
        Picture(f"{n}.jpg", image(*size), [region(0, 0, *size)])
        for n, size in enumerate([(40, 30), (30, 90), (400, 20)] * 4)
    ]
    sheet = contact_sheet("all", pictures, width=800)
    assert sheet.width == 800
    rows_with_grey = (np.asarray(sheet) == GREY).all(axis=2).any(axis=1)
    starts = np.count_nonzero(np.diff(rows_with_grey.astype(int)) == 1)
    assert starts >= 4


def test_an_empty_sheet_is_only_a_heading():
    assert contact_sheet("nothing", [], width=400).width == 400


def test_a_sheet_leaves_out_what_is_not_sure():
    unsure = replace(region(5, 5, 50, 50), confidence=0.1)
    sheet = contact_sheet("all", [Picture("1.jpg", image(90, 90), [region(5, 5, 50, 50), unsure])], width=400)
    assert pixels_of(sheet, 0) > 0
    assert pixels_of(sheet, 1) == 0
