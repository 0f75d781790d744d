"""Whether the metrics of this machine say what they must of pictures whose answer is known."""

import math

import torch
from torch import Tensor

from .distribution import frechet_distance
from .measures import Measures
from .pixel_range import to_levels

_SIDE = 176  # pixels: the smallest that every metric takes
_LPIPS_SIDE = 64  # pixels: its networks would take a second for larger ones
_SHIFTS = (1, 10, 40)  # levels by which every pixel is brighter
_OF_EQUAL = {  # what each metric says of equal pictures, and how far from it rounding may take it
    "l1": (0.0, 0.0),
    "mse": (0.0, 0.0),
    "psnr": (math.inf, 0.0),
    "ssim": (1.0, 1e-9),
    "ms_ssim": (1.0, 1e-9),
    "lpips_vgg": (0.0, 1e-6),
    "lpips_alex": (0.0, 1e-6),
}


class SelfTestError(ValueError):
    """A metric is wrong on this machine; its numbers would be too."""


def self_test(measures: Measures) -> None:
    """Measures pictures that are equal, shifted by known levels, and halfway between levels.

    Args:
        measures: The metrics that will be used.

    Raises:
        SelfTestError: A metric or the rounding is wrong.

    Example:
        >>> self_test(Measures())
    """
    device = next((network.get_buffer("shift").device for network in measures.lpips.values()), "cpu")
    pictures = _pictures().to(device)
    plain = Measures(tuple(name for name in measures.of_each_picture if name not in measures.lpips))
    small = pictures[..., :_LPIPS_SIDE, :_LPIPS_SIDE]
    perceptual = Measures(tuple(measures.lpips), measures.lpips)
    found = plain.of_pictures(pictures, pictures) | perceptual.of_pictures(small, small)
    for name, values in found.items():
        expected, tolerance = _OF_EQUAL[name]
        _check(f"{name} of equal pictures", values, expected, tolerance)
    for shift in _SHIFTS if "psnr" in measures.names else ():
        found = Measures(("psnr",)).of_pictures(pictures + shift, pictures)["psnr"]
        _check(f"psnr of pictures {shift} levels brighter", found, 20 * math.log10(255 / shift), 1e-5)
    _check_rounding(pictures)
    if "rfid" in measures.names:
        _check_frechet()


def _check_rounding(pictures: Tensor) -> None:
    parts = torch.linspace(-0.45, 0.45, _SIDE, device=pictures.device)  # of a level
    rounded = to_levels((pictures + parts) / 127.5 - 1)
    error = (rounded.double() - pictures).mean().item()
    if not torch.equal(rounded, pictures):
        raise SelfTestError(
            f"Self-test: values up to 0.45 levels beside a level must become that level, but they are "
            f"{error:+.2f} levels off on average: are they cut off instead of rounded?"
        )


def _check_frechet() -> None:
    features = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)).double()
    for shift, tolerance in ((0.0, 1e-3), (1.0, 1e-3)):
        metric = frechet_distance(16)
        metric.update(features, real=True)
        metric.update(features + shift, real=False)
        _check(f"rfid of features shifted by {shift:g}", metric.compute().view(1), 16 * shift**2, tolerance)


def _check(what: str, values: Tensor, expected: float, tolerance: float) -> None:
    wrong = [x for x in values.tolist() if not (x == expected or abs(x - expected) <= tolerance)]
    if wrong:
        raise SelfTestError(
            f"Self-test: {what} must be {expected:.6g}, got {wrong[0]:.6g}; check torch and its device"
        )


def _pictures() -> Tensor:
    """uint8 `(2, 3, 176, 176)` with levels from 40 to 200: smooth waves, and the same with noise."""
    x = torch.arange(_SIDE).float()
    waves = torch.stack([(x / (7 + 4 * c)).sin().outer((x / (11 + 3 * c)).cos()) for c in range(3)])
    noise = torch.randn(3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    return (
        torch.stack([waves, 0.5 * waves + 0.2 * noise])
        .mul(60)
        .add(120)
        .clamp(40, 200)
        .round()
        .to(torch.uint8)
    )
