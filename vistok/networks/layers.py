"""Layers that several convolutional networks share: residual blocks, attention, resampling.

They are the usual ones of the field, computed with less work: activations in place where nothing is
differentiated, one convolution for queries, keys and values, and an upsampling that skips the pixels that
nearest-neighbour copies.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

GROUPS = 32


def check_widths(hidden_channels: int, channel_multipliers: Sequence[int]) -> None:
    """Refuses widths that group normalization cannot share out, for a network's configuration.

    Raises:
        ValueError: `hidden_channels`, or its product with a multiplier, is no multiple of 32.
    """
    if any(hidden_channels * multiplier % GROUPS for multiplier in (1, *channel_multipliers)):
        raise ValueError(
            f"hidden_channels {hidden_channels} and its products with channel_multipliers "
            f"{list(channel_multipliers)} must be multiples of {GROUPS}"
        )


class GroupNorm(nn.GroupNorm):
    """Group normalization as VQGANs have it: 32 groups.

    Args:
        channels: Channels of input and output, a multiple of 32.
        eps: What is added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__(GROUPS, channels, eps=eps)


def silu(x: Tensor) -> Tensor:
    """SiLU, in place where no gradient needs the input: give it a tensor that nobody else reads."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def silu_of_norm_(norm: GroupNorm, x: Tensor) -> Tensor:
    """SiLU of the normalized input, which may be overwritten: give it a tensor that nobody else reads.

    A forward hook that keeps such a tensor must copy it; outputs of `encoder.middle` are never overwritten.

    On a CPU, a new tensor of a large grid costs more than the arithmetic: its pages are mapped one by one.

    Args:
        norm: The normalization.
        x: float `(B, C, H, W)`.
    """
    in_place = x.device.type == "cpu" and x.dtype == torch.float32
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not in_place:
        return silu(norm(x))
    for sample in x.split(1):
        # Mean and variance of each channel, without an output, make those of the groups.
        mean, variance = (
            part.view(norm.num_groups, -1) for part in torch.batch_norm_update_stats(sample, None, None, 0.0)
        )
        of_group = mean.mean(1, keepdim=True)
        variance = (variance + (mean - of_group).square()).mean(1, keepdim=True)
        scale = norm.weight.view(mean.shape) * (variance + norm.eps).rsqrt()
        shift = norm.bias.view(mean.shape) - of_group * scale
        torch.addcmul(shift.view(1, -1, 1, 1), sample, scale.view(1, -1, 1, 1), out=sample)
    return silu(x)


class ResidualBlock(GradientCheckpointingLayer):
    """Norm, SiLU and a 3x3 convolution, twice, beside a skip connection.

    Args:
        before: Channels of the input.
        after: Channels of the output; the skip is a 1x1 convolution where they differ.
        bias: Whether the convolutions have a bias.
    """

    def __init__(self, before: int, after: int, bias: bool = True):
        super().__init__()
        self.norm1 = GroupNorm(before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=bias)
        self.norm2 = GroupNorm(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=bias)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(B, before, H, W)` -> float `(B, after, H, W)`."""
        residual = self.conv2(silu_of_norm_(self.norm2, self.conv1(silu(self.norm1(x)))))
        return residual.add_(self.shortcut(x))


def residual_stage(
    block: Callable[[int, int], nn.Module], before: int, after: int, num_blocks: int
) -> nn.Sequential:
    """Residual blocks of one resolution, of which the first changes the width.

    Args:
        block: Makes a block of the channels of its input and output.
        before: Channels of the input.
        after: Channels of the output.
        num_blocks: How many blocks.
    """
    return nn.Sequential(*(block(after if i else before, after) for i in range(num_blocks)))


class Attention(GradientCheckpointingLayer):
    """Self-attention of one head among all places of a grid, beside a skip connection.

    Args:
        channels: Channels of input and output.
        eps: Of the normalization.
    """

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.norm = GroupNorm(channels, eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(B, channels, H, W)` -> float of the same shape."""
        rows = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # (B, places, 3 * channels)
        q, k, v = (part.unsqueeze(1) for part in rows.chunk(3, dim=2))
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return self.out(attended.transpose(1, 2).reshape(x.shape)).add_(x)


class Downsample(nn.Module):
    """Halves height and width by a strided 3x3 convolution, padded on the right and below only.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(B, channels, H, W)` -> float `(B, channels, H / 2, W / 2)`."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles height and width by nearest-neighbour copies and a 3x3 convolution.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(B, channels, H, W)` -> float `(B, channels, 2 H, 2 W)`."""
        return upsample_conv(x, self.conv.weight, self.conv.bias)


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution, padded by one, of a picture doubled by nearest-neighbour copies.

    Of the nine pixels below a kernel only four differ, which ones depends on whether row and column are even:
    four 2x2 kernels on the small picture give the same with 16 of 36 multiplications.

    Args:
        x: float `(B, I, H, W)`.
        weight: float `(O, I, 3, 3)`.
        bias: float `(O,)` or None.

    Returns:
        float `(B, O, 2 H, 2 W)`.
    """
    if x.device.type != "cpu":  # where four small kernels have not been measured to win
        return F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, padding=1)
    height, width = x.shape[2:]
    x = F.pad(x, (1, 1, 1, 1))
    parts = [
        [
            F.conv2d(x[:, :, i : i + height + 1, j : j + width + 1], kernel, bias)
            for j, kernel in enumerate(_halves(by_row, 3))
        ]
        for i, by_row in enumerate(_halves(weight, 2))
    ]
    if torch.is_grad_enabled():  # the gradient of a copy into a slice is a copy of the whole
        rows = [torch.stack([part.movedim(1, -1) for part in row], dim=3).flatten(2, 3) for row in parts]
        return torch.stack(rows, dim=2).flatten(1, 2).movedim(-1, 1)
    size = (len(x), len(weight), 2 * height, 2 * width)
    doubled = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for i, row in enumerate(parts):
        for j, part in enumerate(row):
            doubled[:, :, i::2, j::2] = part
    return doubled


def _halves(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    # An even pixel sees its left neighbour once and its own copies twice; an odd one the other way round.
    left, middle, right = weight.unbind(dim)
    return torch.stack((left, middle + right), dim), torch.stack((left + middle, right), dim)
