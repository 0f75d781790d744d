"""The layout of MaskGIT-VQGAN as open-muse ported it, and as MaskBit has it in other names."""

import re
from collections.abc import Mapping

from torch import Tensor

from ..networks import MaskGITConfig
from .residual_layout import level_sizes, stage_rules


def maskgit_config(weights: Mapping[str, Tensor]) -> MaskGITConfig:
    """The network that weights of this layout are of, read off their names and shapes.

    Raises:
        ValueError: They are not of this layout.
    """
    maskbits = any(name.startswith("encoder.down.0.res_blocks.") for name in weights)
    return MaskGITConfig(
        **level_sizes(weights, block="res_blocks" if maskbits else "block"),
        downsampling="conv" if "encoder.down.0.down_conv.weight" in weights else "pool",
    )


def encoder_rules(levels: int) -> dict[str, str]:
    """The rules of `rename` for the encoder, with the convolution to the latents.

    Args:
        levels: Number of resolutions.
    """
    rules = {
        r"encoder\.conv_in\.weight": "encoder.conv_in.weight",
        r"encoder\.norm_out\.(weight|bias)": r"encoder.norm_out.\1",
        r"encoder\.conv_out\.(weight|bias)": r"to_latents.\1",
        r"encoder\.down\.(\d+)\.down_conv\.(weight|bias)": r"encoder.downsamples.\1.conv.\2",
        **stage_rules(r"encoder\.mid(?:\.res_blocks)?", "encoder.middle"),
    }
    for level in range(levels):
        rules |= stage_rules(rf"encoder\.down\.{level}\.(?:block|res_blocks)", f"encoder.levels.{level}")
    return rules


def decoder_rules(
    weights: Mapping[str, Tensor], levels: int, theirs: str = "decoder", ours: str = "decoder"
) -> dict[str, str]:
    """The rules of `rename` for the decoder.

    MaskGIT counts its levels from the finest, MaskBit from the coarsest, as vistok does; the finest is the
    one without an upsampling.

    Args:
        weights: Under the source's names, which tell the order of the levels.
        levels: Number of resolutions.
        theirs: The source's name of the decoder.
        ours: The new name of the decoder.
    """
    coarse_first = f"{theirs}.up.0.upsample_conv.weight" in weights
    start = re.escape(theirs)
    rules = {
        rf"{start}\.(conv_in|norm_out|conv_out)\.(weight|bias)": rf"{ours}.\1.\2",
        **stage_rules(rf"{start}\.mid(?:\.res_blocks)?", f"{ours}.middle"),
    }
    for level in range(levels):
        place = level if coarse_first else levels - 1 - level
        rules |= stage_rules(rf"{start}\.up\.{level}\.(?:block|res_blocks)", f"{ours}.levels.{place}")
        rules[rf"{start}\.up\.{level}\.upsample_conv\.(weight|bias)"] = rf"{ours}.upsamples.{place}.conv.\1"
    return rules
