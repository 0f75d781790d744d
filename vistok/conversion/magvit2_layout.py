"""The layout of Open-MAGVIT2's network, which SimVQ inherited, in a checkpoint of Lightning."""

from collections.abc import Mapping

from torch import Tensor

from ..networks import MAGVIT2Config
from .base import Source, setting
from .residual_layout import level_sizes, stage_rules

# Without a choice of the averages they are not needed either.
DROPPED = (r"loss\..*", r"model_ema\..*")


def magvit2_config(weights: Mapping[str, Tensor]) -> MAGVIT2Config:
    """The network that weights of this layout are of, read off their names and shapes.

    Raises:
        ValueError: They are not of this layout.
    """
    adaptive_norm = any(name.startswith("decoder.adaptive.") for name in weights)
    return MAGVIT2Config(**level_sizes(weights), adaptive_norm=adaptive_norm)


def trained_size(source: Source, network: MAGVIT2Config) -> int:
    """Height and width of the pictures it was trained on; every published one has 16 x 16 tokens."""
    default = 16 * 2 ** (len(network.channel_multipliers) - 1)
    # The network's own setting "resolution" is 128 in the files of those trained on 256 too.
    return setting(source.settings, "size", "resolution", default=default)


def magvit2_rules(levels: int) -> dict[str, str]:
    """The rules of `rename` from this layout to vistok's, with the convolution to the latents.

    Args:
        levels: Number of resolutions. The layout counts the decoder's from the finest, vistok from the
            coarsest.
    """
    rules = {
        r"encoder\.conv_in\.weight": "encoder.conv_in.weight",
        r"decoder\.conv_in\.(weight|bias)": r"decoder.conv_in.\1",
        r"(encoder|decoder)\.norm_out\.(weight|bias)": r"\1.norm_out.\2",
        r"encoder\.conv_out\.(weight|bias)": r"to_latents.\1",
        r"decoder\.conv_out\.(weight|bias)": r"decoder.conv_out.\1",
        r"encoder\.down\.(\d+)\.downsample\.(weight|bias)": r"encoder.downsamples.\1.\2",
    }
    for side in ("encoder", "decoder"):
        rules |= stage_rules(rf"{side}\.mid_block", f"{side}.middle")
    for level in range(levels):
        coarse = levels - 1 - level
        rules |= stage_rules(rf"encoder\.down\.{level}\.block", f"encoder.levels.{level}")
        rules |= stage_rules(rf"decoder\.up\.{level}\.block", f"decoder.levels.{coarse}")
        rules[rf"decoder\.up\.{level}\.upsample\.conv1\.(weight|bias)"] = (
            rf"decoder.upsamples.{coarse}.conv.\1"
        )
        rules[rf"decoder\.adaptive\.{level}\.(gamma|beta)\.(weight|bias)"] = rf"decoder.norms.{coarse}.\1.\2"
    return rules
