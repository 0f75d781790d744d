"""Metrics against independent implementations, on photographs."""

import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from vistok.evaluation import l1, ms_ssim, mse, psnr, ssim


@pytest.fixture(scope="module")
def pictures():
    crops = [picture[40:136, 60:188] for picture in (data.astronaut(), data.chelsea(), data.coffee())]
    clean = torch.from_numpy(np.stack(crops)).movedim(-1, 1).float() / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return clean, (clean + 0.05 * noise).clamp(0, 1)


@pytest.fixture(scope="module")
def large_pictures():
    crops = [picture[20:200, 30:214] for picture in (data.astronaut(), data.chelsea())]
    clean = torch.from_numpy(np.stack(crops)).movedim(-1, 1).float() / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return clean, (clean + 0.1 * noise).clamp(0, 1)


def as_arrays(pictures):
    return [
        (a.movedim(0, -1).double().numpy(), b.movedim(0, -1).double().numpy())
        for a, b in zip(*pictures, strict=True)
    ]


def test_psnr_is_that_of_scikit_image(pictures):
    expected = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in as_arrays(pictures)]
    np.testing.assert_allclose(psnr(pictures[1], pictures[0]), expected, rtol=1e-6)


def test_ssim_is_that_of_scikit_image_and_torchmetrics(pictures):
    settings = {"channel_axis": -1, "data_range": 1.0, "gaussian_weights": True, "sigma": 1.5}
    expected = [
        structural_similarity(a, b, use_sample_covariance=False, **settings) for a, b in as_arrays(pictures)
    ]
    ours = ssim(pictures[1], pictures[0])
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    # torchmetrics averages over a reflected border too; cut off, it is the same map.
    _, full = structural_similarity_index_measure(
        pictures[1].double(), pictures[0].double(), data_range=1.0, reduction="none", return_full_image=True
    )
    torch.testing.assert_close(ours, full[..., 5:-5, 5:-5].flatten(1).mean(1), rtol=1e-6, atol=0)


def test_equal_pictures(pictures):
    assert psnr(pictures[0], pictures[0]).tolist() == [math.inf] * 3
    torch.testing.assert_close(ssim(pictures[0], pictures[0]), torch.ones(3, dtype=torch.float64))


def test_a_planted_error_gives_the_psnr_by_hand():
    reference = torch.full((1, 3, 16, 16), 0.5)
    assert psnr(reference + 0.1, reference).item() == pytest.approx(20, abs=1e-5)


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_ms_ssim_is_that_of_torchmetrics_within_the_border(large_pictures):
    # From torchmetrics' maps, cut to the places where the window is whole, as the paper has it: its own
    # multi-scale function reflects pictures at their border at the coarsest scale.
    a, b = (pictures.double() for pictures in large_pictures)
    expected = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        options = {"data_range": 1.0, "reduction": "none"}
        _, contrast = structural_similarity_index_measure(b, a, return_contrast_sensitivity=True, **options)
        _, full = structural_similarity_index_measure(b, a, return_full_image=True, **options)
        similarity = full[..., 5:-5, 5:-5].flatten(1).mean(1) if scale == 4 else contrast
        expected = expected * similarity**weight
        a, b = (torch.nn.functional.avg_pool2d(x, 2) for x in (a, b))
    torch.testing.assert_close(ms_ssim(large_pictures[1], large_pictures[0]), expected, rtol=1e-9, atol=0)


def test_ms_ssim_of_equal_and_of_opposite_pictures(large_pictures):
    picture = large_pictures[0]
    torch.testing.assert_close(ms_ssim(picture, picture), torch.ones(2, dtype=torch.float64))
    assert (
        ms_ssim(1 - picture, picture).min() == 0
    )  # structure that is opposite: no root of a negative number


def test_ms_ssim_refuses_pictures_that_are_too_small():
    with pytest.raises(ValueError, match="at least 176 x 176"):
        ms_ssim(torch.zeros(1, 3, 175, 200), torch.zeros(1, 3, 175, 200))


def test_l1_and_mse(pictures):
    arrays = as_arrays(pictures)
    np.testing.assert_allclose(
        l1(pictures[1], pictures[0]), [abs(a - b).mean() for a, b in arrays], rtol=1e-6
    )
    np.testing.assert_allclose(
        mse(pictures[1], pictures[0]), [((a - b) ** 2).mean() for a, b in arrays], rtol=1e-6
    )
