"""Every metric against an independent implementation, on 200 real pictures where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

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


def test_ms_ssim_is_that_of_torchmetrics_maps(measured):
    metrics, a, b = measured
    values = []
    for x, y in zip(a.double().div(255).split(20), b.double().div(255).split(20), strict=True):
        value = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            options = {"data_range": 1.0, "reduction": "none"}
            if scale < 4:
                _, part = structural_similarity_index_measure(
                    x, y, return_contrast_sensitivity=True, **options
                )
            else:
                _, maps = structural_similarity_index_measure(x, y, return_full_image=True, **options)
                part = maps[..., 5:-5, 5:-5].flatten(1).mean(1)
            value = value * part**weight
            x, y = (torch.nn.functional.avg_pool2d(z, 2) for z in (x, y))
        values.append(value)
    assert metrics["ms_ssim"] == pytest.approx(torch.cat(values).mean().item(), rel=1e-5)


def test_rfid_is_that_of_scipy(measured):
    metrics, a, b = measured
    network = SmallInception()
    x, y = (network.features(pictures).double().numpy() for pictures in (a, b))
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert metrics["rfid"] == pytest.approx(expected, rel=1e-3)
