"""VQGAN's convolutional encoder and decoder, with attention at the coarse levels.

Taming Transformers for High-Resolution Image Synthesis. Esser, Rombach, Ommer. arXiv:2012.09841
taming-transformers, LlamaGen, OptVQ, IBQ and VAR use it in other sizes. With the default settings (f16) the
encoder has 29,298,176 parameters and the decoder 42,449,795.
"""

from typing import Literal

from torch import Tensor, nn

from ..configuration import NetworkConfig, number, numbers
from .base import Decoder, Encoder
from .layers import (
    Attention,
    Downsample,
    GroupNorm,
    ResidualBlock,
    Upsample,
    check_widths,
    silu,
    silu_of_norm_,
)


class VQGANConfig(NetworkConfig):
    """The settings of VQGAN's encoder and decoder.

    Args:
        hidden_channels: Channels of the finest level, for a multiplier of 1.
        channel_multipliers: Width of each level as a multiple of `hidden_channels`, the finest first; each
            level but the last halves height and width.
        num_res_blocks: Residual blocks per level of the encoder; the decoder has one more.
        attention_levels: The levels, counted from 0 for the finest, whose residual blocks are each followed
            by self-attention. The middle between encoder and quantizer always has it.
        z_channels: Channels of the features.
        projection_kernel_size: Of the convolutions from features to latents and back.
        attention_norm_eps: Of the normalization in the attention; visual-tokenizer-pytorch has 1e-5.

    Example:
        >>> from vistok import FSQConfig, VQGANConfig, VQModelHF
        >>> network = VQGANConfig(hidden_channels=32, channel_multipliers=[1, 2], attention_levels=[1])
        >>> VQModelHF(FSQConfig(image_size=64, network=network)).token_shape
        (32, 32)
    """

    model_type = "vistok_vqgan"

    hidden_channels: int = number(128, at_least=1, below=2**16)
    channel_multipliers: list[int] | tuple[int, ...] = numbers((1, 1, 2, 2, 4), at_least=1, below=2**10)
    num_res_blocks: int = number(2, at_least=1, below=1000)
    attention_levels: list[int] | tuple[int, ...] = numbers((4,), at_least=0, below=2**10, empty=True)
    z_channels: int = number(256, at_least=1, below=2**16)
    projection_kernel_size: Literal[1, 3] = 1
    attention_norm_eps: float | int = number(1e-6, above=0)

    def validate_channels(self):
        """Group normalization and the levels must exist."""
        check_widths(self.hidden_channels, self.channel_multipliers)
        wrong = [level for level in self.attention_levels if level >= len(self.channel_multipliers)]
        if wrong:
            raise ValueError(
                f"attention_levels {self.attention_levels} must be below the number of levels, "
                f"{len(self.channel_multipliers)}"
            )


class _Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention where the level has it."""

    def __init__(self, before: int, after: int, num_res_blocks: int, attention: bool, eps: float):
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(after if i else before, after) for i in range(num_res_blocks)
        )
        self.attentions = nn.ModuleList(Attention(after, eps) for _ in self.blocks if attention)

    def forward(self, x: Tensor) -> Tensor:
        for place, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[place](x)
        return x


def _middle(channels: int, eps: float) -> nn.Sequential:
    return nn.Sequential(
        ResidualBlock(channels, channels), Attention(channels, eps), ResidualBlock(channels, channels)
    )


class VQGANEncoder(Encoder):
    """Pictures to features: a convolution, the levels from fine to coarse, the middle, a convolution.

    Args:
        hidden_channels: Channels of the finest level, for a multiplier of 1.
        channel_multipliers: Width of each level, the finest first.
        num_res_blocks: Residual blocks per level.
        attention_levels: The levels with attention.
        z_channels: Channels of the features.
        projection_kernel_size: Of the convolution to latents, which the model adds.
        attention_norm_eps: Of the normalization in the attention.
    """

    config_class = VQGANConfig

    def __init__(
        self,
        hidden_channels: int = 128,
        channel_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        attention_levels: list[int] | tuple[int, ...] = (4,),
        z_channels: int = 256,
        projection_kernel_size: int = 1,
        attention_norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.channels = z_channels
        self.projection_kernel_size = projection_kernel_size
        widths = [hidden_channels * multiplier for multiplier in channel_multipliers]
        self.downsample_factor = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(3, hidden_channels, 3, padding=1)
        self.levels = nn.ModuleList(
            _Level(before, after, num_res_blocks, level in attention_levels, attention_norm_eps)
            for level, (before, after) in enumerate(zip([hidden_channels, *widths[:-1]], widths, strict=True))
        )
        self.downsamples = nn.ModuleList(Downsample(width) for width in widths[:-1])
        self.middle = _middle(widths[-1], attention_norm_eps)
        self.norm_out = GroupNorm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See `Encoder`."""
        x = self.conv_in(pixel_values)
        for place, level in enumerate(self.levels):
            x = level(x)
            if place < len(self.downsamples):
                x = self.downsamples[place](x)
        return self.conv_out(silu(self.norm_out(self.middle(x))))


class VQGANDecoder(Decoder):
    """Features back to pictures: a convolution, the middle, the levels from coarse to fine, a convolution.

    Args:
        hidden_channels: Channels of the finest level, for a multiplier of 1.
        channel_multipliers: Width of each level, the finest first.
        num_res_blocks: Residual blocks per level of the encoder; here one more.
        attention_levels: The levels with attention.
        z_channels: Channels of the features.
        attention_norm_eps: Of the normalization in the attention.
    """

    config_class = VQGANConfig

    def __init__(
        self,
        hidden_channels: int = 128,
        channel_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        attention_levels: list[int] | tuple[int, ...] = (4,),
        z_channels: int = 256,
        attention_norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.channels = z_channels
        widths = [hidden_channels * multiplier for multiplier in reversed(channel_multipliers)]
        self.downsample_factor = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(z_channels, widths[0], 3, padding=1)
        self.middle = _middle(widths[0], attention_norm_eps)
        self.levels = nn.ModuleList(  # in the order of the forward: the coarsest is number 0
            _Level(
                before,
                after,
                num_res_blocks + 1,
                len(widths) - 1 - place in attention_levels,
                attention_norm_eps,
            )
            for place, (before, after) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True))
        )
        self.upsamples = nn.ModuleList(Upsample(width) for width in widths[:-1])
        self.norm_out = GroupNorm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    @property
    def last_layer(self) -> nn.Parameter:
        """See `Decoder`."""
        return self.conv_out.weight

    def forward(self, features: Tensor) -> Tensor:
        """See `Decoder`."""
        x = self.middle(self.conv_in(features))
        for place, level in enumerate(self.levels):
            x = level(x)
            if place < len(self.upsamples):
                x = self.upsamples[place](x)
        return self.conv_out(silu_of_norm_(self.norm_out, x))
