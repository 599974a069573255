"""Published features into a regions store: whose row is whose, what is stored, and what can be trained from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from inline_engine import run_parts
from interop.tsv import D, line, regions, write
from PIL import Image

from vlprep.datasets.items import Item, image_source_id
from vlprep.errors import SettingsError
from vlprep.interop.lxmert_tsv import Line, index_file
from vlprep.pretrain.batching import BatchSettings
from vlprep.pretrain.corpus import Corpus, DatasetStores, Mixture
from vlprep.pretrain.loader import Stream
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.objectives.regions import RegionDistributions
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.places import CorpusSettings
from vlprep.shards import StoreReader
from vlprep.shards.verify import verify
from vlprep.stages.import_regions import import_lxmert_tsv, plan_rows
from vlprep.stages.tokenize_text import tokenize_text

RULE = SequenceRule(words=TextVocabulary(size=60, pad=0, cls=2, sep=3, mask=4, first_word=5))
COCO = "train2014/COCO_train2014_000000132417.jpg"


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr("vlprep.stages.run.run_parts", run_parts)


@pytest.fixture
def folder(tmp_path):
    """Two images with captions, and a TSV beside them that has a third."""
    folder = tmp_path / "data"
    for name in (COCO, "b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50)).save(folder / name)
    captions = [("b.png", "one"), ("b.png", "two"), (COCO, "three")]
    (folder / "captions.jsonl").write_text(
        "".join(json.dumps({"image": image, "caption": text}) + "\n" for image, text in captions)
    )
    rows = [("COCO_train2014_000000132417", 3), ("b", 4), ("COCO_val2014_000000000139", 5)]
    write(folder / "features.tsv", *(line(name, regions(count, count)) for name, count in rows))
    return folder


def test_rows_become_those_of_the_images(folder, caplog) -> None:
    report = import_lxmert_tsv(folder, folder / "features.tsv")
    rows = {row["id"]: row for row in StoreReader(report.folder)}
    assert {name: row["source_id"] for name, row in rows.items()} == {
        COCO: "132417",
        "b.png": None,
        "COCO_val2014_000000000139": "139",
    }
    assert "1 of 3 rows are of images that are not in" in caplog.text
    assert verify(report.folder) == []
    given, row = regions(4, 4), rows["b.png"]
    order = np.argsort(-given["objects_conf"])
    assert not np.array_equal(order, np.arange(4))
    for column, name in (
        ("boxes", "boxes"),
        ("proposals", "boxes"),
        ("features", "features"),
        ("object_ids", "objects_id"),
        ("max_conf", "objects_conf"),
    ):
        np.testing.assert_array_equal(row[column], given[name][order].astype(row[column].dtype), err_msg=column)
    assert (row["width"], row["height"]) == (100, 50)
    assert not {"class_probs", "background_prob", "attribute_probs"} & set(row)  # the file does not know them


def test_bad_lines_are_failures_with_their_number(folder) -> None:
    path, torn = folder / "features.tsv", line("c", regions())[:80]
    path.write_bytes(path.read_bytes() + line("b", regions(2)) + line("d", regions() | {"num_boxes": 9}) + torn)
    status = import_lxmert_tsv(folder, path).status
    assert (status.planned, status.rows, status.failed) == (6, 3, 3)
    failures = {failure.id: failure.message for failure in status.failures}
    assert failures.keys() == {"b (line 4)", "d", "line 6"}
    assert "features.tsv, line 4: line 2 has b already" in failures["b (line 4)"]
    assert "features.tsv, line 5: features has" in failures["d"]
    assert "features.tsv, line 6: torn" in failures["line 6"]


def test_again_changes_nothing_and_another_file_is_refused(folder) -> None:
    report = import_lxmert_tsv(folder, folder / "features.tsv")
    before = {path.name: path.read_bytes() for path in report.folder.iterdir()}
    assert import_lxmert_tsv(folder, folder / "features.tsv").done == 0
    assert {path.name: path.read_bytes() for path in report.folder.iterdir()} == before
    write(folder / "features.tsv", line("b", regions(1)))
    with pytest.raises(SettingsError, match="sha256"):
        import_lxmert_tsv(folder, folder / "features.tsv")
    assert import_lxmert_tsv(folder, folder / "features.tsv", overwrite=True).status.rows == 1


def test_numbers_beyond_float16_fail_and_float32_keeps_them(folder) -> None:
    large = regions() | {"features": np.full((3, D), 1e5, np.float32)}
    path = write(folder / "features.tsv", line("b", large))
    (failure,) = import_lxmert_tsv(folder, path).status.failures
    assert "--store-dtype float32" in failure.message
    report = import_lxmert_tsv(folder, path, store_dtype="float32", overwrite=True)
    assert StoreReader(report.folder)[0]["features"].max() == 1e5


def test_what_can_be_trained_from_it(folder) -> None:
    text = tokenize_text(folder, "train:60").folder
    store = import_lxmert_tsv(folder, folder / "features.tsv").folder
    mixture = Mixture([Corpus(DatasetStores(text=text, regions=store), CorpusSettings())])
    assert len(mixture) == 3
    assert len(mixture.usable_for(frozenset({"text", "regions"}))) == 3  # mlm, itm, mrfr, mrc
    assert len(mixture.usable_for(frozenset({"text", "regions", "class_probs"}))) == 0  # mrc-kl
    with pytest.raises(SettingsError, match=r"mrc-kl needs class_probs.* mrc needs"):
        Stream(mixture, np.empty(0, np.int64), RegionDistributions(rule=RULE), BatchSettings(), 0, 1)
    sample, reader = mixture.sample(0).regions, StoreReader(store)
    assert (sample.class_probs_RK, sample.background_R) == (None, None)
    assert sample.object_ids_R.tolist() == reader[reader.index("b.png")]["object_ids"].tolist()


def planned(names: list[str], images: list[str]) -> dict[str, str]:
    """Item to the name that got it."""
    items = [Item(image, Path(image), image_source_id(image)) for image in images]
    lines = [Line(number, 0, 0, name) for number, name in enumerate(names, start=1)]
    return {item: row.line.image_id for item, row in plan_rows(lines, items).items()}


@pytest.mark.parametrize(
    ("names", "images", "expected"),
    [
        (["x/1.jpg", "y/1.jpg"], ["y/1.jpg"], {"y/1.jpg": "y/1.jpg", "x/1.jpg": "x/1.jpg"}),
        (["x/1", "y/1"], ["z/1.jpg"], {"x/1": "x/1", "y/1": "y/1"}),  # neither surely
        (["x/1"], ["z/1.jpg"], {"z/1.jpg": "x/1"}),
        (["1"], ["a/1.jpg", "b/1.jpg"], {"1": "1"}),
        (["COCO_train2014_000000132417"], ["000000132417.jpg"], {"000000132417.jpg": "COCO_train2014_000000132417"}),
        (["132417"], [COCO], {COCO: "132417"}),
    ],
)
def test_an_image_belongs_to_the_row_that_surely_means_it(names, images, expected) -> None:
    assert planned(names, images) == expected


def test_the_published_sample(samples, tmp_path) -> None:
    coco = samples / "coco"
    report = import_lxmert_tsv(coco, coco / "train2014_obj36.tsv", out=tmp_path / "regions")
    reader = StoreReader(report.folder)
    assert reader.ids == sorted(f"train2014/{path.name}" for path in (coco / "train2014").iterdir())
    lines = index_file(coco / "train2014_obj36.tsv").lines
    assert len(reader) == len(lines) == 6
    for row in reader:
        assert row["features"].shape == (36, 2048)
        assert (np.diff(row["max_conf"]) <= 0).all()
        with Image.open(coco / row["path"]) as photograph:
            assert photograph.size == (row["width"], row["height"])
    names = reader.manifest.names["classes"]
    birds = reader[reader.index("train2014/COCO_train2014_000000132417.jpg")]
    assert names[birds["object_ids"][0]] == "sky"
