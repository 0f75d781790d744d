"""Measures of reconstructions, one number a picture. Pictures are float in [0, 1]."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 11  # pixels: of the Gaussian window of SSIM
# Weights of the scales of MS-SSIM, the finest first: the paper's, from comparisons by eye.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def l1(pictures: Tensor, references: Tensor) -> Tensor:
    """The mean absolute error of each picture, over all its pixels and channels.

    Args:
        pictures: float `(B, C, H, W)` in [0, 1].
        references: The same.

    Returns:
        float64 `(B,)`.
    """
    return (pictures - references).abs().flatten(1).mean(1, dtype=torch.float64)


def mse(pictures: Tensor, references: Tensor) -> Tensor:
    """The mean squared error of each picture, over all its pixels and channels.

    Args:
        pictures: float `(B, C, H, W)` in [0, 1].
        references: The same.

    Returns:
        float64 `(B,)`.
    """
    return (pictures.double() - references.double()).square().flatten(1).mean(1)


def psnr(pictures: Tensor, references: Tensor) -> Tensor:
    """The peak signal-to-noise ratio in dB of each picture, over all its pixels and channels.

    Args:
        pictures: float `(B, C, H, W)` in [0, 1].
        references: The same.

    Returns:
        float64 `(B,)`; infinite where two pictures are equal.
    """
    return -10 * torch.log10(mse(pictures, references))


@torch.no_grad()
def ssim(pictures: Tensor, references: Tensor) -> Tensor:
    """The structural similarity of each picture, by an 11x11 Gaussian window (sigma 1.5) within it.

    Image Quality Assessment: From Error Visibility to Structural Similarity. Wang, Bovik, Sheikh,
    Simoncelli. TIP 2004.

    Args:
        pictures: float `(B, C, H, W)` in [0, 1], at least 11 pixels high and wide.
        references: The same.

    Returns:
        float64 `(B,)`, the mean over channels and places; without a gradient.

    Raises:
        ValueError: The pictures are smaller than the window.
    """
    return _similarity(pictures, references)


@torch.no_grad()
def ms_ssim(pictures: Tensor, references: Tensor) -> Tensor:
    """The structural similarity of each picture at five scales, each half the size of the one before.

    The contrast and structure of every scale and the luminance of the coarsest; means over channels and
    places, a negative one counts as 0.

    Multi-Scale Structural Similarity for Image Quality Assessment. Wang, Simoncelli, Bovik. Asilomar 2003.

    Args:
        pictures: float `(B, C, H, W)` in [0, 1], at least 176 pixels high and wide.
        references: The same.

    Returns:
        float64 `(B,)`.

    Raises:
        ValueError: The pictures are smaller than the window at the coarsest scale.
    """
    smallest = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
    if min(pictures.shape[-2:]) < smallest:
        raise ValueError(
            f"MS-SSIM needs pictures of at least {smallest} x {smallest} pixels, got "
            f"{tuple(pictures.shape[-2:])}"
        )
    a, b = pictures.double(), references.double()
    result = a.new_ones(len(a))
    for scale, weight in enumerate(SCALE_WEIGHTS, start=1):
        similarity = _similarity(a, b, luminance=scale == len(SCALE_WEIGHTS))
        result *= similarity.clamp(min=0) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result


def _similarity(a: Tensor, b: Tensor, luminance: bool = True) -> Tensor:
    """SSIM of each picture, float64 `(B,)`, with its luminance or of contrast and structure alone."""
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(
            f"SSIM needs pictures of at least {WINDOW} x {WINDOW} pixels, got {tuple(a.shape[-2:])}"
        )
    if a.device.type != "cpu":
        return _similarity_map(a.double(), b.double(), luminance).flatten(1).mean(1)
    # A CPU is 2.7 times as fast channel by channel: what lies between stays in its cache.
    planes = zip(a.flatten(0, 1), b.flatten(0, 1), strict=True)
    means = [_similarity_map(x.double(), y.double(), luminance).mean() for x, y in planes]
    return torch.stack(means).view(a.shape[:2]).mean(1)


def _similarity_map(a: Tensor, b: Tensor, luminance: bool) -> Tensor:
    # float64: the variances are small differences of means, which float32 gets wrong on smooth pictures. The
    # sum of squares and the product are all that the formula needs of the second moments: four blurs instead
    # of five.
    mean_a, mean_b = _blur(a), _blur(b)
    product = mean_a * mean_b
    squares = torch.addcmul(mean_a.square_(), mean_b, mean_b)
    variances = _blur(torch.addcmul(a * a, b, b)).sub_(squares)
    covariance = _blur(a * b).sub_(product)
    c1, c2 = 0.01**2, 0.03**2
    similar, largest = covariance.mul_(2).add_(c2), variances.add_(c2)
    if luminance:
        similar, largest = similar.mul_(product.mul_(2).add_(c1)), largest.mul_(squares.add_(c1))
    return similar.div_(largest)


def _blur(x: Tensor) -> Tensor:
    half = WINDOW // 2
    window = [math.exp(-((i - half) ** 2) / (2 * 1.5**2)) for i in range(WINDOW)]
    window = [weight / sum(window) for weight in window]
    # Separable and symmetric: sums of shifted pictures are faster than a convolution on a CPU.
    for dim in (-2, -1):
        size = x.shape[dim] - WINDOW + 1
        blurred = x.narrow(dim, half, size) * window[half]
        pair = torch.empty_like(blurred)
        for i in range(half):
            torch.add(x.narrow(dim, i, size), x.narrow(dim, WINDOW - 1 - i, size), out=pair)
            blurred.add_(pair, alpha=window[i])
        x = blurred
    return x
