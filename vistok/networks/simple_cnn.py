"""SimpleCNN: the small residual convolutional network of visual-tokenizer-pytorch (github.com/xyfJASON).

Two strided convolutions (f=4), a 3x3 one and residual blocks; the decoder mirrors them. At its default width
encoder and decoder have 2.43 M parameters each.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration import NetworkConfig, number
from .base import Decoder, Encoder


class SimpleCNNConfig(NetworkConfig):
    """The settings of SimpleCNN.

    Args:
        hidden_channels: Channels after the first convolution; twice as many at the resolution of the grid.
        num_res_blocks: Residual blocks at the resolution of the grid, in encoder and decoder each.
        num_downsamples: Halvings of height and width; the channels double with each but the first.

    Example:
        >>> from vistok import FSQConfig, SimpleCNNConfig, VQModelHF
        >>> VQModelHF(FSQConfig(image_size=64, network=SimpleCNNConfig(hidden_channels=16))).token_shape
        (16, 16)
    """

    model_type = "vistok_simple_cnn"

    hidden_channels: int = number(128, at_least=1, below=2**16)
    num_res_blocks: int = number(2, at_least=0, below=1000)
    num_downsamples: int = number(2, at_least=1, below=16)


class _ResidualBlock(GradientCheckpointingLayer):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # The skip carries relu(x), not x: the original's first activation works in place, and its weights
        # expect it.
        x = F.relu(x)
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


class SimpleCNNEncoder(Encoder):
    """Pictures to features at a quarter of the resolution (with two downsamples).

    Args:
        hidden_channels: Channels after the first convolution.
        num_res_blocks: Number of residual blocks.
        num_downsamples: Halvings of height and width.
    """

    config_class = SimpleCNNConfig

    def __init__(self, hidden_channels: int = 128, num_res_blocks: int = 2, num_downsamples: int = 2):
        super().__init__()
        widths = _widths(hidden_channels, num_downsamples)
        self.channels = widths[-1]
        self.downsample_factor = 2**num_downsamples
        self.downs = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1)
            for before, after in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.conv = nn.Conv2d(self.channels, self.channels, 3, padding=1)
        self.blocks = nn.ModuleList(_ResidualBlock(self.channels) for _ in range(num_res_blocks))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See `Encoder`."""
        x = pixel_values
        for down in self.downs:
            x = F.leaky_relu(down(x), inplace=True)
        x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        return x


class SimpleCNNDecoder(Decoder):
    """Features back to pictures; the last layer is a tanh, so pixel values stay in (-1, 1).

    Args:
        hidden_channels: Channels before the last convolution.
        num_res_blocks: Number of residual blocks.
        num_downsamples: Doublings of height and width.
    """

    config_class = SimpleCNNConfig

    def __init__(self, hidden_channels: int = 128, num_res_blocks: int = 2, num_downsamples: int = 2):
        super().__init__()
        widths = _widths(hidden_channels, num_downsamples)
        self.channels = widths[-1]
        self.downsample_factor = 2**num_downsamples
        self.blocks = nn.ModuleList(_ResidualBlock(self.channels) for _ in range(num_res_blocks))
        self.conv = nn.Conv2d(self.channels, self.channels, 3, padding=1)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            for before, after in zip(reversed(widths), reversed([3, *widths[:-1]]), strict=True)
        )

    @property
    def last_layer(self) -> nn.Parameter:
        """See `Decoder`."""
        return self.ups[-1].weight

    def forward(self, features: Tensor) -> Tensor:
        """See `Decoder`."""
        x = features
        for block in self.blocks:
            x = block(x)
        x = self.conv(F.leaky_relu(x))
        for up in self.ups:
            x = up(F.leaky_relu(x, inplace=True))
        return torch.tanh(x)


def _widths(hidden_channels: int, num_downsamples: int) -> list[int]:
    return [hidden_channels * 2**i for i in range(num_downsamples)]
