"""FSQ: each channel is bounded and rounded to a few levels; the codebook is their product.

Finite Scalar Quantization: VQ-VAE Made Simple. Mentzer, Minnen, Agustsson, Tschannen. arXiv:2309.15505
"""

import math
from typing import Literal

import torch
from huggingface_hub.dataclasses import validated_field
from torch import Tensor
from transformers import initialization as init

from ..configuration import VisualTokenizerConfig
from .base import Quantizer, QuantizerOutput


def _check_levels(levels: list[int] | tuple[int, ...]) -> None:
    for level in levels:
        if level < 2:
            raise ValueError(f"expected levels that are integers of at least 2, got {list(levels)}")
    if not levels or math.prod(levels) > 2**62:
        raise ValueError(f"expected one or more levels whose product is at most 2**62, got {list(levels)}")


class FSQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with finite scalar quantization.

    Args:
        levels: Number of levels of each channel. The paper's choices: [8, 6, 5] for 2^8 entries, [8, 5, 5, 5] for
            2^10, [7, 5, 5, 5, 5] for 2^12, [8, 8, 8, 6, 5] for 2^14 and [8, 8, 8, 5, 5, 5] for 2^16.
        bound: How latents are bounded before they are rounded. `"atanh"` centres the even levels exactly; `"tan"` is
            the paper's pseudo-code, which FSQ-pytorch and its checkpoints use. They differ in about 1 % of the tokens.

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

    A latent `z` of a channel with `L` levels becomes `round(half * tanh(z + shift) - offset) / (L // 2)`, which lies in
    [-1, 1]; even levels have one more step below zero than above. The first channel is the least significant digit of
    the token. Gradients pass the rounding unchanged and the `tanh` as they should. No parameters, no losses.

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
        # With tanh(u) = 2 sigmoid(2u) - 1, whose sigmoid is ten times faster on a CPU, a step is
        # round(span * sigmoid(2 z + double_shift) - lowest), and a level is step / half_width.
        for name in ("double_shift", "span", "lowest", "half_width"):
            self.register_buffer(name, torch.empty(len(levels), dtype=torch.float32), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Rebuilds the constants of the bound from the levels."""
        # The slack keeps the outermost levels within reach of the tanh ("atanh"), or is the paper's ("tan").
        slack, inverse = (1 + 1e-3, math.atanh) if self.bound == "atanh" else (1 - 1e-3, math.tan)
        half = [(level - 1) * slack / 2 for level in self.levels]
        offset = [0.5 if level % 2 == 0 else 0.0 for level in self.levels]
        constants = {
            "double_shift": [2 * inverse(o / h) for o, h in zip(offset, half, strict=True)],
            "span": [2 * h for h in half],
            "lowest": [h + o for o, h in zip(offset, half, strict=True)],
            "half_width": [level // 2 for level in self.levels],
        }
        for name, values in constants.items():
            buffer = getattr(self, name)
            init.copy_(buffer, torch.tensor(values, dtype=torch.float64).to(buffer))

    def quantize(self, latents: Tensor) -> QuantizerOutput:
        """See `Quantizer`."""
        constants = [
            _per_channel(c, latents) for c in (self.double_shift, self.span, self.lowest, self.half_width)
        ]
        if torch.is_grad_enabled() and latents.requires_grad:
            quantized, steps = _BoundAndRound.apply(latents, *constants)
        else:
            double_shift, span, lowest, half_width = constants
            steps = _steps(_sigmoid(latents, double_shift), span, lowest)
            quantized = steps / half_width
        return QuantizerOutput(quantized=quantized, tokens=self._tokens(steps))

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        double_shift, span, lowest = (
            _per_channel(c, latents) for c in (self.double_shift, self.span, self.lowest)
        )
        return self._tokens(_steps(_sigmoid(latents, double_shift), span, lowest))

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        channels, rest = [], tokens
        for level in self.levels:
            above = rest // level
            channels.append(rest - above * level)
            rest = above
        digits = torch.stack(channels, dim=1)
        half_width = _per_channel(self.half_width, digits)
        return (digits - half_width) / half_width

    def index(self, quantized: Tensor) -> Tensor:
        """The tokens of quantized vectors: the nearest level of each channel. See `Quantizer.index`."""
        self._check_latents(quantized)
        steps = torch.round(quantized.float() * _per_channel(self.half_width, quantized))
        return self._tokens(steps)

    def bounded(self, latents: Tensor) -> Tensor:
        """The bounded latents before rounding, in the scale of the quantized vectors: what residual stages divide up.

        Args:
            latents: float `(B, latent_dim, *grid)`.
        """
        double_shift, span, lowest, half_width = (
            _per_channel(c, latents) for c in (self.double_shift, self.span, self.lowest, self.half_width)
        )
        return (span * torch.sigmoid(2 * latents + double_shift) - lowest) / half_width

    def unbounded(self, values: Tensor) -> Tensor:
        """The latents of bounded values: the inverse of `bounded`, clamped to its open range.

        Args:
            values: float `(B, latent_dim, *grid)`.
        """
        double_shift, span, lowest, half_width = (
            _per_channel(c, values) for c in (self.double_shift, self.span, self.lowest, self.half_width)
        )
        share = ((values * half_width + lowest) / span).clamp(1e-6, 1 - 1e-6)
        return (torch.logit(share) - double_shift) / 2

    def zoom_in(self, values: Tensor, depth: int) -> Tensor:
        """Spreads one rounding cell of stage `depth - 1` over the cells of all levels. See `Quantizer.zoom_in`."""
        levels, centre = self._residual_constants(values)
        return values * levels**depth + centre

    def zoom_out(self, quantized: Tensor, depth: int) -> Tensor:
        """See `Quantizer.zoom_out`."""
        levels, centre = self._residual_constants(quantized)
        return (quantized - centre) / levels**depth

    def _residual_constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        levels = torch.tensor(self.levels, dtype=like.dtype, device=like.device)
        even = torch.tensor([level % 2 == 0 for level in self.levels], device=like.device)
        centre = torch.where(even, -0.5 / self.half_width, 0.0).to(
            like.dtype
        )  # even levels are not symmetric
        return _per_channel(levels, like), _per_channel(centre, like)

    def _tokens(self, steps: Tensor) -> Tensor:
        """int64 tokens of whole steps, float `(B, D, *grid)`; steps that are not numbers give a token in range."""
        places = [math.prod(self.levels[:i]) for i in range(len(self.levels))]
        zero = sum(place * (level // 2) for place, level in zip(places, self.levels, strict=True))
        if self.codebook_size <= 2**24:  # float32 counts exactly that far
            tokens = steps[:, 0] + zero
            for channel, place in enumerate(places[1:], start=1):
                tokens.add_(steps[:, channel], alpha=place)
            tokens = tokens.long()
        else:
            tokens = steps[:, 0].long() + zero
            for channel, place in enumerate(places[1:], start=1):
                tokens.add_(steps[:, channel].long(), alpha=place)
        return tokens.clamp_(0, self.codebook_size - 1)


def _per_channel(constant: Tensor, like: Tensor) -> Tensor:
    return constant.view(1, -1, *[1] * (like.ndim - 2))


def _sigmoid(latents: Tensor, double_shift: Tensor) -> Tensor:
    return torch.add(double_shift, latents, alpha=2).sigmoid_()


def _steps(sigmoid: Tensor, span: Tensor, lowest: Tensor) -> Tensor:
    return torch.mul(sigmoid, span).sub_(lowest).round_()


class _BoundAndRound(torch.autograd.Function):
    """The quantized vectors and the whole steps; saves one tensor, and its backward is two passes."""

    @staticmethod
    def forward(ctx, latents: Tensor, double_shift: Tensor, span: Tensor, lowest: Tensor, half_width: Tensor):
        sigmoid = _sigmoid(latents, double_shift)
        steps = _steps(sigmoid, span, lowest)
        ctx.save_for_backward(sigmoid, 2 * span / half_width)
        ctx.mark_non_differentiable(steps)
        return steps / half_width, steps

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor, _):
        sigmoid, slope = ctx.saved_tensors
        return torch.ops.aten.sigmoid_backward(gradient, sigmoid).mul_(slope), None, None, None, None
