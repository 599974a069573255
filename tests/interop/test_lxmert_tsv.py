"""LXMERT's TSV: what a row holds, and what becomes of rows that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
from interop.tsv import D, line, regions, write

from vlprep.errors import ItemError, SettingsError
from vlprep.interop.lxmert_tsv import feature_size, index_file, read_row
from vlprep.weights import sha256_of


def read(path, number=0, *, feature_dim=D):
    with path.open("rb") as file:
        return read_row(file, index_file(path).lines[number], feature_dim=feature_dim, num_classes=1600)


@pytest.mark.parametrize("python3", [False, True])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_rows_as_written(tmp_path, python3, end) -> None:
    rows = [regions(3, 1), regions(5, 2)]
    lines = [line(name, row, python3=python3, end=end) for name, row in zip("ab", rows, strict=True)]
    path = write(tmp_path / "x.tsv", *lines)
    index = index_file(path)
    assert [(found.number, found.image_id) for found in index.lines] == [(1, "a"), (2, "b")]
    assert index.sha256 == sha256_of(path)
    assert feature_size(path, index) == D
    for number, row in enumerate(rows):
        got = read(path, number)
        assert (got.height, got.width) == (50, 100)  # the file has the height first
        for name, column in (
            ("boxes", got.boxes_R4),
            ("features", got.features_RD),
            ("objects_id", got.object_ids_R),
            ("objects_conf", got.confidence_R),
        ):
            np.testing.assert_array_equal(column, row[name])


def test_the_last_line_needs_no_end(tmp_path) -> None:
    path = write(tmp_path / "x.tsv", line("a", regions(), end=""))
    np.testing.assert_array_equal(read(path).features_RD, regions()["features"])


def test_torn_lines_have_no_id_and_whole_ones_after_them_do(tmp_path) -> None:
    whole = line("a", regions())
    together = whole[:100] + whole  # a killed writer that was started again
    path = write(tmp_path / "x.tsv", whole, together, b"\r\n", whole[:100])
    assert [(found.number, found.image_id) for found in index_file(path).lines] == [(1, "a"), (2, ""), (4, "")]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_boxes": 4}, "features has 96 bytes; 4 boxes need 128"),
        ({"boxes": regions(2)["boxes"]}, "boxes has 32 bytes; 3 boxes need 48"),
        ({"objects_id": np.zeros(3, np.int32)}, "objects_id has 12 bytes; 3 boxes need 24"),
        ({"objects_id": np.array([0, 1600, 1])}, "objects_id reaches 1600"),
        ({"objects_id": np.array([0, -1, 1])}, "objects_id"),
        ({"objects_conf": "0.5"}, "objects_conf is not base64"),
        ({"num_boxes": 0}, "num_boxes is '0'"),
        ({"img_h": "tall"}, "img_h is 'tall'"),
        ({"img_h": 100, "img_w": 20}, "boxes reach .* in an image of 20 x 100"),
        ({"features": np.zeros((3, D + 1), np.float32)}, "features has 108 bytes; 3 boxes need 96"),
    ],
)
def test_a_bad_row_names_its_line_and_field(tmp_path, change, complaint) -> None:
    path = write(tmp_path / "x.tsv", line("good", regions()), line("bad", regions() | change))
    read(path, 0)
    with pytest.raises(ItemError, match=rf"x\.tsv, line 2: {complaint}"):
        read(path, 1)


def test_a_bad_first_row_does_not_set_the_size(tmp_path) -> None:
    odd = regions() | {"features": np.zeros((4, D * 3), np.float32)}  # a fourth feature, as if there were more numbers
    path = write(tmp_path / "x.tsv", line("odd", odd), line("a", regions()), line("b", regions()))
    assert feature_size(path, index_file(path)) == D


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "an empty file"),
        (b"id\t640\t480\t2\tAAAA\tAAAA\n", r"6 columns \(six are Caffe's"),
        (b"hello\n", "1 columns"),
    ],
)
def test_other_files_are_refused(tmp_path, content, complaint) -> None:
    with pytest.raises(SettingsError, match=rf"x\.tsv: {complaint}"):
        index_file(write(tmp_path / "x.tsv", content))


def test_without_a_readable_row_the_reason_is_told(tmp_path) -> None:
    path = write(tmp_path / "x.tsv", line("a", regions() | {"boxes": "?"}))
    with pytest.raises(SettingsError, match=r"line 1: boxes is not base64"):
        feature_size(path, index_file(path))
    with pytest.raises(SettingsError, match="No such file"):
        index_file(tmp_path / "none.tsv")
