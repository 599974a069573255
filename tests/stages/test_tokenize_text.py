"""The text store: captions and narration, tokenized once."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from vlprep.errors import SettingsError
from vlprep.shards import StoreReader
from vlprep.shards.manifest import read_manifest
from vlprep.stages.tokenize_text import open_store_encoder, open_store_tokenizer, tokenize_text


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "v.mp4").write_bytes(b"")
    captions = [("a.jpg", "a red circle"), ("a.jpg", "one red circle"), ("b.jpg", "a blue star")]
    (tmp_path / "captions.jsonl").write_text(
        "".join(json.dumps({"image": image, "caption": text}) + "\n" for image, text in captions)
    )
    (tmp_path / "caption.json").write_text(
        json.dumps({"v": {"start": [2.5, 0.0], "end": [4.0, 2.0], "text": ["then flip it", "a blue pan"]}})
    )
    return tmp_path


def test_captions_and_narration_become_rows(folder) -> None:
    report = tokenize_text(folder, "train:100")
    assert (report.status.rows, report.status.failed) == (5, 0)
    rows = {row["id"]: row for row in StoreReader(report.folder)}
    assert list(rows) == ["a.jpg#0", "a.jpg#1", "b.jpg#0", "v.mp4#0", "v.mp4#1"]
    assert rows["v.mp4#0"]["text"] == "a blue pan"
    assert (rows["v.mp4#1"]["start"], rows["v.mp4#1"]["end"]) == (2.5, 4.0)
    assert rows["a.jpg#0"]["start"] is None
    assert rows["a.jpg#1"]["item_id"] == "a.jpg"
    tokenizer = open_store_tokenizer(report.folder)
    assert tokenizer.decode(rows["b.jpg#0"]["token_ids"].tolist()) == "a blue star"
    assert report.pieces == StoreReader(report.folder).lengths().sum()


def test_again_changes_nothing_and_another_tokenizer_is_refused(folder) -> None:
    report = tokenize_text(folder, "train:100")
    before = {path.name: path.read_bytes() for path in report.folder.iterdir()}
    tokenize_text(folder, "train:100")
    assert {path.name: path.read_bytes() for path in report.folder.iterdir()} == before
    with pytest.raises(SettingsError, match="tokenizer"):
        tokenize_text(folder, "train:60")
    assert tokenize_text(folder, "train:60", overwrite=True).vocabulary <= 60


def test_new_texts_keep_the_trained_tokenizer(folder) -> None:
    report = tokenize_text(folder, "train:100")
    tokenizer = (report.folder / "tokenizer.json").read_bytes()
    with (folder / "captions.jsonl").open("a") as file:
        file.write(json.dumps({"image": "b.jpg", "caption": "an entirely different caption"}) + "\n")
    again = tokenize_text(folder, "train:100")
    assert again.status.rows == 6
    assert (report.folder / "tokenizer.json").read_bytes() == tokenizer


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("captions.jsonl", "one red circle", "a red disc", "a.jpg#1 was 'one red circle' and is 'a red disc'"),
        ("caption.json", "2.5", "3.5", "v.mp4#1 was '2.5-4.0 s' and is '3.5-4.0 s'"),
    ],
)
def test_texts_that_were_changed_are_not_kept_silently(folder, file, old, new, complaint) -> None:
    tokenize_text(folder, "train:100")
    (folder / file).write_text((folder / file).read_text().replace(old, new))
    with pytest.raises(SettingsError, match=f"{complaint}; begin it anew with --overwrite"):
        tokenize_text(folder, "train:100")
    report = tokenize_text(folder, "train:100", overwrite=True)
    assert (report.status.rows, report.status.failed) == (5, 0)


@pytest.mark.parametrize(("choice", "kept"), [("train:100", "tokenizer.json"), ("words:train:6", "vectors.npy")])
def test_a_run_that_stopped_before_its_tokenizer_was_kept_goes_on(folder, choice, kept) -> None:
    store = tokenize_text(folder, choice).folder
    for path in store.iterdir():
        if path.name != "store.json":
            path.unlink()
    assert tokenize_text(folder, choice).status.rows == 5
    assert (store / kept).is_file()


def test_words_with_vectors_trained_on_the_texts_themselves(folder) -> None:
    report = tokenize_text(folder, "words:train:6", out=folder / "vlprep" / "words")
    rows = {row["id"]: row for row in StoreReader(report.folder)}
    encoder = open_store_encoder(report.folder)
    words = list(encoder.vectors.index)
    assert [words[number] for number in rows["a.jpg#0"]["token_ids"]] == ["red", "circle"]  # less the stop word
    assert encoder.table().vectors_VD.shape == (len(words), 6)
    assert (report.coverage.unknown, report.vocabulary) == (0, len(words))
    files = {path.name: path.read_bytes() for path in report.folder.iterdir() if path.suffix != ".json"}
    again = tokenize_text(folder, "words:train:6", out=folder / "vlprep" / "words", overwrite=True)
    assert {path.name: path.read_bytes() for path in again.folder.iterdir() if path.suffix != ".json"} == files


def test_new_texts_and_other_datasets_keep_the_words_of_a_store(folder, tmp_path_factory) -> None:
    store = tokenize_text(folder, "words:train:6", out=folder / "vlprep" / "words").folder
    with (folder / "captions.jsonl").open("a") as file:
        file.write(json.dumps({"image": "b.jpg", "caption": "an Unheard blue"}) + "\n")
    again = tokenize_text(folder, "words:train:6", out=store)
    assert (again.status.rows, again.coverage.unknown) == (6, 1)
    other = tokenize_text(folder, f"words:{store}", out=tmp_path_factory.mktemp("other") / "words")
    ids = [{row["id"]: row["token_ids"].tolist() for row in StoreReader(made)} for made in (store, other.folder)]
    assert ids[0] == ids[1]
    made_by = [json.loads((made / "store.json").read_text())["settings"]["sha256"] for made in (store, other.folder)]
    assert made_by[0] == made_by[1]


def test_a_folder_without_text_says_so(tmp_path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    with pytest.raises(SettingsError, match="datasets inspect"):
        tokenize_text(tmp_path)


def test_answers_of_questions_are_kept_and_named_by_frequency(folder) -> None:
    def ask(*asked: tuple[str, str, dict[str, float]]) -> None:
        lines = (json.dumps({"img_id": name, "sent": text, "label": label}) + "\n" for name, text, label in asked)
        (folder / "vqa.jsonl").write_text("".join(lines))

    first = [("a.jpg", "what is it", {"star": 1.0, "circle": 0.3}), ("b.jpg", "what is it", {"star": 1.0})]
    ask(*first)
    store = tokenize_text(folder, "train:100").folder
    assert read_manifest(store).names == {"answers": ["star", "circle"]}
    said = {row["id"]: row["answers"] for row in StoreReader(store)}
    assert json.loads(said["a.jpg#2"]) == {"star": 1.0, "circle": 0.3}
    assert said["a.jpg#0"] is None
    assert said["v.mp4#0"] is None
    ask(*first, ("b.jpg", "which colour", {"blue": 1.0}))
    tokenize_text(folder, "train:100")  # the classes of a model that was trained stay as they are
    assert read_manifest(store).names == {"answers": ["star", "circle"]}
    tokenize_text(folder, "train:100", overwrite=True)
    assert read_manifest(store).names == {"answers": ["star", "blue", "circle"]}


def test_a_store_from_before_there_were_questions_goes_on(folder) -> None:
    store = tokenize_text(folder, "train:100").folder
    assert "answers" not in read_manifest(store).columns
    (folder / "vqa.jsonl").write_text(json.dumps({"img_id": "b.jpg", "sent": "what", "label": {"star": 1}}) + "\n")
    assert tokenize_text(folder, "train:100").status.rows == 6
    assert "answers" not in read_manifest(store).columns
