"""What every method asks of the tensors it is given."""

import math

import torch
from torch import Tensor


def checked_mask(mask: Tensor, latents: Tensor) -> Tensor:
    """A mask of valid places, or a `ValueError` where it does not fit the latents."""
    places = (latents.shape[0], *latents.shape[2:])
    if tuple(mask.shape) != places or mask.dtype != torch.bool:
        raise ValueError(
            f"Expected a bool mask of shape {places} for latents {tuple(latents.shape)}, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    return mask


def at_least_float32(latents: Tensor) -> Tensor:
    """Half-precision latents as float32."""
    return latents.to(torch.promote_types(latents.dtype, torch.float32))


def check_finite(latents: Tensor) -> None:
    """Raises `ValueError` with the first position that is not finite."""
    if torch.compiler.is_compiling():
        return
    latents = latents.detach()
    # One reduction instead of a mask: only a sum that is not finite asks for the exact check.
    if math.isfinite(latents.sum(dtype=torch.promote_types(latents.dtype, torch.float32))):
        return
    wrong = (~latents.isfinite()).nonzero()
    if len(wrong):
        position = wrong[0].tolist()
        raise ValueError(
            f"Expected finite latents, got {float(latents[tuple(position)])} at position {position}; "
            "did the pictures or the encoder produce non-finite values?"
        )
