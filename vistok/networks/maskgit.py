"""MaskGIT-VQGAN's convolutional encoder and decoder: VQGAN's without attention, and with another skip.

MaskGIT: Masked Generative Image Transformer. Chang, Zhang, Jiang, Liu, Freeman. arXiv:2202.04200
MaskBit's VQGAN+ halves by strided convolutions instead of averages. Weber et al. arXiv:2409.16211
With the default settings (f16), 256 latent channels and a codebook of 1024 entries it has 54.5 M parameters.
"""

from typing import Literal

from torch import Tensor, nn

from ..configuration import NetworkConfig, number, numbers
from .base import Decoder, Encoder
from .layers import (
    Downsample,
    GroupNorm,
    ResidualBlock,
    Upsample,
    check_widths,
    residual_stage,
    silu,
    silu_of_norm_,
)


class MaskGITConfig(NetworkConfig):
    """The settings of MaskGIT-VQGAN's encoder and decoder.

    Args:
        hidden_channels: Channels of the finest level, for a multiplier of 1.
        channel_multipliers: Width of each level as a multiple of `hidden_channels`, the finest first; each
            level but the last halves height and width.
        num_res_blocks: Residual blocks per level, and in the middle.
        downsampling: How the encoder halves: `"pool"`, the average of 2x2 pixels, or `"conv"`, a strided 3x3
            convolution.

    Example:
        >>> from vistok import LFQConfig, MaskGITConfig, VQModelHF
        >>> network = MaskGITConfig(hidden_channels=32, channel_multipliers=[1, 2], downsampling="conv")
        >>> VQModelHF(LFQConfig(image_size=64, network=network)).token_shape
        (32, 32)
    """

    model_type = "vistok_maskgit"

    hidden_channels: int = number(128, at_least=1, below=2**16)
    channel_multipliers: list[int] | tuple[int, ...] = numbers((1, 1, 2, 2, 4), at_least=1, below=2**10)
    num_res_blocks: int = number(2, at_least=1, below=1000)
    downsampling: Literal["pool", "conv"] = "pool"

    def validate_channels(self):
        """Group normalization must divide the widths."""
        check_widths(self.hidden_channels, self.channel_multipliers)


class _Block(ResidualBlock):
    """A residual block that loses its input where the width changes."""

    def __init__(self, before: int, after: int):
        super().__init__(before, after, bias=False)
        if before != after:
            self.shortcut = nn.Conv2d(after, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv2(silu_of_norm_(self.norm2, self.conv1(silu(self.norm1(x)))))
        if isinstance(self.shortcut, nn.Identity):
            return features.add_(x)
        # Not of x: the original's shortcut takes the transformed features, and its weights expect it.
        return self.shortcut(features).add_(features)


class MaskGITEncoder(Encoder):
    """Pictures to features: a convolution, the levels from fine to coarse, the middle.

    Args:
        hidden_channels: Channels of the finest level, for a multiplier of 1.
        channel_multipliers: Width of each level, the finest first.
        num_res_blocks: Residual blocks per level, and in the middle.
        downsampling: `"pool"` or `"conv"`.
    """

    config_class = MaskGITConfig

    def __init__(
        self,
        hidden_channels: int = 128,
        channel_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        downsampling: Literal["pool", "conv"] = "pool",
    ):
        super().__init__()
        widths = [hidden_channels * multiplier for multiplier in channel_multipliers]
        self.channels = widths[-1]
        self.downsample_factor = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(3, hidden_channels, 3, padding=1, bias=False)
        self.levels = nn.ModuleList(
            residual_stage(_Block, before, after, num_res_blocks)
            for before, after in zip([hidden_channels, *widths[:-1]], widths, strict=True)
        )
        self.downsamples = nn.ModuleList(
            Downsample(width) if downsampling == "conv" else nn.AvgPool2d(2) for width in widths[:-1]
        )
        self.middle = residual_stage(_Block, self.channels, self.channels, num_res_blocks)
        self.norm_out = GroupNorm(self.channels)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See `Encoder`."""
        x = self.conv_in(pixel_values)
        for place, level in enumerate(self.levels):
            x = level(x)
            if place < len(self.downsamples):
                x = self.downsamples[place](x)
        return silu(self.norm_out(self.middle(x)))


class MaskGITDecoder(Decoder):
    """Quantized vectors to pictures: a convolution, the middle, the levels from the coarsest, a convolution.

    Args:
        in_channels: Channels of the quantized vectors.
        hidden_channels: Channels of the finest level, for a multiplier of 1.
        channel_multipliers: Width of each level, the finest first.
        num_res_blocks: Residual blocks per level, and in the middle.
    """

    config_class = MaskGITConfig

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 128,
        channel_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
    ):
        super().__init__()
        self.channels = in_channels
        widths = [hidden_channels * multiplier for multiplier in reversed(channel_multipliers)]
        self.downsample_factor = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.middle = residual_stage(_Block, widths[0], widths[0], num_res_blocks)
        self.levels = nn.ModuleList(  # in the order of the forward: the coarsest is number 0
            residual_stage(_Block, before, after, num_res_blocks)
            for before, after in zip([widths[0], *widths[:-1]], widths, strict=True)
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
