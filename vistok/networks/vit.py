"""ViT-VQGAN's kind of network: patches of a picture through a transformer, and back.

Vector-quantized Image Modeling with Improved VQGAN. Yu et al. arXiv:2110.04627
Positions are computed for whatever grid a picture has, so one model takes every size and aspect. The linear
attention, whose cost grows with the number of patches and not with its square, and the gated linear units are
those of vector-quantize (github.com/Doraemonzzz).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration import NetworkConfig, number
from .base import Decoder, Encoder
from .layers import silu

_WAVELENGTHS = 10_000.0  # the longest over the shortest, as in Attention Is All You Need, arXiv:1706.03762
_EPS = 1e-6


class ViTConfig(NetworkConfig):
    """The settings of a vision transformer as encoder and decoder.

    The usual sizes, encoder and decoder each:

    | size | hidden_size | intermediate_size | num_layers | num_heads | parameters |
    |---|---|---|---|---|---|
    | tiny | 192 | 512 | 12 | 3 | 5.3 M |
    | small (default) | 384 | 1024 | 12 | 6 | 21 M |
    | base | 768 | 2048 | 12 | 12 | 85 M |

    Args:
        patch_size: Height and width of a patch in pixels: what one place of the grid stands for.
        hidden_size: Channels of a patch inside the transformer, a multiple of 4 `num_heads`.
        intermediate_size: Channels inside the gated linear unit of a layer.
        num_layers: Layers of the encoder, and of the decoder.
        num_heads: Heads of attention.
        attention: `"softmax"`, or `"linear"`, whose cost is linear in the number of patches.
        positions: How a patch knows its row and column: queries and keys are turned by them (`"rotary"`,
            arXiv:2104.09864), or sines and cosines are added (`"sincos"`).

    Example:
        >>> import torch
        >>> from vistok import FSQConfig, ViTConfig, VQModelHF
        >>> network = ViTConfig(hidden_size=192, intermediate_size=512, num_heads=3)  # tiny
        >>> model = VQModelHF(FSQConfig(image_size=64, network=network)).eval()
        >>> tuple(model.encode(torch.zeros(1, 3, 64, 96)).tokens.shape)
        (1, 8, 12)
    """

    model_type = "vistok_vit"

    patch_size: int = number(8, at_least=1, below=2**10)
    hidden_size: int = number(384, at_least=4, below=2**16)
    intermediate_size: int = number(1024, at_least=1, below=2**18)
    num_layers: int = number(12, at_least=1, below=1000)
    num_heads: int = number(6, at_least=1, below=2**10)
    attention: Literal["softmax", "linear"] = "softmax"
    positions: Literal["rotary", "sincos"] = "rotary"

    def validate_heads(self):
        """Each head turns pairs of channels by the row, and as many by the column."""
        if self.hidden_size % (4 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 4 times num_heads {self.num_heads}"
            )


def angles(height: int, width: int, num_angles: int, device: torch.device) -> Tensor:
    """The angles that stand for the places of a grid, half of them for the row and half for the column.

    Args:
        height: Rows of the grid.
        width: Columns of the grid.
        num_angles: Angles of a place, an even number.
        device: Where to compute them.

    Returns:
        float32 `(height * width, num_angles)` in radians, row by row.
    """
    exponents = torch.arange(num_angles // 2, device=device, dtype=torch.float32) / (num_angles // 2)
    frequencies = _WAVELENGTHS**-exponents
    rows, columns = (torch.arange(n, device=device)[:, None] * frequencies for n in (height, width))
    both = rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)
    return torch.cat(both, dim=2).flatten(0, 1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair of channels, `i` of the first half and `i` of the second, by its angle.

    Args:
        x: float `(B, n, ..., D)`.
        cos: float `(n, D / 2)`, broadcast over the dimensions between.
        sin: float `(n, D / 2)`.

    Returns:
        float of the shape and dtype of `x`.
    """
    between = (x.shape[1], *[1] * (x.ndim - 3), -1)
    cos, sin = cos.to(x.dtype).view(between), sin.to(x.dtype).view(between)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The mean over all places of the values, each times the product of query and key: `q k^T v / n`.

    `k^T v` comes first: n times D x D, not n x n times D.

    Args:
        q: float `(B, heads, n, D)`.
        k: float `(B, heads, n, D)`.
        v: float `(B, heads, n, D)`.

    Returns:
        float `(B, heads, n, D)`.
    """
    return q @ (k.transpose(-2, -1) @ (v / v.shape[-2]))  # divided first: half precision does not overflow


class _Attention(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int, linear: bool):
        super().__init__()
        self.num_heads, self.linear = num_heads, linear
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        if linear:
            head_dim = hidden_size // num_heads
            self.gate = nn.Sequential(nn.Linear(hidden_size, head_dim), nn.Linear(head_dim, hidden_size))
            self.norm = nn.LayerNorm(hidden_size, eps=_EPS)
        self.out = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1))
        qk, v = qkv[:, :, :2], qkv[:, :, 2].transpose(1, 2)
        if self.linear:
            qk = silu(qk)
        if cos is not None:
            qk = rotate(qk, cos, sin)
        q, k = qk.transpose(1, 3).unbind(2)  # each (B, heads, n, D)
        attend = linear_attention if self.linear else F.scaled_dot_product_attention
        attended = attend(q, k, v).transpose(1, 2).flatten(2)
        if self.linear:
            attended = self.norm(attended * self.gate(x).sigmoid())
        return self.out(attended)


class _Layer(GradientCheckpointingLayer):
    """Attention and a gated linear unit, each normalized before and beside a skip."""

    def __init__(self, hidden_size: int, intermediate_size: int, num_heads: int, linear: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_size, eps=_EPS)
        self.attention = _Attention(hidden_size, num_heads, linear)
        self.norm2 = nn.LayerNorm(hidden_size, eps=_EPS)
        self.up = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        gate, value = self.up(self.norm2(x)).chunk(2, dim=2)
        return x + self.down(silu(gate) * value)


class _Transformer(nn.Module):
    """Layers over the places of a grid, and a last normalization."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        num_layers: int,
        num_heads: int,
        attention: str,
        positions: str,
    ):
        super().__init__()
        self.rotary = positions == "rotary"
        self.num_angles = hidden_size // (2 * num_heads if self.rotary else 2)
        self.layers = nn.ModuleList(
            _Layer(hidden_size, intermediate_size, num_heads, attention == "linear")
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_size, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(B, C, h, w)` -> float `(B, h * w, C)`."""
        places = angles(*x.shape[2:], self.num_angles, x.device)
        cos, sin = places.cos(), places.sin()
        x = x.flatten(2).transpose(1, 2)
        if not self.rotary:
            x = x + torch.cat((sin, cos), dim=1).to(x.dtype)
            cos = sin = None
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class ViTEncoder(Encoder):
    """Pictures to features: a linear map of each patch, and a transformer.

    Args:
        patch_size: Height and width of a patch in pixels.
        hidden_size: Channels inside the transformer, and of the features.
        intermediate_size: Channels inside a gated linear unit.
        num_layers: Number of layers.
        num_heads: Heads of attention.
        attention: `"softmax"` or `"linear"`.
        positions: `"rotary"` or `"sincos"`.
    """

    config_class = ViTConfig

    def __init__(
        self,
        patch_size: int = 8,
        hidden_size: int = 384,
        intermediate_size: int = 1024,
        num_layers: int = 12,
        num_heads: int = 6,
        attention: Literal["softmax", "linear"] = "softmax",
        positions: Literal["rotary", "sincos"] = "rotary",
    ):
        super().__init__()
        self.channels = hidden_size
        self.downsample_factor = patch_size
        self.patch_embed = nn.Conv2d(3, hidden_size, patch_size, stride=patch_size)
        self.transformer = _Transformer(
            hidden_size, intermediate_size, num_layers, num_heads, attention, positions
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See `Encoder`."""
        patches = self.patch_embed(pixel_values)
        return self.transformer(patches).transpose(1, 2).unflatten(2, patches.shape[2:])


class ViTDecoder(Decoder):
    """Features back to pictures: a transformer, and a linear map of each place to the pixels of its patch.

    Args:
        patch_size: Height and width of a patch in pixels.
        hidden_size: Channels of the features, and inside the transformer.
        intermediate_size: Channels inside a gated linear unit.
        num_layers: Number of layers.
        num_heads: Heads of attention.
        attention: `"softmax"` or `"linear"`.
        positions: `"rotary"` or `"sincos"`.
    """

    config_class = ViTConfig

    def __init__(
        self,
        patch_size: int = 8,
        hidden_size: int = 384,
        intermediate_size: int = 1024,
        num_layers: int = 12,
        num_heads: int = 6,
        attention: Literal["softmax", "linear"] = "softmax",
        positions: Literal["rotary", "sincos"] = "rotary",
    ):
        super().__init__()
        self.channels = hidden_size
        self.downsample_factor = patch_size
        self.transformer = _Transformer(
            hidden_size, intermediate_size, num_layers, num_heads, attention, positions
        )
        self.to_pixels = nn.Linear(hidden_size, 3 * patch_size**2)

    @property
    def last_layer(self) -> nn.Parameter:
        """See `Decoder`."""
        return self.to_pixels.weight

    def forward(self, features: Tensor) -> Tensor:
        """See `Decoder`."""
        pixels = self.to_pixels(self.transformer(features)).transpose(1, 2)  # (B, 3 p p, h w)
        return F.pixel_shuffle(pixels.unflatten(2, features.shape[2:]), self.downsample_factor)
