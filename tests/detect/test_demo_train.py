from __future__ import annotations

import torch
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from vlprep.detect.demo.network import FEATURE_DIM, demo_network
from vlprep.detect.demo.train import FactorisedPredictor, train
from vlprep.media.scenes import CLASS_NAMES


def test_the_factorised_predictor_is_the_plain_one() -> None:
    torch.manual_seed(0)
    factorised, plain = FactorisedPredictor(), FastRCNNPredictor(FEATURE_DIM, 1 + len(CLASS_NAMES))
    plain.load_state_dict(factorised.plain_weights())
    features = torch.randn(5, FEATURE_DIM)
    for ours, theirs in zip(factorised(features), plain(features), strict=True):
        torch.testing.assert_close(ours, theirs)
    scores = factorised(features)[0]
    red_star, blue_ring = CLASS_NAMES.index("red star") + 1, CLASS_NAMES.index("blue ring") + 1
    red_ring, blue_star = CLASS_NAMES.index("red ring") + 1, CLASS_NAMES.index("blue star") + 1
    torch.testing.assert_close(scores[:, red_star] + scores[:, blue_ring], scores[:, red_ring] + scores[:, blue_star])


def test_two_steps_give_a_loadable_state_twice_the_same() -> None:
    first, second = (train(steps=2, seed=1, batch=2) for _ in range(2))
    demo_network().load_state_dict(first)
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert {tensor.dtype for tensor in first.values()} == {torch.float16, torch.int64}
