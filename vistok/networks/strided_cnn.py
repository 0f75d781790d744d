"""StridedCNN: the four-convolution network of FSQ-pytorch (github.com/duchenzhuang/FSQ-pytorch).

Three strided 4x4 convolutions with ReLU (f=8) and a 1x1 projection to the latents; the decoder is three
transposed ones on the quantized vectors and a 1x1 convolution to pixels. No normalization, no activation at
the end. At its default width encoder and decoder have 8.4 M parameters each.
"""

import torch
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


class _Convolution(torch.autograd.Function):
    """A strided convolution of many channels in float32, whose weights get their gradient twice as fast.

    Where channels come last oneDNN has no blocked kernel for the gradient of the weights: it runs at 50 to 60
    GFLOP/s where contiguous tensors run at 130. The copies cost a sixth of what that saves; forward and the
    gradient of the input are faster with channels last.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = [2, 2], [1, 1], [1, 1], transposed, [0, 0], 1
        return torch.convolution(x, weight, bias, *ctx.geometry)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        backward, biases = torch.ops.aten.convolution_backward, [gradient.shape[1]]
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x, _, _ = backward(gradient, x, weight, biases, *ctx.geometry, [True, False, False])
        if any(ctx.needs_input_grad[1:3]):
            x, gradient = x.contiguous(), gradient.contiguous()
            mask = [False, *ctx.needs_input_grad[1:3]]
            _, of_weight, of_bias = backward(gradient, x, weight.contiguous(), biases, *ctx.geometry, mask)
        return of_x, of_weight, of_bias, None


def _convolve(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    if (
        x.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and min(conv.in_channels, conv.out_channels) >= 256  # with fewer the copies cost what they save
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    ):
        return _Convolution.apply(x, conv.weight, conv.bias, conv.transposed)
    return conv(x)


class _Down(GradientCheckpointingLayer):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(_convolve(self.conv, x), inplace=True)


class _Up(GradientCheckpointingLayer):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(_convolve(self.conv, x), inplace=True)


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
