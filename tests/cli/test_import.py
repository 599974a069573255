"""`vlprep import lxmert-tsv`, whole: a real worker, files on disk."""

from __future__ import annotations

import pytest
from interop.tsv import line, regions, write
from PIL import Image

from vlprep.shards import StoreReader


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (100, 50)).save(tmp_path / name)
    write(tmp_path / "features.tsv", line("a", regions(2)), line("b", regions(3)))
    return tmp_path


def test_a_store_like_any_other(vlprep, folder):
    result = vlprep("import", "lxmert-tsv", folder, folder / "features.tsv")
    assert result.exit_code == 0, result.stderr
    assert "2 of 2 done, 0 failed" in result.stdout
    assert StoreReader(folder / "vlprep" / "regions").ids == ["a.jpg", "b.jpg"]
    shown = vlprep("show", folder, "--id", "b.jpg", "--out", folder / "vlprep" / "b.png")
    assert shown.exit_code == 0
    assert len(shown.stdout.splitlines()) == 1 + 3 + 2  # header, regions, the picture's path


def test_a_run_that_did_work_is_one_json_document(document, folder):
    report = document("import", "lxmert-tsv", folder, folder / "features.tsv")
    assert (report["done"], report["status"]["rows"]) == (2, 2)
    assert all(seconds >= 0 for seconds in report["steps"].values())
    assert report["steps"]


def test_bad_lines_are_exit_3(document, vlprep, folder):
    with (folder / "features.tsv").open("ab") as file:
        file.write(line("c", regions())[:50])
    arguments = ["import", "lxmert-tsv", folder, folder / "features.tsv", "--store-dtype", "float32"]
    result = vlprep(*arguments)
    assert result.exit_code == 3
    assert "line 3" in result.stdout
    report = document(*arguments)
    assert (report["done"], report["status"]["rows"], report["status"]["failed"]) == (0, 2, 1)
    assert StoreReader(folder / "vlprep" / "regions")[0]["features"].dtype == "float32"


def test_another_kind_of_file_is_2(vlprep, folder):
    result = vlprep("import", "lxmert-tsv", folder, folder / "a.jpg")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "LXMERT's TSV has ten" in result.stderr
