"""Pixels to tokens by one numeric recipe: a fixed batch shape, exact float32 or bfloat16, nothing by chance.

The last bits of a picture's latents may depend on the shape of its batch, which kernels are chosen by. So
every batch has the same shape: the last one of a shard is filled up.
"""

import contextlib
import copy
import platform
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import PIL
import torch

from .. import __version__
from ..data import to_pixel_values
from ..modeling import VQModelHF
from .layout import flatten_tokens, narrowest

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PROBED = 1000  # pictures on which bfloat16 is compared with float32


class TokenEncoder:
    """Encodes batches of one fixed size.

    Args:
        model: The tokenizer in float32; put into eval mode.
        batch_size: Pictures in a batch.
        dtype: `"fp32"`, or `"bf16"` for the network; quantizers always compute in float32.
        token_order: Of several codebooks.

    Raises:
        ValueError: The model is not in float32, or an argument has no such value.

    Example:
        >>> from vistok import FSQConfig, SimpleCNNConfig, VQModelHF
        >>> model = VQModelHF(FSQConfig(image_size=16, network=SimpleCNNConfig(hidden_channels=4)))
        >>> tokens = TokenEncoder(model, batch_size=2)(np.zeros((2, 16, 16, 3), np.uint8))
        >>> tokens.shape, tokens.dtype
        ((2, 16), dtype('uint16'))
    """

    def __init__(
        self, model: VQModelHF, batch_size: int = 64, dtype: str = "fp32", token_order: str = "place_major"
    ):
        if model.dtype != torch.float32:
            raise ValueError(f"The model is in {model.dtype}: load it with dtype=torch.float32")
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.model = model if dtype == "fp32" else copy.deepcopy(model).to(DTYPES[dtype])
        self.model.eval()
        self.batch_size, self.dtype, self.token_order = batch_size, dtype, token_order
        self.token_dtype = narrowest(model.codebook_size)

    @property
    def device(self) -> str:
        """The name of the device."""
        device = self.model.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    def grid(self, height: int, width: int) -> tuple[int, ...]:
        """The token grid of pictures of a size."""
        return self.model.encoder.grid(height, width)

    def recipe(self) -> dict[str, Any]:
        """All that decides about the last bits of the latents, as plain values for a plan."""
        return {
            "dtype": str(DTYPES[self.dtype]).removeprefix("torch."),
            "batch_size": self.batch_size,
            "tf32": False,
            "device": self.model.device.type,
            "machine": platform.machine(),
            "torch": str(torch.__version__),
            "pillow": PIL.__version__,
            "vistok": __version__,
        }

    def buffer(self, height: int, width: int) -> np.ndarray:
        """Room for a batch, uint8 `(batch_size, height, width, 3)`, pinned for a GPU to read."""
        shape = (self.batch_size, height, width, 3)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self.model.device.type == "cuda").numpy()

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Encodes a batch.

        Args:
            pixels: uint8 `(batch_size, H, W, 3)`.

        Returns:
            unsigned `(batch_size, L)`.

        Raises:
            ValueError: A latent is not finite, or the size does not fit the network.
        """
        pixel_values = to_pixel_values(torch.from_numpy(pixels).to(self.model.device, non_blocking=True))
        tokens = self.model.quantizer.encode(self.model.encode_latents(pixel_values))
        flat = flatten_tokens(tokens, self.model.config.num_codebooks, self.token_order).cpu().numpy()
        if flat.min() < 0 or flat.max() >= self.model.codebook_size:  # a narrow integer would wrap silently
            raise ValueError(
                f"Expected tokens in [0, {self.model.codebook_size}), the tokenizer gave {flat.min()} to "
                f"{flat.max()}: is it broken?"
            )
        return flat.astype(self.token_dtype)


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Float32 means float32, and kernels are not chosen by a race, within a block."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def share_differing(encoder: TokenEncoder, exact: TokenEncoder, pixels: Iterator[np.ndarray]) -> float:
    """The share of tokens that two recipes disagree about.

    Args:
        encoder: One recipe.
        exact: The other.
        pixels: uint8 `(H, W, 3)` each, all of one size; the first `PROBED` are taken.
    """
    differing = count = 0
    pixels = islice(pixels, PROBED)
    while batch := list(islice(pixels, encoder.batch_size)):
        padded = np.stack(batch + [np.zeros_like(batch[0])] * (encoder.batch_size - len(batch)))
        a, b = encoder(padded)[: len(batch)], exact(padded)[: len(batch)]
        differing += int((a != b).sum())
        count += a.size
    if not count:
        raise ValueError("There is no readable picture to compare the dtypes on")
    return differing / count
