"""Names and shapes of published files at their real sizes, layer by layer as the originals' code has it.

For counts and for conversions on the meta device: nothing here is taken from vistok.
"""

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def meta(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors without values."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def count(shapes: Shapes) -> int:
    """Number of parameters."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def _conv(name: str, before: int, after: int, size: int = 3, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (after, before, size, size)}
    return {**weight, f"{name}.bias": (after,)} if bias else weight


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _stage(name: str, before: int, after: int, blocks: int, shortcut_of_features: bool) -> Shapes:
    """Residual blocks: all three projects build theirs without biases."""
    shapes: Shapes = {}
    for number in range(blocks):
        block, width = f"{name}.{number}", after if number else before
        shapes |= _norm(f"{block}.norm1", width) | _conv(f"{block}.conv1", width, after, bias=False)
        shapes |= _norm(f"{block}.norm2", after) | _conv(f"{block}.conv2", after, after, bias=False)
        if width != after:
            taken = after if shortcut_of_features else width
            shapes |= _conv(f"{block}.nin_shortcut", taken, after, 1, bias=False)
    return shapes


def magvit2(
    multipliers: list[int], bits: int, *, hidden: int = 128, blocks: int = 4, adaptive: bool = True
) -> Shapes:
    """Encoder and decoder of `src/Open_MAGVIT2/modules/diffusionmodules/improved_model.py` in SEED-Voken.

    Without `adaptive`, those of the file of the same name in SimVQ.
    """
    widths = [hidden * multiplier for multiplier in multipliers]
    shapes = _conv("encoder.conv_in", 3, hidden, bias=False)
    for level, (before, after) in enumerate(zip([hidden, *widths[:-1]], widths, strict=True)):
        shapes |= _stage(f"encoder.down.{level}.block", before, after, blocks, False)
        if level < len(widths) - 1:
            shapes |= _conv(f"encoder.down.{level}.downsample", after, after)
    shapes |= _stage("encoder.mid_block", widths[-1], widths[-1], blocks, False)
    shapes |= _norm("encoder.norm_out", widths[-1]) | _conv("encoder.conv_out", widths[-1], bits, 1)

    shapes |= _conv("decoder.conv_in", bits, widths[-1])
    shapes |= _stage("decoder.mid_block", widths[-1], widths[-1], blocks, False)
    for level, (before, after) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True)):
        shapes |= _stage(f"decoder.up.{level}.block", before, after, blocks, False)
        if level:
            shapes |= _conv(f"decoder.up.{level}.upsample.conv1", after, 4 * after)
        if adaptive:  # a normalization without parameters and two linear maps of the vectors' statistics
            for part in ("gamma", "beta"):
                name = f"decoder.adaptive.{level}.{part}"
                shapes |= {f"{name}.weight": (before, bits), f"{name}.bias": (before,)}
    return shapes | _norm("decoder.norm_out", widths[0]) | _conv("decoder.conv_out", widths[0], 3)


def maskgit(latent_channels: int, *, multipliers: list[int], hidden: int = 128, blocks: int = 2) -> Shapes:
    """Encoder and decoder of `modeling/modules/maskgit_vqgan.py` in 1d-tokenizer."""
    widths = [hidden * multiplier for multiplier in multipliers]
    shapes = _conv("encoder.conv_in", 3, hidden, bias=False)
    for level, (before, after) in enumerate(zip([hidden, *widths[:-1]], widths, strict=True)):
        shapes |= _stage(f"encoder.down.{level}.block", before, after, blocks, True)
    shapes |= _stage("encoder.mid", widths[-1], widths[-1], blocks, True)
    shapes |= _norm("encoder.norm_out", widths[-1])
    shapes |= _conv("encoder.conv_out", widths[-1], latent_channels, 1)

    shapes |= _conv("decoder.conv_in", latent_channels, widths[-1])
    shapes |= _stage("decoder.mid", widths[-1], widths[-1], blocks, True)
    for level, (before, after) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True)):
        shapes |= _stage(f"decoder.up.{level}.block", before, after, blocks, True)
        if level:
            shapes |= _conv(f"decoder.up.{level}.upsample_conv", after, after)
    return shapes | _norm("decoder.norm_out", widths[0]) | _conv("decoder.conv_out", widths[0], 3)


def maskbit(
    latent_channels: int, *, multipliers: list[int], hidden: int = 128, blocks: int = 2, conv: bool = True
) -> Shapes:
    """Encoder and decoder of `modeling/modules/autoencoder.py` in maskbit: MaskGIT's in other names.

    The lists of blocks are called `res_blocks` and those of the decoder counted from the coarsest; with
    `conv` (the project's `sample_with_conv`) there are strided convolutions in the encoder.
    """
    shapes: Shapes = {}
    coarsest = len(multipliers) - 1
    maskgits = maskgit(latent_channels, multipliers=multipliers, hidden=hidden, blocks=blocks)
    for name, shape in maskgits.items():
        parts = name.replace(".block.", ".res_blocks.").replace(".mid.", ".mid.res_blocks.").split(".")
        if parts[1] == "up":
            parts[2] = str(coarsest - int(parts[2]))
        shapes[".".join(parts)] = shape
    for level, multiplier in enumerate(multipliers[:-1]):
        if conv:
            shapes |= _conv(f"encoder.down.{level}.down_conv", hidden * multiplier, hidden * multiplier)
    return shapes
