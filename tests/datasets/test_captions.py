"""Every published caption form, as its file looks, given to the right pictures."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from vlprep.datasets import open_dataset
from vlprep.datasets.captions import url_keys
from vlprep.errors import SettingsError


def write(root: Path, files: dict[str, str | bytes | dict | list]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def captions(root: Path) -> dict[str, tuple[str, ...]]:
    dataset = open_dataset(root)
    return {item.id: texts for item in dataset.items if (texts := dataset.captions_of(item))}


COCO = {
    "info": {"year": 2014},
    "images": [
        {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "width": 4},
        {"id": 25, "file_name": "COCO_train2014_000000000025.jpg"},
    ],
    "licenses": [],
    "annotations": [
        {"image_id": 25, "id": 1, "caption": "A giraffe.\n"},
        {"image_id": 9, "id": 2, "caption": "Some food."},
        {"image_id": 25, "id": 3, "caption": "Two  giraffes"},
    ],
}
NAMES = ("COCO_train2014_000000000009.jpg", "COCO_train2014_000000000025.jpg")


def test_coco(tmp_path: Path) -> None:
    write(tmp_path, {f"train2014/{name}": "" for name in NAMES} | {"annotations/captions_train2014.json": COCO})
    assert captions(tmp_path) == {
        f"train2014/{NAMES[0]}": ("Some food.",),
        f"train2014/{NAMES[1]}": ("A giraffe.", "Two giraffes"),
    }


def test_coco_by_image_id_alone(tmp_path: Path) -> None:
    """Captions without names (results of captioning models) find their pictures by the id in the file name."""
    only_ids = {"images": [], "annotations": COCO["annotations"]}
    write(tmp_path, {"000000000009.jpg": "", "annotations/captions_x.json": only_ids})
    assert captions(tmp_path) == {"000000000009.jpg": ("Some food.",)}


def test_coco_boxes_and_keypoints_are_not_captions(tmp_path: Path) -> None:
    boxes = COCO | {"annotations": [{"image_id": 9, "bbox": [0, 0, 1, 1]}]}
    write(tmp_path, {NAMES[0]: "", "annotations/instances_train2014.json": boxes})
    write(tmp_path, {"annotations/person_keypoints_train2014.json": boxes})
    assert captions(tmp_path) == {}


def test_karpathy(tmp_path: Path) -> None:
    entry = {"filepath": "val2014", "filename": "x.jpg", "cocoid": 7, "split": "test"}
    sentences = [{"tokens": ["a", "man"], "raw": "A man. "}, {"tokens": ["b"], "raw": "B"}]
    write(
        tmp_path,
        {
            "dataset_coco.json": {"images": [entry | {"sentences": sentences}], "dataset": "coco"},
            "val2014/x.jpg": "",
            "train2014/x.jpg": "",
        },
    )
    assert captions(tmp_path) == {"val2014/x.jpg": ("A man.", "B")}


def test_karpathy_flickr(tmp_path: Path) -> None:
    entry = {"filename": "1000092795.jpg", "imgid": 0, "split": "train", "sentences": [{"raw": "Two guys"}]}
    write(tmp_path, {"dataset_flickr30k.json": {"images": [entry]}, "images/1000092795.jpg": ""})
    assert captions(tmp_path) == {"images/1000092795.jpg": ("Two guys",)}


def test_flickr30k_tokens(tmp_path: Path) -> None:
    lines = '10.jpg#0\tTwo "young" guys .\n10.jpg#1\tTwo men\r\n\n11.jpg#0\tA dog\n'
    write(tmp_path, {"results_20130124.token": lines, "flickr30k-images/10.jpg": "", "flickr30k-images/11.jpg": ""})
    assert captions(tmp_path) == {
        "flickr30k-images/10.jpg": ('Two "young" guys .', "Two men"),
        "flickr30k-images/11.jpg": ("A dog",),
    }


URLS = ["http://a.org/p/cat%20one.jpg?w=3", "https://b.org/dog.jpg", "https://c.org/dog.jpg"]
GCC = "".join(f'caption {n} with a " mark\t{url}\n' for n, url in enumerate(URLS))


def test_conceptual_captions_under_each_downloaders_names(tmp_path: Path) -> None:
    checksums = [zlib.crc32(url.encode()) for url in URLS]
    write(tmp_path, {"Train_GCC-training.tsv": GCC, "cat one.jpg": ""})
    write(tmp_path, {f"vilbert/{checksums[1]}.jpg": "", f"training/2_{checksums[2]}.jpg": ""})
    assert captions(tmp_path) == {
        "cat one.jpg": ('caption 0 with a " mark',),
        f"vilbert/{checksums[1]}.jpg": ('caption 1 with a " mark',),
        f"training/2_{checksums[2]}.jpg": ('caption 2 with a " mark',),
    }


def test_conceptual_captions_by_img2dataset_with_its_header_and_sidecars(tmp_path: Path) -> None:
    write(tmp_path, {"cc3m.tsv": "caption\turl\n" + GCC, "00000/000000002.jpg": "", "00000/000000000.jpg": ""})
    write(tmp_path, {"00000/000000002.json": {"caption": "not read", "url": "x"}, "00000/000000002.txt": "not read"})
    assert captions(tmp_path) == {
        "00000/000000000.jpg": ('caption 0 with a " mark',),
        "00000/000000002.jpg": ('caption 2 with a " mark',),
    }


def test_picture_whose_name_two_urls_share_gets_neither_caption(tmp_path: Path) -> None:
    write(tmp_path, {"Train_GCC-training.tsv": GCC, "dog.jpg": ""})
    assert captions(tmp_path) == {}


def test_sbu(tmp_path: Path) -> None:
    urls = ["http://static.flickr.com/2723/4385058960_b0f291553e.jpg", "http://static.flickr.com/1/2_c.jpg"]
    write(tmp_path, {"sbu-captions-all.json": {"image_urls": urls, "user_ids": [1, 2], "captions": ["A wood", "B"]}})
    write(tmp_path, {"images/4385058960_b0f291553e.jpg": ""})
    assert captions(tmp_path) == {"images/4385058960_b0f291553e.jpg": ("A wood",)}


def test_sbu_text(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "SBU_captioned_photo_dataset_urls.txt": "http://x.com/1.jpg\nhttp://x.com/2.jpg\n",
            "SBU_captioned_photo_dataset_captions.txt": "one\ntwo\n",
            "2.jpg": "",
        },
    )
    assert captions(tmp_path) == {"2.jpg": ("two",)}


RECORDS = {
    "captions.csv": 'image,caption\nx y.jpg,"A ""red"" car, parked"\nx y.jpg,Again\n',
    "byte_order_mark.csv": '\ufeffImage, Caption\nx y.jpg,"A ""red"" car, parked"\nx y.jpg,Again\n',
    "old_mac.csv": 'image,caption\rx y.jpg,"A ""red"" car, parked"\rx y.jpg,Again\r',
    "crlf.tsv": 'caption\tfile_name\r\nA "red" car, parked\tx y.jpg\r\n"Again"\tx y.jpg\r\n',
    "quoted.tsv": 'filepath\tsplit\ttext\npics/x y.jpg\ttrain\t"A ""red"" car, parked"\npics/x y.jpg\t\tAgain\n',
    "lines.jsonl": '{"image": "x y.jpg", "caption": ["A \\"red\\" car, parked", "Again"]}\n\n',
    "two.jsonl": '{"img": "./x y.jpg", "text": "A \\"red\\" car, parked"}\n{"id": "x y.jpg", "sentence": "Again"}\n',
    "list.json": '[{"image": "/data/me/x y.jpg", "caption": "A \\"red\\" car,\\nparked"},'
    ' {"image": "/data/me/x y.jpg", "image_id": "coco_7", "caption": "Again"}]',
}


@pytest.mark.parametrize("name", RECORDS)
def test_records(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: RECORDS[name], "x y.jpg": ""})
    assert captions(tmp_path) == {"x y.jpg": ('A "red" car, parked', "Again")}


def test_number_of_a_row_is_not_the_image_that_the_row_names(tmp_path: Path) -> None:
    write(tmp_path, {"c.jsonl": '{"id": 5, "image": "gone.jpg", "caption": "a"}\n', "5.jpg": ""})
    assert captions(tmp_path) == {}


def test_quotation_marks_at_both_ends_of_a_tsv_field_may_be_text(tmp_path: Path) -> None:
    write(tmp_path, {"c.tsv": 'image\tcaption\nx.jpg\t"yes" she said "no"\n', "x.jpg": ""})
    assert captions(tmp_path) == {"x.jpg": ('"yes" she said "no"',)}


def test_videos_may_have_captions(tmp_path: Path) -> None:
    write(tmp_path, {"msrvtt_test.csv": "key,vid_key,video_id,sentence\nret0,msr9770,video9770,a person sings\n"})
    write(tmp_path, {"all/video9770.mp4": ""})
    assert captions(tmp_path) == {"all/video9770.mp4": ("a person sings",)}


def test_same_captions_in_two_files_count_once(tmp_path: Path) -> None:
    write(
        tmp_path, {"a.csv": "image,caption\nx.jpg,one\nx.jpg,two\n", "b.csv": "image,caption\nx.jpg,two\nx.jpg,three\n"}
    )
    write(tmp_path, {"x.jpg": ""})
    assert captions(tmp_path) == {"x.jpg": ("one", "two", "three")}


def test_empty_captions_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path, {"c.jsonl": '{"image": "x.jpg", "caption": null}\n{"image": "x.jpg", "caption": NaN}\n', "x.jpg": ""}
    )
    assert captions(tmp_path) == {}


def test_half_an_emoji_and_numbers_without_end(tmp_path: Path) -> None:
    """JSON can say what UTF-8 and floats cannot."""
    halved = r'{"image": "x.jpg", "question": "what \ud83d is it", "label": {"a": 1, "b": NaN, "c": 1e999}}'
    write(tmp_path, {"c.jsonl": halved.replace("1e999", "1" + "0" * 400) + "\n", "x.jpg": ""})
    assert captions(tmp_path) == {"x.jpg": ("what ? is it",)}
    assert answers(tmp_path) == {"x.jpg": {"what ? is it": {"a": 1.0}}}


BROKEN = {
    "captions.json": ("{'single': quotes}", "none of the known formats"),
    "my_captions.csv": ("picture;words\n1;2\n", "none of the known formats"),
    "annotations/captions_x.json": ('{"images": [{"id": 1, "file_name": "x.jpg"}], "annot', "line 1: not valid JSON"),
    "a/captions_x.json": ('{"images": [{"id": 1, "file_name": "x.jpg"}]}', "annotations: missing"),
    "b/captions_x.json": (
        '{"images": [{"id": 1, "file_name": "x.jpg"}], "annotations": [{"image_id": 1, "question": "?"}]}',
        "annotation 0: not a caption",
    ),
    "dataset_x.json": ('{"images": [{"sentences": [{"raw": "x"}]}]}', "image 0: not as in Karpathy"),
    "sbu.json": ('{"image_urls": ["http://x/1.jpg"], "captions": []}', "1 URLs and 0 captions"),
    "short.csv": ("image,n,caption\nx.jpg,1,yes\nx.jpg,1\n", "line 3: 2 columns where the header has 3"),
    "unclosed.csv": ('image,caption\nx.jpg,"one\nx.jpg,two\n', "line 3: not a CSV"),
    "comma.csv": ("image,caption\nx.jpg,red, and blue\n", "line 2: 3 columns where the header has 2: quotes forgotten"),
    "lines.jsonl": ('{"image": "x.jpg", "caption": "a"}\n{"image": \n', "line 2: not valid JSON"),
    "other.jsonl": ('{"image": "x.jpg", "caption": "a"}\n{"image": "x.jpg"}\n', "line 2: no caption"),
    "nameless.jsonl": ('{"image": "x.jpg", "caption": "a"}\n{"caption": "b"}\n', "line 2: nothing names the image"),
    "list.json": ('[{"image": "x.jpg", "caption": "a"}, 5]', "entry 1: not an object"),
    "x.token": ("x.jpg#0\tok\nx.jpg#1 no tab\n", "line 2: no tab"),
    "Train_GCC.tsv": ("a caption\thttp://x/x.jpg\nno url\n", "line 2: not caption<tab>url"),
    "deep.json": ("[" * 100_000, "not valid JSON"),
    "deep.jsonl": ('{"image": "x.jpg", "caption": "a"}\n' + "[" * 100_000, "line 2: not valid JSON"),
    "latin.csv": ("image,caption\nx.jpg,café\n".encode("latin-1"), "not a CSV in UTF-8"),
    "latin.tsv": ("image\tcaption\nx.jpg\tcafé\n".encode("latin-1"), "not UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_or_unknown_files_name_themselves_and_the_place(tmp_path: Path, name: str) -> None:
    content, reason = BROKEN[name]
    write(tmp_path, {name: content, "x.jpg": ""})
    dataset = open_dataset(tmp_path)
    with pytest.raises(SettingsError, match=reason) as caught:
        dataset.captions_of(dataset.images[0])
    assert str(tmp_path / name) in str(caught.value)


def test_listing_needs_no_captions(tmp_path: Path) -> None:
    write(tmp_path, {"annotations/captions_x.json": "damaged", "captions.csv": b"\xff\xfe", "x.jpg": ""})
    assert [item.source_id for item in open_dataset(tmp_path).images] == [None]


def test_url_keys() -> None:
    assert url_keys("https://a.org/b/c%20d.jpg?x=1#y", 12)[1:] == (
        f"12_{zlib.crc32(b'https://a.org/b/c%20d.jpg?x=1#y')}",
        "000000012",
        "c d.jpg",
    )
    assert url_keys("https://a.org/", 0)[2:] == ("000000000",)
    assert url_keys("http://[a.org/b.jpg", 0)[2:] == ("000000000",)  # as no URL may be


def test_coco_sample(samples: Path) -> None:
    found = captions(samples / "coco")
    assert len(found) == 6
    assert found["train2014/COCO_train2014_000000084002.jpg"][0].startswith("A bedroom with blue walls")


def answers(root: Path) -> dict[str, dict[str, dict[str, float]]]:
    dataset = open_dataset(root)
    return {item.id: found for item in dataset.items if (found := dataset.answers_of(item))}


def test_lxmert(tmp_path: Path) -> None:
    entry = {
        "img_id": "COCO_train2014_000000000009",
        "sentf": {"mscoco": ["Some food."], "vqa": ["What is it?", "How many?"]},
        "labelf": {"vqa": [{"food": 1, "bread": 0.3}, {}]},
    }
    write(tmp_path, {NAMES[0]: "", NAMES[1]: "", "mscoco_train.json": [entry]})
    assert captions(tmp_path) == {NAMES[0]: ("Some food.", "What is it?", "How many?")}
    assert answers(tmp_path) == {NAMES[0]: {"What is it?": {"food": 1.0, "bread": 0.3}}}


@pytest.mark.parametrize(
    "changes", [{"labelf": {"vqa": [{}]}}, {"sentf": ["a list"]}, {"labelf": [{"food": 1}]}, {"sentf": {"vqa": 3}}]
)
def test_a_damaged_lxmert_file_is_named(tmp_path: Path, changes: dict) -> None:
    entry = {"img_id": "9", "sentf": {"vqa": ["What is it?", "How many?"]}, "labelf": {}}
    write(tmp_path, {"9.jpg": "", "train.json": [entry, entry | changes]})
    with pytest.raises(SettingsError, match=r"train\.json: entry 1: not as in LXMERT"):
        captions(tmp_path)


def test_questions_as_records(tmp_path: Path) -> None:
    fine_tuning = {"img_id": "9", "sent": "What is it?", "label": {"net": 1, "netting": 0.3}, "question_id": 1}
    write(
        tmp_path,
        {
            "9.jpg": "",
            "25.jpg": "",
            "vqa.json": [fine_tuning],
            "more.csv": "image,question,answer\n25.jpg,How many?,two\n25.jpg,Why?,\n",
            "classes.jsonl": json.dumps({"image": "25.jpg", "caption": "A giraffe", "label": 7}) + "\n",
        },
    )
    assert answers(tmp_path) == {
        "9.jpg": {"What is it?": {"net": 1.0, "netting": 0.3}},
        "25.jpg": {"How many?": {"two": 1.0}},
    }
    assert set(captions(tmp_path)["25.jpg"]) == {"How many?", "Why?", "A giraffe"}
