"""FSQ: each channel is bounded and rounded to a few levels; the codebook is their product.

Finite Scalar Quantization: VQ-VAE Made Simple. Mentzer, Minnen, Agustsson, Tschannen. arXiv:2309.15505
"""

import math
from typing import Literal, NamedTuple

import torch
from huggingface_hub.dataclasses import validated_field
from torch import Tensor
from transformers import initialization as init

from ..configuration import VisualTokenizerConfig
from .base import Quantizer, QuantizerOutput


def _check_levels(levels: list[int] | tuple[int, ...]) -> None:
    for level in levels:
        if not 2 <= level <= 2**24:  # float32 tells no more apart
            raise ValueError(f"expected levels that are integers from 2 to 2**24, got {list(levels)}")
    if not levels or math.prod(levels) > 2**62:
        raise ValueError(f"expected one or more levels whose product is at most 2**62, got {list(levels)}")


class FSQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with finite scalar quantization.

    Args:
        levels: Number of levels of each channel. The paper's choices: [8, 6, 5] for 2^8 entries, [8, 5, 5, 5]
            for 2^10, [7, 5, 5, 5, 5] for 2^12, [8, 8, 8, 6, 5] for 2^14 and [8, 8, 8, 5, 5, 5] for 2^16.
        bound: How latents are bounded before they are rounded. `"atanh"` centres the even levels exactly;
            `"tan"` is the paper's pseudo-code, which FSQ-pytorch and its checkpoints use. They differ in
            about 1 % of the tokens.

    Example:
        >>> from vistok import FSQConfig
        >>> FSQConfig(levels=[8, 5, 5, 5], image_size=64).levels
        [8, 5, 5, 5]
    """

    model_type = "vistok_fsq"

    levels: list[int] | tuple[int, ...] = validated_field(_check_levels, default=(8, 5, 5, 5))
    bound: Literal["atanh", "tan"] = "atanh"


class FSQ(Quantizer):
    """Finite scalar quantization.

    A latent `z` of a channel with `L` levels becomes `round(half * tanh(z + shift) - offset) / (L // 2)`,
    which lies in [-1, 1]; even levels have one more step below zero than above. The first channel is the
    least significant digit of the token. Gradients pass the rounding unchanged and the `tanh` as they should.
    No parameters, no losses.

    Args:
        levels: Number of levels of each channel.
        bound: `"atanh"` or `"tan"`; see `FSQConfig`.

    Raises:
        ValueError: A level is below 2, or there are more than 2^62 entries.

    Example:
        >>> import torch
        >>> from vistok.quantizers import FSQ
        >>> out = FSQ(levels=[3, 5, 4])(torch.tensor([[0.25, 0.6, -7.0]]))
        >>> out.quantized.tolist(), out.tokens.tolist()
        ([[0.0, 0.5, -1.0]], [10])
    """

    config_class = FSQConfig

    def __init__(self, levels: list[int] | tuple[int, ...] = (8, 5, 5, 5), bound: str = "atanh"):
        super().__init__()
        FSQConfig.check(levels=levels, bound=bound)
        self.levels = tuple(levels)
        self.bound = bound
        self.codebook_size = math.prod(levels)
        self.codebook_dim = self.latent_dim = self.quantized_dim = len(levels)
        self.register_buffer("constants", torch.empty(7, len(levels), dtype=torch.float32), persistent=False)
        self.register_buffer("places", torch.empty(len(levels) + 1, dtype=torch.int64), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Rebuilds the constants of the bound and the places of the digits from the levels."""
        # The slack keeps the outermost levels within reach of the tanh ("atanh"), or is the paper's ("tan").
        slack, inverse = (1 + 1e-3, math.atanh) if self.bound == "atanh" else (1 - 1e-3, math.tan)
        rows = []  # one channel each, in the order of _Constants
        for level in self.levels:
            half, half_width = (level - 1) * slack / 2, level // 2
            offset, centre = (0.5, -0.5 / half_width) if level % 2 == 0 else (0.0, 0.0)
            double_shift, span, lowest = 2 * inverse(offset / half), 2 * half, half + offset
            rows.append((double_shift, span, lowest, half_width, 2 * span / half_width, level, centre))
        init.copy_(self.constants, torch.tensor(rows, dtype=torch.float64).t().to(self.constants))
        init.copy_(self.places, torch.tensor([*_places(self.levels), self.codebook_size]).to(self.places))

    def quantize(self, latents: Tensor) -> QuantizerOutput:
        """See `Quantizer`."""
        c = self._constants(latents)
        with torch.no_grad():
            steps = _steps(latents, c)
            tokens = _tokens(steps, self.levels)
            quantized = steps.div_(c.half_width)
        return QuantizerOutput(_ThroughBound.apply(latents, quantized, c.double_shift, c.slope), tokens)

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        return _tokens(_steps(latents, self._constants(latents)), self.levels)

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        tokens = tokens.unsqueeze(1)
        c, places = self._constants(tokens), _per_channel(self.places, tokens)
        # Division is faster in float32; half a token off every boundary, its rounding changes no whole part.
        if self.codebook_size <= 2**20:
            above, level = (tokens.float().add_(0.5) / places).floor_(), c.level
        else:
            above, level = torch.div(tokens, places, rounding_mode="floor"), c.level.long()
        digits = torch.addcmul(above[:, :-1], level, above[:, 1:], value=-1)
        return (digits - c.half_width).div_(c.half_width)

    def index(self, quantized: Tensor) -> Tensor:
        """The tokens of quantized vectors: the nearest level of each channel. See `Quantizer.index`."""
        self._check_latents(quantized)
        steps = quantized.detach() * self._constants(quantized).half_width
        return _tokens(steps.round_(), self.levels)

    def bounded(self, latents: Tensor) -> Tensor:
        """The bounded latents before rounding, in the scale of the vectors: what residual stages divide.

        Args:
            latents: float `(B, latent_dim, *grid)`.
        """
        c = self._constants(latents)
        return (c.span * torch.sigmoid(2 * latents + c.double_shift) - c.lowest) / c.half_width

    def unbounded(self, values: Tensor) -> Tensor:
        """The latents of bounded values: the inverse of `bounded`, clamped to its open range.

        Args:
            values: float `(B, latent_dim, *grid)`.
        """
        c = self._constants(values)
        share = ((values * c.half_width + c.lowest) / c.span).clamp(1e-6, 1 - 1e-6)
        return (torch.logit(share) - c.double_shift) / 2

    def zoom_in(self, values: Tensor, depth: int) -> Tensor:
        """Spreads one cell of stage `depth - 1` over the cells of all levels. See `Quantizer.zoom_in`."""
        c = self._constants(values)
        return values * c.level**depth + c.centre

    def most_stages(self) -> int:
        """Each stage makes cells as many times smaller as there are levels. See `Quantizer.most_stages`."""
        return int(22 / math.log2(max(self.levels)))  # of float32's 24 bits, two for the arithmetic

    def zoom_out(self, quantized: Tensor, depth: int) -> Tensor:
        """See `Quantizer.zoom_out`."""
        c = self._constants(quantized)
        return (quantized - c.centre) / c.level**depth

    def _constants(self, like: Tensor) -> "_Constants":
        return _Constants(*self.constants.view(7, 1, -1, *[1] * (like.ndim - 2)).unbind())


class _Constants(NamedTuple):
    """What the arithmetic needs of each channel, `(1, D, 1 ...)` each.

    With tanh(u) = 2 sigmoid(2u) - 1, whose sigmoid is ten times faster on a CPU, a step is
    round(span * sigmoid(2 z + double_shift) - lowest), and a quantized value is step / half_width.
    """

    double_shift: Tensor
    span: Tensor
    lowest: Tensor
    half_width: Tensor
    slope: Tensor  # of a quantized value in the sigmoid, times 2 for the 2 z
    level: Tensor
    centre: Tensor  # of the quantized values: even levels are not symmetric


def _places(levels: tuple[int, ...]) -> list[int]:
    """What a step of each channel is worth in a token."""
    return [math.prod(levels[:channel]) for channel in range(len(levels))]


def _per_channel(constant: Tensor, like: Tensor) -> Tensor:
    return constant.view(1, -1, *[1] * (like.ndim - 2))


def _sigmoid(latents: Tensor, double_shift: Tensor) -> Tensor:
    return torch.add(double_shift, latents, alpha=2).sigmoid_()


def _steps(latents: Tensor, c: _Constants) -> Tensor:
    return _sigmoid(latents, c.double_shift).mul_(c.span).sub_(c.lowest).round_()


def _tokens(steps: Tensor, levels: tuple[int, ...]) -> Tensor:
    """int64 tokens of whole steps, float `(B, D, *grid)`; a step that is NaN gives a token in range."""
    places, last = _places(levels), math.prod(levels) - 1
    zero = sum(place * (level // 2) for place, level in zip(places, levels, strict=True))
    if last < 2**24:  # float32 counts exactly that far
        tokens = steps[:, 0] + zero
        for channel, place in enumerate(places[1:], start=1):
            tokens.add_(steps[:, channel], alpha=place)
        return tokens.int().clamp_(0, last).long()
    tokens = steps[:, 0].long() + zero
    for channel, place in enumerate(places[1:], start=1):
        tokens.add_(steps[:, channel].long(), alpha=place)
    return tokens.clamp_(0, last)


class _ThroughBound(torch.autograd.Function):
    """The quantized vectors with the gradient of the bound.

    The backward works the sigmoid out again: that costs a tenth of a step and saves a third of its memory.
    """

    @staticmethod
    def forward(ctx, latents: Tensor, quantized: Tensor, double_shift: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(latents, double_shift, slope)
        ctx.mark_dirty(quantized)
        return quantized

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        latents, double_shift, slope = ctx.saved_tensors
        sigmoid = _sigmoid(latents, double_shift)
        torch.ops.aten.sigmoid_backward.grad_input(gradient, sigmoid, grad_input=sigmoid)
        return sigmoid.mul_(slope), None, None, None
