"""`vlprep store`: what is printed is what is there."""

from __future__ import annotations

import pyarrow.dataset

BROKEN = "images/broken.jpg"


def test_info_counts_rows_and_names_failures(vlprep, made):
    result = vlprep("store", "info", made.store)
    assert result.exit_code == 0
    assert "3 of 4 items, 1 failed" in result.stdout
    assert "2 of 2" in result.stdout
    assert f"{BROKEN}: " in result.stdout


def test_info_as_json(document, made):
    facts = document("store", "info", made.store)
    assert (facts["rows"], facts["failed"], facts["pending"]) == (3, 1, 0)
    assert facts["failures"][0]["id"] == BROKEN


def test_a_dataset_stands_for_its_only_store(document, vlprep, made):
    assert document("store", "info", made.dataset)["folder"] == str(made.store)
    (made.dataset / "vlprep" / "other").mkdir()
    (made.dataset / "vlprep" / "other" / "store.json").touch()
    result = vlprep("store", "info", made.dataset)
    assert result.exit_code == 2
    assert str(made.store) in result.stderr


def test_no_store_is_2(vlprep, tmp_path):
    result = vlprep("store", "info", tmp_path)
    assert result.exit_code == 2
    assert str(tmp_path) in result.stderr


def test_verify_finds_a_flipped_byte(vlprep, document, made):
    assert vlprep("store", "verify", made.store).exit_code == 0
    part = made.store / "part-00000.arrow"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    result = vlprep("store", "verify", made.store)
    assert result.exit_code == 1
    assert "part-00000.arrow" in result.stdout
    assert len(document("store", "verify", made.store)["problems"]) == 1


def test_head_shows_rows(vlprep, document, made):
    text = vlprep("store", "head", made.store, "-n", 2).stdout
    assert text.count("images/0") == 4  # id and path of two rows
    assert "float16" in text
    first = document("store", "head", made.store, "-n", 1)
    assert [row["id"] for row in first] == ["images/000000000001.jpg"]
    assert first[0]["boxes"]["shape"] == [len(made.scenes[0].objects), 4]


def test_export_parquet(vlprep, made, tmp_path):
    result = vlprep("store", "export-parquet", made.store, tmp_path / "out")
    assert result.exit_code == 0
    assert "2 Parquet files" in result.stdout
    assert pyarrow.dataset.dataset(tmp_path / "out", format="parquet").count_rows() == 3


def test_export_parquet_of_less_than_a_store_fails(vlprep, made, tmp_path):
    for out in (made.store, made.dataset):
        result = vlprep("store", "export-parquet", made.store, out)
        assert (result.exit_code, f"{out} is not empty" in result.stderr) == (2, True)
    (made.store / "part-00001.json").rename(tmp_path / "mark")
    result = vlprep("store", "export-parquet", made.store, tmp_path / "out")
    assert (result.exit_code, "1 of 2 parts" in result.stderr) == (2, True)
    (made.store / "part-00001.json").write_bytes(b"{")
    result = vlprep("store", "export-parquet", made.store, tmp_path / "out")
    assert (result.exit_code, "part-00001.json" in result.stderr) == (1, True)
    assert not (tmp_path / "out").exists()
