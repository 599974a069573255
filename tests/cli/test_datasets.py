from __future__ import annotations


def test_what_is_recognised_missing_and_doubled(vlprep, document, made):
    (made.dataset / "annotations" / "notes.json").write_text('{"about": "something else"}')
    result = vlprep("datasets", "inspect", made.dataset)
    assert result.exit_code == 0
    assert "4 images, 15 captions" in result.stdout
    assert "captions_demo.json  COCO captions" in result.stdout
    assert "boxes for --given-boxes: annotations/instances_demo.json" in result.stdout
    assert "images without caption: 1\n  images/broken.jpg\n" in result.stdout
    assert document("datasets", "inspect", made.dataset)["images"] == 4


def test_an_empty_folder_says_so(vlprep, tmp_path):
    assert "no image and no video" in vlprep("datasets", "inspect", tmp_path).stdout


def test_no_folder_is_2(vlprep, tmp_path):
    result = vlprep("datasets", "inspect", tmp_path / "nowhere")
    assert (result.exit_code, result.stdout) == (2, "")
