"""What layouts share whose levels are lists of residual blocks: those of VQGAN, MaskGIT, Open-MAGVIT2."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .base import MOST_LEVELS, need, numbered


def level_sizes(
    weights: Mapping[str, Tensor], levels: str = "encoder.down", block: str = "block"
) -> dict[str, Any]:
    """The settings of a network's levels, read off the encoder's names and shapes.

    Args:
        weights: Under the source's names.
        levels: What the layout calls the list of the encoder's levels.
        block: What it calls the list of a level's residual blocks.

    Returns:
        `hidden_channels`, `channel_multipliers` and `num_res_blocks`.

    Raises:
        ValueError: The weights are not of such a layout.
    """
    hidden_channels = need(weights, "encoder.conv_in.weight", 4)[0]
    blocks = numbered(weights, rf"{re.escape(levels)}\.0\.{block}\.(\d+)\.")
    if not blocks:
        raise ValueError(f"It has no weights {levels}.0.{block}.*: is it of another family?")
    widths = [
        need(weights, f"{levels}.{level}.{block}.{blocks - 1}.conv2.weight", 4)[0]
        for level in range(numbered(weights, rf"{re.escape(levels)}\.(\d+)\.", most=MOST_LEVELS))
    ]
    return {
        "hidden_channels": hidden_channels,
        "channel_multipliers": [multiple(width, hidden_channels) for width in widths],
        "num_res_blocks": blocks,
    }


def multiple(width: int, hidden_channels: int) -> int:
    """How many times as wide as the finest level a level is."""
    if width % hidden_channels:
        raise ValueError(f"A level of {width} channels is no multiple of the {hidden_channels} of the first")
    return width // hidden_channels


def attention_levels(weights: Mapping[str, Tensor], levels: str = "encoder.down") -> list[int]:
    """The levels of the encoder that have attention.

    Args:
        weights: Under the source's names.
        levels: What the layout calls the list of the encoder's levels.
    """
    pattern = re.compile(rf"{re.escape(levels)}\.(\d+)\.attn\.")
    return sorted({int(match[1]) for name in weights if (match := pattern.match(name))})


def stage_rules(theirs: str, ours: str) -> dict[str, str]:
    """The rules of `rename` for the residual blocks of one resolution.

    Args:
        theirs: Pattern of the source's name of the list of blocks.
        ours: The new name of that list.
    """
    return {
        rf"{theirs}\.(\d+)\.(norm1|conv1|norm2|conv2)\.(weight|bias)": rf"{ours}.\1.\2.\3",
        rf"{theirs}\.(\d+)\.nin_shortcut\.weight": rf"{ours}.\1.shortcut.weight",
    }
