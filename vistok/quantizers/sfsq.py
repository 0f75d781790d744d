"""SFSQ: FSQ with a plain sigmoid, whose levels lie evenly in [0, 1].

The simplified form of Finite Scalar Quantization (arXiv:2309.15505) in Doraemonzzz/vector-quantize: no
offsets for even levels, no slack, and two levels need no care.
"""

from huggingface_hub.dataclasses import validated_field

from ..configuration import VisualTokenizerConfig
from .scalar import Channel, ScalarQuantizer, check_levels


class SFSQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with simplified finite scalar quantization.

    Args:
        levels: Number of levels of each channel.

    Example:
        >>> from vistok import SFSQConfig
        >>> SFSQConfig(levels=[8, 5, 5, 5]).levels
        [8, 5, 5, 5]
    """

    model_type = "vistok_sfsq"

    levels: list[int] | tuple[int, ...] = validated_field(check_levels, default=(8, 5, 5, 5))


class SFSQ(ScalarQuantizer):
    """Simplified finite scalar quantization.

    A latent `z` of a channel with `L` levels becomes `round((L - 1) * sigmoid(z)) / (L - 1)`, which lies in
    [0, 1]. The first channel is the least significant digit of the token. Gradients pass the rounding
    unchanged and the sigmoid as they should. No parameters, no losses.

    Args:
        levels: Number of levels of each channel.

    Raises:
        ValueError: A level is below 2, or there are more than 2^62 entries.

    Example:
        >>> import torch
        >>> from vistok.quantizers import SFSQ
        >>> SFSQ(levels=[8, 5, 5, 5])(torch.tensor([[-0.7, 0.3, 1.1, -2.0]])).tokens.tolist()
        [138]
    """

    config_class = SFSQConfig
    steepness = 1.0

    def __init__(self, levels: list[int] | tuple[int, ...] = (8, 5, 5, 5)):
        SFSQConfig.check(levels=levels)
        super().__init__(levels)

    def channel(self, level: int) -> Channel:
        """See `ScalarQuantizer`."""
        return Channel(shift=0.0, span=level - 1, lowest=0.0, unit=level - 1, zero=0, level=level, centre=0.5)
