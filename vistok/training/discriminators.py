"""Networks that tell pictures from reconstructions, for the adversarial loss.

PatchGAN. Image-to-Image Translation with Conditional Adversarial Networks. Isola et al. arXiv:1611.07004
In the size that VQGAN gave it: Taming Transformers for High-Resolution Image Synthesis. arXiv:2012.09841
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ..networks.layers import GROUPS, GroupNorm


class PatchDiscriminator(nn.Module):
    """A few strided convolutions that judge every patch of a picture by a logit of its own.

    4x4 convolutions: `num_layers` that halve height and width, one more of stride 1, and one to the logits.
    The channels double from each to the next, up to eight times the first. With three layers a logit sees
    70x70 pixels. All but the first and the last are normalized, always by what the batch or the picture
    holds: there are no running averages, so that a forward pass changes no state and training and evaluation
    mode are one.

    Args:
        channels: Channels of the first layer.
        num_layers: How many layers halve height and width.
        normalization: `"batch"`, as published: logits depend on the other pictures of the batch, and several
            processes equal one only through `nn.SyncBatchNorm.convert_sync_batchnorm`, which needs GPUs. Or
            `"group"`, 32 groups: logits depend on the picture alone.

    Attributes:
        minimum_size: Height and width of the smallest pictures, in pixels; they give one logit.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.training.discriminators import PatchDiscriminator
        >>> discriminator = PatchDiscriminator()
        >>> discriminator(torch.zeros(2, 3, 64, 96)).shape, discriminator.minimum_size
        (torch.Size([2, 1, 6, 10]), 24)
    """

    def __init__(
        self, channels: int = 64, num_layers: int = 3, normalization: Literal["batch", "group"] = "batch"
    ):
        super().__init__()
        if normalization not in ("batch", "group"):
            raise ValueError(f"normalization must be 'batch' or 'group', got {normalization!r}")
        if channels < 1 or num_layers < 1:
            raise ValueError(
                f"channels and num_layers must be at least 1, got channels {channels} and "
                f"num_layers {num_layers}"
            )
        if normalization == "group" and 2 * channels % GROUPS:  # the narrowest layer with a normalization
            raise ValueError(f"channels must be a multiple of {GROUPS // 2} with groups, got {channels}")
        norm = GroupNorm if normalization == "group" else partial(nn.BatchNorm2d, track_running_stats=False)
        widths = [channels * min(2**depth, 8) for depth in range(num_layers + 1)]
        layers = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for depth in range(1, num_layers + 1):
            before, after, stride = widths[depth - 1], widths[depth], 2 if depth < num_layers else 1
            layers += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False),
                norm(after),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.num_layers = num_layers
        self.minimum_size = 3 * 2**num_layers  # halved to 3; the last two layers take one pixel each
        self.to(memory_format=torch.channels_last)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights: N(0, 0.02) for convolutions, N(1, 0.02) for normalizations."""
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()  # the biases, where there are any, stay as PyTorch draws them
                nn.init.normal_(layer.weight, 0, 0.02)
            elif not isinstance(layer, nn.LeakyReLU):
                nn.init.normal_(layer.weight, 1, 0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """One logit a patch: high where it looks like one of a picture, low where like a reconstruction.

        Args:
            pixel_values: float `(B, 3, H, W)` in [-1, 1], H and W at least `minimum_size`.

        Returns:
            float `(B, 1, H / 2**num_layers - 2, W / 2**num_layers - 2)`, the quotients rounded down.

        Raises:
            ValueError: The pictures are too small.
        """
        height, width = pixel_values.shape[-2:]
        if min(height, width) < self.minimum_size:
            raise ValueError(self._too_small(height, width))
        return self.layers(pixel_values)

    def _too_small(self, height: int, width: int) -> str:
        fitting = (min(height, width) // 3).bit_length() - 1  # the most layers for which this is large enough
        fewer = f"set num_layers to {fitting}, or " if fitting > 0 else ""
        return (
            f"Pictures of {height}x{width} pixels are too small for a PatchDiscriminator of num_layers "
            f"{self.num_layers}, which needs {self.minimum_size}x{self.minimum_size}: {fewer}train on larger "
            "pictures"
        )
