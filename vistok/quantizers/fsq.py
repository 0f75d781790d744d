"""FSQ: each channel is bounded and rounded to a few levels; the codebook is their product.

Finite Scalar Quantization: VQ-VAE Made Simple. Mentzer, Minnen, Agustsson, Tschannen. arXiv:2309.15505
"""

import math
from typing import Literal

from huggingface_hub.dataclasses import validated_field

from ..configuration import VisualTokenizerConfig
from .scalar import Channel, ScalarQuantizer, check_levels


class FSQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with finite scalar quantization.

    Args:
        levels: Number of levels of each channel. The paper's choices: [8, 6, 5] for 2^8 entries, [8, 5, 5, 5]
            for 2^10, [7, 5, 5, 5, 5] for 2^12, [8, 8, 8, 6, 5] for 2^14 and [8, 8, 8, 5, 5, 5] for 2^16.
        bound: How latents are bounded before they are rounded. `"atanh"` centres the even levels exactly;
            `"tan"` is the paper's pseudo-code, which FSQ-pytorch and its checkpoints use. They differ in
            about 1 % of the tokens.

    Example:
        >>> from vistok import FSQConfig
        >>> FSQConfig(levels=[8, 5, 5, 5], image_size=64).levels
        [8, 5, 5, 5]
    """

    model_type = "vistok_fsq"

    levels: list[int] | tuple[int, ...] = validated_field(check_levels, default=(8, 5, 5, 5))
    bound: Literal["atanh", "tan"] = "atanh"


class FSQ(ScalarQuantizer):
    """Finite scalar quantization.

    A latent `z` of a channel with `L` levels becomes `round(half * tanh(z + shift) - offset) / (L // 2)`,
    which lies in [-1, 1]; even levels have one more step below zero than above. The first channel is the
    least significant digit of the token. Gradients pass the rounding unchanged and the `tanh` as they should.
    No parameters, no losses.

    Args:
        levels: Number of levels of each channel.
        bound: `"atanh"` or `"tan"`; see `FSQConfig`.

    Raises:
        ValueError: A level is below 2, or there are more than 2^62 entries.

    Example:
        >>> import torch
        >>> from vistok.quantizers import FSQ
        >>> out = FSQ(levels=[3, 5, 4])(torch.tensor([[0.25, 0.6, -7.0]]))
        >>> out.quantized.tolist(), out.tokens.tolist()
        ([[0.0, 0.5, -1.0]], [10])
    """

    config_class = FSQConfig
    steepness = 2.0  # tanh(u) = 2 sigmoid(2u) - 1, and a sigmoid is ten times faster on a CPU

    def __init__(self, levels: list[int] | tuple[int, ...] = (8, 5, 5, 5), bound: str = "atanh"):
        FSQConfig.check(levels=levels, bound=bound)
        self.bound = bound
        super().__init__(levels)

    def channel(self, level: int) -> Channel:
        """See `ScalarQuantizer`."""
        # The slack keeps the outermost levels within reach of the tanh ("atanh"), or is the paper's ("tan").
        slack, inverse = (1 + 1e-3, math.atanh) if self.bound == "atanh" else (1 - 1e-3, math.tan)
        half, half_width = (level - 1) * slack / 2, level // 2
        offset, centre = (0.5, -0.5 / half_width) if level % 2 == 0 else (0.0, 0.0)
        return Channel(
            shift=2 * inverse(offset / half),
            span=2 * half,
            lowest=half + offset,
            unit=half_width,
            zero=half_width,
            level=level,
            centre=centre,
        )
