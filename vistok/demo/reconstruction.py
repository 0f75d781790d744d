"""What a tokenizer makes of one picture: its tokens, the picture they give back, and how near that comes."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..evaluation import psnr, ssim
from ..image_processing import VistokImageProcessor
from .tokenizers import Tokenizer


@dataclass(frozen=True)
class Reconstruction:
    """A picture, its tokens and what they give back.

    Attributes:
        tokenizer: The name of the tokenizer.
        original: The picture at the size that was computed, without padding.
        picture: What the tokens give back, of the same size.
        tokens: int64 `(*token_shape)`, of the padded picture; None from a tokenizer without tokens.
        numbers: What to show: `psnr` in dB, `ssim`, `tokens`, `bits_per_pixel`, `entries_used` over all
            codebooks, `seconds`; those of tokens only where there are tokens.
        processor: How the picture was shown to the tokenizer.
    """

    tokenizer: str
    original: Image.Image
    picture: Image.Image
    tokens: np.ndarray | None
    numbers: dict[str, float]
    processor: VistokImageProcessor


@torch.inference_mode()
def reconstruct(
    tokenizer: Tokenizer, image: Image.Image, size: int | None = None, square: bool = False
) -> Reconstruction:
    """Turns a picture into tokens and back, and measures it.

    Args:
        tokenizer: Which tokenizer.
        image: RGB.
        size: Shorter side in pixels; by default the usual one of the tokenizer.
        square: Crop the picture to its centre square, whether or not the tokenizer needs it.

    Raises:
        ValueError: The tokenizer takes no such size, or its output is not finite.
    """
    size = tokenizer.usual_size if size is None else size
    began = time.perf_counter()
    processor = tokenizer.processor(image.width, image.height, size, square)
    pixel_values = tokenizer.pixel_values(processor, image)
    out = tokenizer.model.encode(pixel_values)
    pixels = tokenizer.model.decode_quantized(out.quantized)
    seconds = time.perf_counter() - began
    content = processor.crop_size if processor.do_center_crop else processor.size
    height, width = content["height"], content["width"]
    original = to_picture(pixel_values, height, width)
    picture = to_picture(pixels, height, width)
    numbers = quality(original, picture)
    tokens = None if out.tokens is None else out.tokens[0].cpu().numpy()
    if tokens is not None:
        bits = math.log2(tokenizer.model.codebook_size)
        maps = tokens if tokenizer.num_codebooks > 1 else tokens[None]
        numbers |= {
            "tokens": tokens.size,
            "bits_per_pixel": tokens.size * bits / (height * width),
            "entries_used": sum(len(np.unique(one)) for one in maps),
        }
    numbers["seconds"] = seconds
    return Reconstruction(tokenizer.name, original, picture, tokens, numbers, processor)


@torch.inference_mode()
def decode(
    tokenizer: Tokenizer,
    tokens: np.ndarray,
    height: int | None = None,
    width: int | None = None,
    num_codebooks: int | None = None,
) -> Image.Image:
    """The picture of tokens.

    Args:
        tokenizer: Which tokenizer.
        tokens: int64 `(*token_shape)` of one picture.
        height: Of the picture without padding, in pixels; by default all of it.
        width: Of the picture without padding, in pixels.
        num_codebooks: Of several codebooks, decode the first ones only.

    Raises:
        ValueError: The tokens have the wrong type, rank or range.
    """
    batch = torch.as_tensor(tokens, device=tokenizer.model.device).unsqueeze(0)
    return to_picture(tokenizer.model.decode(batch, num_codebooks), height, width)


def quality(original: Image.Image, picture: Image.Image) -> dict[str, float]:
    """PSNR in dB (infinite where two pictures are equal) and SSIM of two pictures of one size."""
    a, b = (_unit_interval(image) for image in (picture, original))
    measures = {"psnr": float(psnr(a, b))}
    if min(original.size) >= 11:  # the window of SSIM
        measures["ssim"] = float(ssim(a, b))
    return measures


def to_picture(
    pixel_values: torch.Tensor, height: int | None = None, width: int | None = None
) -> Image.Image:
    """Pixel values `(1, 3, H, W)` without their padding, as a picture."""
    return VistokImageProcessor().postprocess(pixel_values[:, :, :height, :width])[0]


def _unit_interval(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0) / 255
