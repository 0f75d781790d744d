"""Metrics against independent implementations, on photographs."""

import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from vistok.evaluation import CodebookUsage, psnr, ssim, usage


@pytest.fixture(scope="module")
def pictures():
    crops = [picture[40:136, 60:188] for picture in (data.astronaut(), data.chelsea(), data.coffee())]
    clean = torch.from_numpy(np.stack(crops)).movedim(-1, 1).float() / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    return clean, (clean + 0.05 * noise).clamp(0, 1)


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


def test_usage_of_several_codebooks_over_several_batches():
    counts = CodebookUsage(codebook_size=4, num_codebooks=2)
    counts.update(torch.tensor([[[0, 0], [1, 2]]]))
    counts.update(torch.tensor([[[0, 0], [3, 3]]]))
    # First codebook: entry 0 alone. Second: 1, 2, 3, 3 -> entropy 1.5 bits.
    result = counts.compute()
    assert result["codebook_usage"] == 4 / 8
    assert result["dead_entries"] == 4
    assert result["codebook_perplexity"] == pytest.approx((1 + 2**1.5) / 2)


def test_usage_of_a_codebook_too_large_to_tabulate():
    counts = CodebookUsage(codebook_size=2**40)
    counts.update(torch.tensor([[2**40 - 1, 5, 5, 5]]))
    counts.update(torch.tensor([[2**39, 5, 5, 5]]))
    result = counts.compute()
    assert result["codebook_usage"] == 3 / 2**40
    assert result["codebook_perplexity"] == pytest.approx(
        math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(8))
    )


@pytest.mark.parametrize("codebook_size", [8, 2**40])
def test_padding_is_not_counted(codebook_size: int):
    mask = torch.tensor([[True, True, False]])
    result = usage(torch.tensor([[3, 3, 5]]), codebook_size, mask=mask)
    assert result["codebook_usage"] == 1 / codebook_size
    assert result["codebook_perplexity"] == 1
    assert result["dead_entries"] == codebook_size - 1
    several = usage(torch.tensor([[[3, 3, 5], [1, 2, 5]]]), codebook_size, num_codebooks=2, mask=mask)
    assert several["codebook_usage"] == 3 / 2 / codebook_size
    assert several["codebook_perplexity"] == 1.5


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (torch.tensor([[1, -1]]), r"-1 at position \[0, 1\]"),
        (torch.tensor([[8, 1]]), r"8 at position \[0, 0\]"),
        (torch.tensor([[0.5]]), "integer tokens"),
    ],
)
def test_what_is_no_token_is_named(tokens: torch.Tensor, text: str):
    with pytest.raises(ValueError, match=text):
        usage(tokens, 8)
    with pytest.raises(ValueError, match="shape"):
        usage(torch.zeros(1, 2, 3, dtype=torch.int64), 8, num_codebooks=3)
