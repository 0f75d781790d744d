"""Open-MAGVIT2's convolutional encoder, and its decoder whose normalization is set by the whole token map.

Language Model Beats Diffusion - Tokenizer is Key to Visual Generation. Yu et al. arXiv:2310.05737, as
Open-MAGVIT2 rebuilt it for pictures. Luo et al. arXiv:2409.04410
SimVQ (Zhu et al., arXiv:2411.02038) has the same network without the adaptive normalization.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..configuration import NetworkConfig, number, numbers
from .base import Decoder, Encoder
from .layers import GROUPS, GroupNorm, ResidualBlock, check_widths, residual_stage, silu, silu_of_norm_

EPSILON = 1e-6


class MAGVIT2Config(NetworkConfig):
    """The settings of Open-MAGVIT2's encoder and decoder.

    Args:
        hidden_channels: Channels of the finest level, for a multiplier of 1.
        channel_multipliers: Width of each level as a multiple of `hidden_channels`, the finest first; each
            level but the last halves height and width. Open-MAGVIT2 has `[1, 1, 2, 2, 4]` (f16) and
            `[1, 2, 2, 4]` (f8).
        num_res_blocks: Residual blocks per level, and in the middle. SimVQ has 2.
        adaptive_norm: Whether each level of the decoder begins with a normalization whose scale and shift are
            computed from the quantized vectors. SimVQ has none.

    Example:
        >>> from vistok import LFQConfig, MAGVIT2Config, VQModelHF
        >>> network = MAGVIT2Config(hidden_channels=32, channel_multipliers=[1, 2], num_res_blocks=1)
        >>> VQModelHF(LFQConfig(image_size=64, network=network)).token_shape
        (32, 32)
    """

    model_type = "vistok_magvit2"

    hidden_channels: int = number(128, at_least=1, below=2**16)
    channel_multipliers: list[int] | tuple[int, ...] = numbers((1, 1, 2, 2, 4), at_least=1, below=2**10)
    num_res_blocks: int = number(4, at_least=1, below=1000)
    adaptive_norm: bool = True

    def validate_channels(self):
        """Group normalization must divide the widths."""
        check_widths(self.hidden_channels, self.channel_multipliers)


def _block(before: int, after: int) -> ResidualBlock:
    return ResidualBlock(before, after, bias=False)


class AdaptiveGroupNorm(nn.Module):
    """Group normalization whose scale and shift come from the statistics of another map.

    The scale is a linear map of the channels' standard deviations over all places, the shift one of their
    means.

    Args:
        channels: Channels of the input.
        style_channels: Channels of the other map.
    """

    def __init__(self, channels: int, style_channels: int):
        super().__init__()
        self.gamma = nn.Linear(style_channels, channels)
        self.beta = nn.Linear(style_channels, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Normalizes.

        Args:
            x: float `(B, channels, H, W)`.
            style: float `(B, style_channels, h, w)`, of any size.

        Returns:
            float `(B, channels, H, W)`.
        """
        # A single place has no unbiased variance: the original's is not a number there.
        correction = int(style[0, 0].numel() > 1)
        variance, mean = torch.var_mean(style, dim=(2, 3), correction=correction)
        scale = self.gamma((variance + EPSILON).sqrt())[:, :, None, None]
        shift = self.beta(mean)[:, :, None, None]
        return torch.addcmul(shift, F.group_norm(x, GROUPS, eps=EPSILON), scale)


class _Upsample(nn.Module):
    """Doubles height and width: a convolution makes the channels of four pixels, which then move apart."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # Not F.pixel_shuffle: here the pixel is the slow part of the channel number, so that in channels-last
        # the channels of a pixel move as one piece.
        pixels = self.conv(x).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))  # (B, H, W, 2, 2, channels)
        return pixels.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class MAGVIT2Encoder(Encoder):
    """Pictures to features: a convolution, the levels from fine to coarse, the middle.

    Args:
        hidden_channels: Channels of the finest level, for a multiplier of 1.
        channel_multipliers: Width of each level, the finest first.
        num_res_blocks: Residual blocks per level, and in the middle.
    """

    config_class = MAGVIT2Config

    def __init__(
        self,
        hidden_channels: int = 128,
        channel_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 4,
    ):
        super().__init__()
        widths = [hidden_channels * multiplier for multiplier in channel_multipliers]
        self.channels = widths[-1]
        self.downsample_factor = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(3, hidden_channels, 3, padding=1, bias=False)
        self.levels = nn.ModuleList(
            residual_stage(_block, before, after, num_res_blocks)
            for before, after in zip([hidden_channels, *widths[:-1]], widths, strict=True)
        )
        self.downsamples = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1) for width in widths[:-1]
        )
        self.middle = residual_stage(_block, self.channels, self.channels, num_res_blocks)
        self.norm_out = GroupNorm(self.channels)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See `Encoder`."""
        x = self.conv_in(pixel_values)
        for place, level in enumerate(self.levels):
            x = level(x)
            if place < len(self.downsamples):
                x = self.downsamples[place](x)
        return silu(self.norm_out(self.middle(x)))


class MAGVIT2Decoder(Decoder):
    """Quantized vectors to pictures: a convolution, the middle, the levels from the coarsest, a convolution.

    Args:
        in_channels: Channels of the quantized vectors.
        hidden_channels: Channels of the finest level, for a multiplier of 1.
        channel_multipliers: Width of each level, the finest first.
        num_res_blocks: Residual blocks per level, and in the middle.
        adaptive_norm: Whether each level begins with an adaptive normalization.
    """

    config_class = MAGVIT2Config

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 128,
        channel_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 4,
        adaptive_norm: bool = True,
    ):
        super().__init__()
        self.channels = in_channels
        widths = [hidden_channels * multiplier for multiplier in reversed(channel_multipliers)]
        steps = list(zip([widths[0], *widths[:-1]], widths, strict=True))
        self.downsample_factor = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.middle = residual_stage(_block, widths[0], widths[0], num_res_blocks)
        # In the order of the forward: the coarsest is number 0.
        self.norms = nn.ModuleList(
            AdaptiveGroupNorm(before, in_channels) for before, _ in steps if adaptive_norm
        )
        self.levels = nn.ModuleList(
            residual_stage(_block, before, after, num_res_blocks) for before, after in steps
        )
        self.upsamples = nn.ModuleList(_Upsample(width) for width in widths[:-1])
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
            if self.norms:
                x = self.norms[place](x, features)
            x = level(x)
            if place < len(self.upsamples):
                x = self.upsamples[place](x)
        return self.conv_out(silu_of_norm_(self.norm_out, x))
