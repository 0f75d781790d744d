"""LPIPS: how different two pictures look, by the features of a classifier.

The Unreasonable Effectiveness of Deep Features as a Perceptual Metric. Zhang, Isola, Efros, Shechtman, Wang.
CVPR 2018, arXiv:1801.03924; its linear heads of version 0.1, which torchmetrics ships.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lpips_weights import Conv, read_heads, read_trunk, trunk_named


class LPIPS(nn.Module):
    """The perceptual distance of each picture to its reference; 0 where they are equal.

    Nothing of it learns, drops out or changes in training. It computes in float32, under autocast too, and
    keeps its precision where a parent goes to another. Its state is no part of a parent's `state_dict()` or
    `parameters()`, but follows it to another device. On a GPU that allows TF32 in convolutions (PyTorch's
    default) they use it, as the original does.

    Args:
        network: The trunk: `"vgg"` (VGG16, usual as a loss) or `"alex"` (AlexNet, usual as a metric).
        trunk_weights: Its ImageNet weights, as torchvision names them, in any float dtype: a local
            safetensors file or torchvision's `.pth`, or a Hub id `"org/name"` or `"org/name/file"`. By
            default `timm/vgg16.tv_in1k` for `"vgg"`; `"alex"` has no default.

    Attributes:
        network: As given.
        smallest: The least height and width of pictures, in pixels.
        trunk_sha256: The SHA-256 of the file of the trunk's weights.
        heads_sha256: That of the linear heads.

    Raises:
        ValueError: There is no such network, its weights are not there or do not fit, or torchmetrics is not
            installed.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import save_file
        >>> from vistok.evaluation.lpips_weights import trunk_shapes
        >>> file = tempfile.NamedTemporaryFile(suffix=".safetensors")
        >>> shapes = trunk_shapes("alex")  # random weights, to try it; real ones are on the Hub
        >>> save_file({name: torch.randn(shape) / 30 for name, shape in shapes.items()}, file.name)
        >>> lpips = LPIPS("alex", trunk_weights=file.name)
        >>> pictures = torch.rand(2, 3, 64, 64) * 2 - 1
        >>> lpips(pictures, pictures)
        tensor([0., 0.])
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Literal["vgg", "alex"] = "vgg", trunk_weights: str | None = None):
        super().__init__()
        trunk = trunk_named(network)
        self.network = network
        self.smallest = trunk.smallest
        heads, self.heads_sha256 = read_heads(network)  # first: they are here, and quick to find missing
        weights, self.trunk_sha256 = read_trunk(network, trunk_weights)
        self.stages = nn.ModuleList()
        for number, convs in enumerate(trunk.stages):
            stage = nn.Sequential()
            if number in trunk.pooled:
                stage.append(nn.MaxPool2d(trunk.pool, stride=2))
            for conv in convs:
                name = f"features.{conv.number}"
                stage.append(_FrozenConv(conv, weights[f"{name}.weight"], weights[f"{name}.bias"]))
                stage.append(nn.ReLU(inplace=True))
            self.stages.append(stage)
            self.register_buffer(f"head_{number}", heads[number], persistent=False)
        # Mean and deviation of ImageNet's pictures in [-1, 1], as the original rounds them.
        for name, values in (("shift", [-0.030, -0.088, -0.188]), ("scale", [0.458, 0.448, 0.450])):
            constant = torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, pictures: Tensor, references: Tensor) -> Tensor:
        """The distances.

        Args:
            pictures: float `(B, 3, H, W)` in [-1, 1]; gradients reach them.
            references: The same; gradients reach them unless they are detached.

        Returns:
            float32 `(B,)`, at least 0.

        Raises:
            ValueError: The two differ in shape, are no pictures of floats, or are too small.
        """
        self._check(pictures, references)
        with torch.autocast(pictures.device.type, enabled=False):
            return sum(
                # The heads' means over the places; a head is linear, so that the mean may come first.
                (_normalized(a) - _normalized(b)).square().mean((2, 3)) @ self.get_buffer(f"head_{number}")
                for number, (a, b) in enumerate(
                    zip(self._features(pictures), self._features(references), strict=True)
                )
            )

    def _features(self, pictures: Tensor) -> list[Tensor]:
        x = (pictures.float() - self.shift) / self.scale
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def _check(self, pictures: Tensor, references: Tensor) -> None:
        shapes = tuple(pictures.shape), tuple(references.shape)
        if shapes[0] != shapes[1] or pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ValueError(
                f"LPIPS takes pictures and references of one shape (B, 3, H, W), got {shapes[0]} and "
                f"{shapes[1]}"
            )
        for given in (pictures, references):
            if not given.is_floating_point():
                raise ValueError(f"LPIPS takes pictures of floats in [-1, 1], got {given.dtype}")
        if min(shapes[0][2:]) < self.smallest:
            raise ValueError(
                f"LPIPS by {self.network!r} needs pictures of at least {self.smallest} x {self.smallest} "
                f"pixels, got {shapes[0][2]} x {shapes[0][3]}"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True):
        def move(tensor: Tensor) -> Tensor:  # a parent's .to(torch.bfloat16) would give other distances
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, recurse)


class _FrozenConv(nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Conv, weight: Tensor, bias: Tensor):
        super().__init__()
        self.stride, self.padding = conv.stride, conv.padding
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


def _normalized(features: Tensor) -> Tensor:
    """Features of length 1 at each place; those of zeros stay zeros."""
    # Not by the square root of a sum: its gradient is NaN at zeros, that of vector_norm is 0. The ReLU before
    # would hide it, but torch's anomaly detection, by which people look for a run's first NaN, stops there.
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)
