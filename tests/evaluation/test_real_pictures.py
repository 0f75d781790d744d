"""Every metric against an independent implementation, on 200 real pictures where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vistok.data import PictureTransform, open_dataset, ordered_batches
from vistok.evaluation import Measures
from vistok.evaluation.measurement import Measurement

from .small_inception import SmallInception

PICTURES = Path(__file__).parents[2].parent / "shared" / "data" / "imagenet-sample"
COUNT, SIZE = 200, 192
NAMES = ("l1", "mse", "psnr", "ssim", "ms_ssim", "rfid")

pytestmark = pytest.mark.skipif(
    not PICTURES.is_dir(), reason="the sample of ImageNet is in ../shared/data, which a fresh machine lacks"
)


@pytest.fixture(scope="module")
def measured():
    """Our metrics of real pictures and of those reduced to a quarter and enlarged; and both, uint8."""
    source = open_dataset(str(PICTURES), split="validation")
    measurement = Measurement(Measures(NAMES, inception=SmallInception()))
    originals, degraded = [], []
    for batch in ordered_batches(source, PictureTransform(SIZE), batch_size=40, limit=COUNT):
        pixels = batch["pixels"].permute(0, 3, 1, 2)
        small = torch.nn.functional.avg_pool2d(pixels.float(), 4)
        large = torch.nn.functional.interpolate(small, scale_factor=4.0, mode="bilinear")
        measurement.update(batch["row"], large / 127.5 - 1, pixels)
        originals.append(pixels)
        degraded.append(large.round().to(torch.uint8))
    return measurement.finish(expected=COUNT)["metrics"], torch.cat(degraded), torch.cat(originals)


def test_l1_and_mse_are_those_of_numpy(measured):
    metrics, a, b = measured
    difference = (a.double() - b.double()).numpy() / 255
    assert metrics["l1"] == pytest.approx(np.abs(difference).mean(), rel=1e-5)
    assert metrics["mse"] == pytest.approx((difference**2).mean(), rel=1e-5)


def test_psnr_and_ssim_are_those_of_scikit_image(measured):
    metrics, a, b = measured
    pairs = [
        (x.movedim(0, -1).numpy() / 255, y.movedim(0, -1).numpy() / 255) for x, y in zip(a, b, strict=True)
    ]
    expected = np.mean([peak_signal_noise_ratio(y, x, data_range=1.0) for x, y in pairs])
    assert metrics["psnr"] == pytest.approx(expected, rel=1e-5)
    settings = {"channel_axis": -1, "data_range": 1.0, "gaussian_weights": True, "sigma": 1.5}
    settings["use_sample_covariance"] = False
    expected = np.mean([structural_similarity(x, y, **settings) for x, y in pairs])
    assert metrics["ssim"] == pytest.approx(expected, rel=1e-5)


def blurred(plane: np.ndarray) -> np.ndarray:
    return scipy.ndimage.gaussian_filter(plane, sigma=1.5, radius=5)[5:-5, 5:-5]


def test_ms_ssim_is_that_of_scipys_filter(measured):
    metrics, a, b = measured
    x, y = a.double().div(255), b.double().div(255)
    result = np.ones(COUNT)
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        means = np.zeros((COUNT, 3))
        for i, c in np.ndindex(COUNT, 3):
            p, q = x[i, c].numpy(), y[i, c].numpy()
            mean_p, mean_q = blurred(p), blurred(q)
            variances = blurred(p * p) - mean_p**2 + blurred(q * q) - mean_q**2
            covariance = blurred(p * q) - mean_p * mean_q
            part = (2 * covariance + 0.03**2) / (variances + 0.03**2)
            if scale == 4:
                part *= (2 * mean_p * mean_q + 0.01**2) / (mean_p**2 + mean_q**2 + 0.01**2)
            means[i, c] = part.mean()
        result *= means.mean(1) ** weight
        x, y = (z.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5)) for z in (x, y))
    assert metrics["ms_ssim"] == pytest.approx(result.mean(), rel=1e-5)


def test_rfid_is_that_of_scipy(measured):
    metrics, a, b = measured
    network = SmallInception()
    x, y = (network.features(pictures).double().numpy() for pictures in (a, b))
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert metrics["rfid"] == pytest.approx(expected, rel=1e-3)
