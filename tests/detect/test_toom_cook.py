from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlprep.detect.toom_cook import transforms


@pytest.mark.parametrize("tile", [4, 7])
@pytest.mark.parametrize("side", [4, 7, 9])
def test_is_a_convolution(side: int, tile: int) -> None:
    """In float64, where only the algebra can be wrong."""
    rng = np.random.default_rng(side)
    image, weight = rng.standard_normal((side, side)), rng.standard_normal((3, 3))
    matrices = transforms(side, tile)
    spread = matrices.input_FP @ image.ravel()
    filters = (matrices.filter_n3 @ weight @ matrices.filter_n3.T).ravel()
    products = spread * np.repeat(filters, len(spread) // len(filters))
    found = (matrices.output_PF @ products).reshape(side, side)
    expected = F.conv2d(torch.from_numpy(image)[None, None], torch.from_numpy(weight)[None, None], padding=1)[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize(("tile", "products"), [(4, 144), (7, 81)])
def test_saves_multiplications(tile: int, products: int) -> None:
    """Directly, a 7×7 grid takes 441."""
    assert transforms(7, tile).input_FP.shape == (products, 49)
