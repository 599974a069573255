"""Small networks of every family against the same networks as published, and what batching may not change."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from detect.networks import FAMILIES, detector_of, loaded, picture, published_weights, tiny
from detect.published import PublishedNetwork
from torch import Tensor

from vlprep.detect.base import Regions
from vlprep.detect.checkpoints import load_checkpoint
from vlprep.detect.head import ConvolutionHead, stream
from vlprep.detect.matmul_head import MatmulHead, applies_to
from vlprep.detect.network import RegionNetwork
from vlprep.errors import ItemError

MATMUL = ("butd", "butd-pb", "butd-caffe")


def assert_same(found: Regions, expected: Regions, tolerance: float = 1e-5) -> None:
    for name in ("proposals_R4", "features_RD", "class_probs_RK", "background_R", "regressed_R4", "attribute_probs_RA"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.shape == other.shape
        assert (one - other).abs().max() <= tolerance * other.abs().max(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_published_network(family: str) -> None:
    spec = tiny(FAMILIES[family])
    weights = published_weights(spec)
    published = PublishedNetwork(spec).eval()
    published.load_state_dict(weights)
    detector = loaded(spec, weights)
    prepared = detector.prepare(picture())
    boxes, features, classes, attributes = published(prepared.pixels, prepared.scale_xy)
    first = spec.background_first
    expected_classes = classes.roll(-1, dims=1) if first else classes
    expected_attributes = (attributes.roll(-1, dims=1) if first else attributes)[:, : spec.attributes]

    found = detector.detect([prepared])[0]
    assert 5 < len(found) <= spec.post_nms
    torch.testing.assert_close(found.proposals_R4, boxes, atol=1e-3, rtol=0)
    assert (found.features_RD - features).abs().max() < 1e-5 * features.abs().max()
    torch.testing.assert_close(found.class_probs_RK, expected_classes[:, :-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.background_R, expected_classes[:, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.attribute_probs_RA, expected_attributes, atol=1e-5, rtol=0)
    assert features.std() > 1e-3  # a dead network would agree with anything
    assert classes.std(dim=0).max() > 1e-3


def test_the_regressed_box_is_the_best_classes() -> None:
    spec = tiny(FAMILIES["butd"])
    weights = published_weights(spec)
    published = PublishedNetwork(spec).eval()
    published.load_state_dict(weights)
    detector = loaded(spec, weights)
    prepared = detector.prepare(picture())
    found = detector.detect([prepared])[0]
    with torch.inference_mode():
        _, _, deltas = published.scores(found.features_RD)
    best = found.class_probs_RK.argmax(dim=1)
    dx, dy, dw, dh = (deltas.view(len(found), -1, 4)[torch.arange(len(found)), best] / torch.tensor([10, 10, 5, 5])).T
    sides = found.proposals_R4[:, 2:] - found.proposals_R4[:, :2]
    centre = found.proposals_R4[:, :2] + sides / 2 + torch.stack((dx, dy), dim=1) * sides
    sides = sides * torch.stack((dw, dh), dim=1).exp()
    expected = torch.cat((centre - sides / 2, centre + sides / 2), dim=1)
    expected = expected.clamp(min=0).minimum(torch.tensor([150.0, 120, 150, 120]))
    torch.testing.assert_close(found.regressed_R4, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", ["butd", "butd-caffe", "butd-caffe-r152", "butd-d2"])
def test_a_batch_equals_single_images(family: str) -> None:
    """Two of one shape, one of another, one with given boxes and one with none of those: nothing is padded."""
    spec = tiny(FAMILIES[family])
    detector = loaded(spec, published_weights(spec))
    images = [detector.prepare(picture(*size, seed)) for seed, size in enumerate([(120, 150), (150, 120), (120, 150)])]
    images += [images[0], images[1]]
    boxes = np.float32([[3, 4, 60, 70], [10, 10, 149, 100]])
    given = [None, None, None, boxes, boxes[:0]]
    together = detector.detect(images, given)
    assert [len(regions) for regions in together[3:]] == [2, 0]
    np.testing.assert_array_equal(together[3].proposals_R4, boxes)
    for image, box, regions in zip(images[:4], given, together, strict=False):
        assert_same(regions, detector.detect([image], [box])[0])


@pytest.mark.parametrize("family", ["butd", "butd-d2"])
def test_chunks_change_nothing(family: str) -> None:
    spec = tiny(FAMILIES[family])
    weights = published_weights(spec)
    whole, pieces = (loaded(spec, weights, chunk=chunk) for chunk in (100, 5))
    images = [whole.prepare(picture(seed=seed)) for seed in range(2)]
    for one, other in zip(whole.detect(images), pieces.detect(images), strict=True):
        assert_same(one, other)


def test_the_same_call_gives_the_same_bytes() -> None:
    spec = tiny(FAMILIES["butd"])
    detector = loaded(spec, published_weights(spec))
    images = [detector.prepare(picture())]
    first, second = detector.detect(images)[0], detector.detect(images)[0]
    for name in ("proposals_R4", "features_RD", "class_probs_RK"):
        assert torch.equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("tile", [4, 7])
def test_matrix_products_equal_convolutions(tile: int) -> None:
    """On the whole fifth stage, all regions and a map with negative values; far below bfloat16's 4e-3."""
    spec = tiny(FAMILIES["butd"])
    network = RegionNetwork(spec).eval().requires_grad_(False)
    load_checkpoint(network, published_weights(spec), spec, "test")
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(128, *size, generator=generator) for size in ((9, 13), (13, 9))]
    corners = torch.rand(30, 2, 2, generator=generator) * 150
    boxes = [torch.cat((corners.amin(dim=1), corners.amax(dim=1)), dim=1), corners[:0].flatten(1)]
    expected = stream(ConvolutionHead(network, spec, chunk=7), maps, boxes)
    found = stream(MatmulHead(network, tile=tile, chunk=7), maps, boxes)
    assert [part.shape for part in found] == [(30, 256), (0, 256)]
    limit = {4: 1e-6, 7: 1e-5}[tile]
    assert (found[0] - expected[0]).abs().max() < limit * expected[0].abs().max()


def test_which_families_run_on_matrix_products() -> None:
    assert tuple(name for name, spec in FAMILIES.items() if applies_to(spec)) == MATMUL


@pytest.mark.parametrize("tile_engines", [False, True])
@pytest.mark.parametrize("family", ["butd", "butd-caffe-r152"])
def test_low_precision(monkeypatch: pytest.MonkeyPatch, family: str, tile_engines: bool) -> None:
    """With bfloat16 as a number type, as on a GPU, and as CPUs without tile engines do it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": tile_engines})
    spec = tiny(FAMILIES[family])
    weights = published_weights(spec)
    exact, low = loaded(spec, weights), loaded(spec, weights, precision="bf16")
    prepared = exact.prepare(picture())
    boxes = [np.float32([[3, 4, 60, 70], [10, 10, 149, 100]])]
    expected, found = exact.detect([prepared], boxes)[0], low.detect([prepared], boxes)[0]
    assert found.features_RD.dtype == found.class_probs_RK.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found.features_RD, expected.features_RD).min() > 0.999
    different = (found.features_RD - expected.features_RD).abs().max() / expected.features_RD.abs().max()
    assert (different > 1e-4) == tile_engines


def test_settings_are_plain_and_tell_families_apart() -> None:
    spec = tiny(FAMILIES["butd"])
    network = RegionNetwork(spec)
    told = json.loads(json.dumps(detector_of(spec, network).settings()))
    assert told["name"] == "butd"
    assert told["precision"] == "fp32"
    other = detector_of(replace(spec, post_nms=7), network, precision="bf16").settings()
    assert {name for name in told if json.dumps(told[name]) != json.dumps(other[name])} == {"post_nms", "precision"}


def test_probabilities_and_boxes_are_sound() -> None:
    for family in FAMILIES.values():
        spec = tiny(family)
        detector = loaded(spec, published_weights(spec))
        found = detector.detect([detector.prepare(picture(111, 173))])[0]
        torch.testing.assert_close(found.class_probs_RK.sum(dim=1) + found.background_R, torch.ones(len(found)))
        for boxes in (found.proposals_R4, found.regressed_R4):
            assert_inside(boxes, 111, 173)
        logits = found.objectness_R
        assert torch.equal(logits, logits.sort(descending=True).values)
        assert (found.features_RD >= 0).all()
        assert (found.features_RD == 0).any()  # as published features, whose channels are silent in many regions


@pytest.mark.parametrize("family", FAMILIES)
def test_the_narrowest_pictures(family: str) -> None:
    spec = tiny(FAMILIES[family])
    detector = loaded(spec, published_weights(spec))
    for shape in ((4, 160), (160, 4), (1, 1)):
        found = detector.detect([detector.prepare(np.full((*shape, 3), 99, np.uint8))])[0]
        assert found.features_RD.shape == (len(found), spec.feature_dim)
    with pytest.raises(ItemError, match="500 by 3 pixels is too narrow"):
        detector.prepare(np.zeros((3, 500, 3), np.uint8))


def assert_inside(boxes: Tensor, height: int, width: int) -> None:
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "cosine"), [("fp32", 0.999999), ("bf16", 0.999), ("fp16", 0.999)])
def test_on_a_gpu(precision: str, cosine: float) -> None:
    spec = tiny(FAMILIES["butd"])
    weights = published_weights(spec)
    detector = loaded(spec, weights)
    prepared = detector.prepare(picture())
    boxes = [np.float32([[3, 4, 60, 70], [10, 10, 149, 100]])]
    expected = detector.detect([prepared], boxes)[0]
    found = loaded(spec, weights, precision=precision, device="cuda").detect([prepared], boxes)[0]
    assert torch.nn.functional.cosine_similarity(found.features_RD.cpu(), expected.features_RD).min() > cosine
