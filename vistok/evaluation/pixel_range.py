"""From the pixel values of a model to the levels of a file: clamped and rounded, in the right range."""

import math

import torch
from torch import Tensor

_CLEARLY_BETTER = 3.0  # dB


def to_levels(pixel_values: Tensor) -> Tensor:
    """Clamps and rounds to the nearest of 256 levels; cutting off instead would darken by half a level.

    Args:
        pixel_values: float `(B, 3, H, W)`, about [-1, 1].

    Returns:
        uint8 `(B, 3, H, W)`.
    """
    return pixel_values.float().clamp(-1, 1).add(1).mul_(127.5).round_().to(torch.uint8)


def check_range(reconstruction: Tensor, references: Tensor) -> None:
    """Refuses reconstructions that show their pictures, but in another range than [-1, 1].

    Args:
        reconstruction: float `(B, 3, H, W)`.
        references: uint8 `(B, 3, H, W)`, the originals.

    Raises:
        ValueError: They fit the pictures much better when they are read as [0, 1] or [0, 255].
    """
    original = references.float() / 127.5 - 1
    correlation = torch.corrcoef(torch.stack([reconstruction.float().flatten(), original.flatten()]))[0, 1]
    if not correlation >= 0.8:  # NaN where all is of one colour
        return  # they do not show their pictures in any range: an untrained model may do anything

    def fit(values: Tensor) -> float:
        return -10 * math.log10(max((values.clamp(-1, 1) - original).square().mean().item() / 4, 1e-12))

    plain = fit(reconstruction.float())
    for name, scale in (("[0, 1]", 0.5), ("[0, 255]", 127.5)):
        other = fit(reconstruction.float() / scale - 1)
        if other > plain + _CLEARLY_BETTER:
            raise ValueError(
                f"Expected reconstructions in [-1, 1], got values from {reconstruction.min():.3g} to "
                f"{reconstruction.max():.3g}: read as {name} they have a PSNR of {other:.1f} dB, as they are "
                f"{plain:.1f} dB; scale the decoder's output, or set image_mean and image_std"
            )
