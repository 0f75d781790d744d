"""StridedCNN: the four-convolution network of FSQ-pytorch (github.com/duchenzhuang/FSQ-pytorch).

Three strided 4x4 convolutions with ReLU (f=8) and a 1x1 projection to the latents; the decoder is three
transposed ones on the quantized vectors and a 1x1 convolution to pixels. No normalization, no activation at
the end. At its default width encoder and decoder have 8.4 M parameters each.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration import NetworkConfig, number
from .base import Decoder, Encoder


class StridedCNNConfig(NetworkConfig):
    """The settings of StridedCNN.

    Args:
        hidden_channels: Channels of every layer.
        num_downsamples: Halvings of height and width.

    Example:
        >>> from vistok import FSQConfig, StridedCNNConfig, VQModelHF
        >>> VQModelHF(FSQConfig(image_size=128, network=StridedCNNConfig(hidden_channels=16))).token_shape
        (16, 16)
    """

    model_type = "vistok_strided_cnn"

    hidden_channels: int = number(512, at_least=1, below=2**16)
    num_downsamples: int = number(3, at_least=1, below=16)


class _Down(GradientCheckpointingLayer):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x), inplace=True)


class _Up(GradientCheckpointingLayer):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x), inplace=True)


class StridedCNNEncoder(Encoder):
    """Pictures to features at an eighth of the resolution (with three downsamples).

    Args:
        hidden_channels: Channels of every layer.
        num_downsamples: Halvings of height and width.
    """

    config_class = StridedCNNConfig

    def __init__(self, hidden_channels: int = 512, num_downsamples: int = 3):
        super().__init__()
        self.channels = hidden_channels
        self.downsample_factor = 2**num_downsamples
        self.downs = nn.ModuleList(
            _Down(hidden_channels if i else 3, hidden_channels) for i in range(num_downsamples)
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See `Encoder`."""
        x = pixel_values
        for down in self.downs:
            x = down(x)
        return x


class StridedCNNDecoder(Decoder):
    """Quantized vectors back to pictures.

    Args:
        in_channels: Channels of the quantized vectors, which it takes without a projection.
        hidden_channels: Channels of every layer.
        num_downsamples: Doublings of height and width.
    """

    config_class = StridedCNNConfig

    def __init__(self, in_channels: int, hidden_channels: int = 512, num_downsamples: int = 3):
        super().__init__()
        self.channels = in_channels
        self.downsample_factor = 2**num_downsamples
        self.ups = nn.ModuleList(
            _Up(hidden_channels if i else in_channels, hidden_channels) for i in range(num_downsamples)
        )
        self.to_pixels = nn.Conv2d(hidden_channels, 3, 1)

    @property
    def last_layer(self) -> nn.Parameter:
        """See `Decoder`."""
        return self.to_pixels.weight

    def forward(self, features: Tensor) -> Tensor:
        """See `Decoder`."""
        x = features
        for up in self.ups:
            x = up(x)
        return self.to_pixels(x)
