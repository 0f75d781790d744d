"""What quantizers of single channels share: bounded, rounded to levels, and read as the digits of a token."""

import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import initialization as init

from .base import Quantizer, QuantizerOutput
from .checks import check_finite


def check_levels(levels: list[int] | tuple[int, ...]) -> None:
    """Raises `ValueError` for levels that are too few, too many to tell apart, or none at all."""
    for level in levels:
        if not 2 <= level <= 2**24:  # float32 tells no more apart
            raise ValueError(f"expected levels that are integers from 2 to 2**24, got {list(levels)}")
    if not levels or math.prod(levels) > 2**62:
        raise ValueError(f"expected one or more levels whose product is at most 2**62, got {list(levels)}")


class Channel(NamedTuple):
    """The arithmetic of a channel with `level` levels.

    A step is `round(span * sigmoid(steepness * z + shift) - lowest)`; its digit is `step + zero` and its
    quantized value `step / unit`.
    """

    shift: float
    span: float
    lowest: float
    unit: float
    zero: int
    level: int
    centre: float  # of the quantized values


class ScalarQuantizer(Quantizer):
    """A quantizer that rounds each channel on its own; the codebook is the product of the levels.

    The first channel is the least significant digit of the token. Gradients pass the rounding unchanged and
    the bound as they should. No parameters, no losses.

    Args:
        levels: Number of levels of each channel, already checked.

    Attributes:
        steepness: Of the bound: its sigmoid's argument is `steepness * latents + shift`.
    """

    steepness: float

    def __init__(self, levels: list[int] | tuple[int, ...]):
        super().__init__()
        self.levels = tuple(levels)
        self.codebook_size = math.prod(levels)
        self.codebook_dim = self.latent_dim = self.quantized_dim = len(levels)
        self.zeros = [self.channel(level).zero for level in self.levels]
        self.register_buffer("constants", torch.empty(8, len(levels), dtype=torch.float32), persistent=False)
        self.register_buffer("places", torch.empty(len(levels) + 1, dtype=torch.int64), persistent=False)
        self.reset_parameters()

    @abstractmethod
    def channel(self, level: int) -> Channel:
        """The arithmetic of a channel with so many levels."""

    def reset_parameters(self) -> None:
        """Rebuilds the constants of the bound and the places of the digits from the levels."""
        rows = []  # one channel each, in the order of _Constants
        for channel in map(self.channel, self.levels):
            rows.append((*channel, self.steepness * channel.span / channel.unit))
        init.copy_(self.constants, torch.tensor(rows, dtype=torch.float64).t().to(self.constants))
        init.copy_(self.places, torch.tensor([*_places(self.levels), self.codebook_size]).to(self.places))

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        c = self._constants(latents)
        with torch.no_grad():
            steps = self._steps(latents, c)
            tokens = self._tokens(steps)
            quantized = steps.div_(c.unit)
        if not (torch.is_grad_enabled() and latents.requires_grad):
            return QuantizerOutput(quantized, tokens)
        quantized = _ThroughBound.apply(latents, quantized, c.shift, c.slope, self.steepness)
        return QuantizerOutput(quantized, tokens)

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        return self._tokens(self._steps(latents, self._constants(latents)))

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
        return (digits - c.zero).div_(c.unit)

    def index(self, quantized: Tensor) -> Tensor:
        """The tokens of quantized vectors: the nearest level of each channel. See `Quantizer.index`."""
        self._check_latents(quantized)
        check_finite(quantized)
        c = self._constants(quantized)
        steps = (quantized.detach() * c.unit).round_()
        return self._tokens(torch.minimum(torch.maximum(steps, -c.zero), c.level - 1 - c.zero))

    def bounded(self, latents: Tensor) -> Tensor:
        """The bounded latents before rounding, in the scale of the vectors: what residual stages divide.

        Args:
            latents: float `(B, latent_dim, *grid)`.
        """
        c = self._constants(latents)
        return (c.span * torch.sigmoid(self.steepness * latents + c.shift) - c.lowest) / c.unit

    def unbounded(self, values: Tensor) -> Tensor:
        """The latents of bounded values: the inverse of `bounded`, clamped to its open range.

        Args:
            values: float `(B, latent_dim, *grid)`.
        """
        c = self._constants(values)
        share = ((values * c.unit + c.lowest) / c.span).clamp(1e-6, 1 - 1e-6)
        return (torch.logit(share) - c.shift) / self.steepness

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
        return _Constants(*self.constants.view(8, 1, -1, *[1] * (like.ndim - 2)).unbind())

    def _steps(self, latents: Tensor, c: "_Constants") -> Tensor:
        return _sigmoid(latents, c.shift, self.steepness).mul_(c.span).sub_(c.lowest).round_()

    def _tokens(self, steps: Tensor) -> Tensor:
        """int64 tokens of whole steps, float `(B, D, *grid)`; a step that is NaN gives a token in range."""
        places, last = _places(self.levels), self.codebook_size - 1
        zero = sum(place * zero for place, zero in zip(places, self.zeros, strict=True))
        if last < 2**24:  # float32 counts exactly that far
            tokens = steps[:, 0] + zero
            for channel, place in enumerate(places[1:], start=1):
                tokens.add_(steps[:, channel], alpha=place)
            return tokens.int().clamp_(0, last).long()
        tokens = steps[:, 0].long() + zero
        for channel, place in enumerate(places[1:], start=1):
            tokens.add_(steps[:, channel].long(), alpha=place)
        return tokens.clamp_(0, last)


class _Constants(NamedTuple):
    """A `Channel`'s numbers and its slope, `(1, D, 1 ...)` each."""

    shift: Tensor
    span: Tensor
    lowest: Tensor
    unit: Tensor
    zero: Tensor
    level: Tensor
    centre: Tensor
    slope: Tensor  # of a quantized value in the sigmoid, times the steepness


def _places(levels: tuple[int, ...]) -> list[int]:
    """What a step of each channel is worth in a token."""
    return [math.prod(levels[:channel]) for channel in range(len(levels))]


def _per_channel(constant: Tensor, like: Tensor) -> Tensor:
    return constant.view(1, -1, *[1] * (like.ndim - 2))


def _sigmoid(latents: Tensor, shift: Tensor, steepness: float) -> Tensor:
    return torch.add(shift, latents, alpha=steepness).sigmoid_()


class _ThroughBound(torch.autograd.Function):
    """The quantized vectors with the gradient of the bound.

    The backward works the sigmoid out again: that costs a tenth of a step and saves a third of its memory.
    """

    @staticmethod
    def forward(
        ctx, latents: Tensor, quantized: Tensor, shift: Tensor, slope: Tensor, steepness: float
    ) -> Tensor:
        ctx.save_for_backward(latents, shift, slope)
        ctx.steepness = steepness
        ctx.mark_dirty(quantized)
        return quantized

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        latents, shift, slope = ctx.saved_tensors
        sigmoid = _sigmoid(latents, shift, ctx.steepness)
        torch.ops.aten.sigmoid_backward.grad_input(gradient, sigmoid, grad_input=sigmoid)
        return sigmoid.mul_(slope), None, None, None, None
