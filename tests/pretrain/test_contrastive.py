"""Contrastive losses against the published code's, with their gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pretrain.golden_losses import check, published

from vlprep.pretrain.objectives.contrastive import diagonal_nce, feature_scores, middle_mil_nce, nce


@pytest.mark.parametrize("name", ["b4n3", "b3n2", "b5n1"])
def test_univls_milnce(golden: Path, name: str) -> None:
    case = published(golden, f"univl_milnce.{name}")
    similarity = case.given["sim"].requires_grad_()
    contrast = middle_mil_nce(similarity, pairs=case.settings["n_pair"])
    assert contrast.loss_B.shape == contrast.correct_B.shape == (case.settings["batch_size"],)
    check(contrast.loss_B, case, sim=similarity)


def test_univls_cross_entropy(golden: Path) -> None:
    case = published(golden, "univl_crossen")
    similarity = case.given["sim"].requires_grad_()
    check(diagonal_nce(similarity).loss_B, case, sim=similarity)


def test_univls_masked_frames(golden: Path) -> None:
    """Padding is never a candidate: only real frames are packed."""
    case = published(golden, "univl_cmfm")
    scores, video = case.given["scores"].requires_grad_(), case.given["video"].requires_grad_()
    real = case.given["video_mask"].bool()
    targets = (case.given["labels_index"] != -1)[real].nonzero()[:, 0]
    check(nce(feature_scores(scores[real][targets], video[real]), targets).loss_B, case, scores=scores, video=video)


@pytest.mark.parametrize("name", ["t1", "t2"])
def test_heros_masked_frames(golden: Path, name: str) -> None:
    case = published(golden, f"hero_mfm_nce.{name}")
    masked = case.given["masked_prediction"].requires_grad_()
    unmasked = case.given["unmasked_prediction"].requires_grad_()
    candidates = torch.cat([case.given["target_feature"], unmasked])
    scores = feature_scores(masked, candidates, temperature=case.settings["temperature"])
    losses = nce(scores, torch.arange(len(masked))).loss_B
    np.testing.assert_allclose(losses.detach(), case.out["per_frame"], rtol=1e-5, atol=2e-6)
    check(losses, case, masked_prediction=masked, unmasked_prediction=unmasked)


def test_with_nothing_masked_the_sum_is_zero_and_keeps_its_gradient() -> None:
    head = torch.nn.Linear(4, 4)
    scores = feature_scores(head(torch.zeros(0, 4)), torch.randn(3, 4))
    losses = nce(scores, torch.zeros(0, dtype=torch.long)).loss_B
    losses.sum().backward()
    assert losses.sum() == 0
    assert not head.weight.grad.any()


def test_a_text_is_right_when_its_likeliest_clip_is_of_its_video() -> None:
    similarity = torch.zeros(6, 6)
    similarity[1, 2] = similarity[4, 0] = 1.0  # the middle texts of two videos: of the own, of the other video
    assert middle_mil_nce(similarity, pairs=3).correct_B.tolist() == [True, False]
    assert diagonal_nce(torch.tensor([[0.0, 1.0], [0.0, 1.0]])).correct_B.tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_products_that_are_compared_are_not_rounded_to_half(dtype: torch.dtype) -> None:
    rows = torch.nn.functional.normalize(torch.randn(6, 64), dim=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = feature_scores(rows, rows)
    exact = rows.double() @ rows.double().T
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=0)


def test_nor_are_their_gradients_where_the_forward_pass_alone_is_cast() -> None:
    """As `Trainer` does: backward stands outside of autocast."""
    gradients = []
    for cast in (True, False):
        rows = torch.linspace(-1, 1, 6 * 64).reshape(6, 64).sin().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            loss = diagonal_nce(feature_scores(rows, rows)).loss_B.sum()
        loss.backward()
        gradients.append(rows.grad)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
