"""The contract of a quantizer: latents in, tokens and their vectors out.

A method is one file with a configuration and a `Quantizer`. Its author writes three small functions on
float32 latents (`quantize`, `assign`, `entries`); this class adds what every method needs: the checks, full
precision under autocast and for half-precision latents, and codebooks that stay float32.
"""

import inspect
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from ..configuration import VisualTokenizerConfig
from .checks import at_least_float32, check_finite, checked_mask
from .randomness import SampleStreams

QUANTIZERS: dict[type[VisualTokenizerConfig], type["Quantizer"]] = {}


@dataclass
class QuantizerOutput(ModelOutput):
    """What a quantizer makes of latents.

    Attributes:
        quantized: float `(B, quantized_dim, *grid)`, the vectors of the tokens; gradients reach the latents.
        tokens: int64 `(B, *token_shape)` in `[0, codebook_size)`, or None from a quantizer without tokens.
        losses: Named scalars, already weighted; empty where there are none and in eval mode.
    """

    quantized: Tensor | None = None
    tokens: Tensor | None = None
    losses: dict[str, Tensor] | None = None

    def __post_init__(self):
        super().__post_init__()  # first: accelerate rebuilds outputs from a dictionary of all fields
        if self.losses is None:
            self.losses = {}

    @property
    def loss(self) -> Tensor:
        """The sum of the losses, a scalar; zero where there are none."""
        return sum(self.losses.values(), start=self.quantized.new_zeros((), dtype=torch.float32))


class Quantizer(nn.Module, ABC):
    """A method that turns latents into tokens and tokens into vectors.

    A subclass names its `config_class`, which registers it, and sets the four sizes in its constructor. It
    defines

    - `quantize(latents, mask=None) -> QuantizerOutput`: the training and evaluation forward;
    - `assign(latents) -> tokens`: the evaluation tokens, the fast path of extraction;
    - `entries(tokens) -> quantized`: the vectors of tokens,

    on latents that are at least float32, with autocast off and shapes checked; or it overrides `forward`,
    `encode` and `lookup` themselves. State gets its values in `reset_parameters` and nowhere else, through
    `transformers.initialization`, because `from_pretrained` builds on the meta device.

    Attributes:
        codebook_size: Number of entries; tokens lie in `[0, codebook_size)`.
        codebook_dim: Channels of one entry.
        latent_dim: Channels of the latents.
        quantized_dim: Channels of the quantized vectors.
        batch_statistics: Whether a loss or the assignment in training depends on the batch as a whole, so
            that several micro-batches do not equal one batch.
        learns_through_quantized: Whether the gradient of `quantized` reaches the codebook too, so that
            residual stages must not cut it.
        reads_logits: Whether its latents are the logits of the entries and not vectors like them.
        codebook_frozen: Whether `freeze_codebook` was called.
        stream: Of which of several codebooks it is: each draws random numbers of its own.
        entries_in_use: Whether an earlier residual stage of this forward used the same entries, so that
            initialization must not move them now.
        updates_by_step: Whether `set_step` was called: statistics wait for it, instead of being applied in
            `forward`.
    """

    config_class: ClassVar[type[VisualTokenizerConfig]]
    batch_statistics: bool = False
    learns_through_quantized: ClassVar[bool] = False
    reads_logits: ClassVar[bool] = False
    codebook_frozen: bool = False
    stream: int = 0
    entries_in_use: bool = False
    updates_by_step: bool = False  # and not the step: torch.compile would make a graph for each

    codebook_size: int
    codebook_dim: int
    latent_dim: int
    quantized_dim: int
    quantize: Callable[..., QuantizerOutput]
    assign: Callable[[Tensor], Tensor]
    entries: Callable[[Tensor], Tensor]

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        config_class = cls.__dict__.get("config_class")
        if config_class is None:
            return
        for hook, method in (("quantize", "forward"), ("assign", "encode"), ("entries", "lookup")):
            if not hasattr(cls, hook) and getattr(cls, method) is getattr(Quantizer, method):
                raise TypeError(f"{cls.__name__} must define {hook} (or override {method})")
        arguments = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
        if sorted(arguments) != sorted(config_class.own_fields()):
            raise TypeError(
                f"The constructor of {cls.__name__} takes {arguments}, but the own fields of "
                f"{config_class.__name__} are {config_class.own_fields()}: they must be the same, in order"
            )
        QUANTIZERS[config_class] = cls

    def __init__(self):
        super().__init__()
        self.samples = SampleStreams()

    def forward(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """Quantizes latents, in training with losses.

        Args:
            latents: float `(B, latent_dim, *grid)`. Non-finite values are let through; tokens stay in range.
            mask: bool `(B, *grid)`, False at places that are padding: they have no part in losses, statistics
                and gradients, whatever stands there; their tokens and vectors are those of zeros.

        Returns:
            The quantized vectors in the dtype of the latents, the tokens and the weighted losses.

        Raises:
            ValueError: The latents or the mask have the wrong shape or dtype.
        """
        self._check_latents(latents)
        values, masked = at_least_float32(latents), {}
        if mask is not None:
            if "mask" not in inspect.signature(self.quantize).parameters:
                raise ValueError(
                    f"{type(self).__name__}.quantize takes no mask; give it the argument mask=None and leave "
                    "masked places (and residual stages that dropout leaves out) out of its losses"
                )
            masked = {"mask": checked_mask(mask, latents)}
            values = values.masked_fill(~mask.unsqueeze(1), 0)  # whose gradient is no NaN at a NaN
        with torch.autocast(latents.device.type, enabled=False):
            out = self.quantize(values, **masked)
        out.quantized = out.quantized.to(latents.dtype)
        return out

    @torch.no_grad()
    def encode(self, latents: Tensor) -> Tensor:
        """The evaluation tokens of latents: no losses, noise or change of state, in training mode too.

        Args:
            latents: float `(B, latent_dim, *grid)`, finite.

        Returns:
            int64 `(B, *grid)`, or `(B, K, *grid)` with K codebooks.

        Raises:
            ValueError: The latents have the wrong shape, are not floating-point or not finite.
        """
        self._check_latents(latents)
        check_finite(latents)
        with torch.autocast(latents.device.type, enabled=False):
            return self.assign(at_least_float32(latents))

    def lookup(self, tokens: Tensor) -> Tensor:
        """The vectors that tokens stand for.

        Args:
            tokens: int `(B, *grid)`, or `(B, K, *grid)` with K codebooks, in `[0, codebook_size)`.

        Returns:
            float32 `(B, quantized_dim, *grid)`.

        Raises:
            ValueError: A token is out of range, or the tokens are not integers or have the wrong rank.
        """
        self._check_tokens(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            return self.entries(tokens.long())

    def index(self, quantized: Tensor) -> Tensor:
        """The tokens of quantized vectors: the inverse of `lookup`.

        Args:
            quantized: float `(B, quantized_dim, *grid)`.

        Returns:
            int64 tokens of the same grid.
        """
        return self.encode(quantized)

    def evaluate(self, latents: Tensor) -> QuantizerOutput:
        """The evaluation tokens and their vectors (float32), whatever mode the quantizer is in."""
        tokens = self.encode(latents)
        return QuantizerOutput(quantized=self.lookup(tokens), tokens=tokens)

    def other_assignments(self, latents: Tensor) -> dict[str, Tensor]:
        """Tokens by each assignment that the method offers beside that of `encode`, by its name."""
        return {}

    def token_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one picture's tokens on a grid."""
        return grid

    def check_grid(self, grid: tuple[int, ...]) -> None:
        """Raises `ValueError` for a grid that the method does not take; most take any."""

    def bounded(self, latents: Tensor) -> Tensor:
        """What is left to quantize before the first residual stage: the latents, in the entries' scale."""
        return latents

    def unbounded(self, values: Tensor) -> Tensor:
        """The latents whose `bounded` values are these."""
        return values

    def zoom_in(self, values: Tensor, depth: int) -> Tensor:
        """Brings what `depth` residual stages left over to the scale of the entries.

        A learned codebook finds the scale by itself; entries that are fixed need it.
        """
        return values

    def most_stages(self) -> int | None:
        """How many residual stages float32 can tell apart; None for a method that has no such limit."""
        return None

    def zoom_out(self, quantized: Tensor, depth: int) -> Tensor:
        """The inverse of `zoom_in`, for the vectors of residual stage `depth`."""
        return quantized

    def reset_parameters(self) -> None:
        """Gives the state its initial values; nothing to do for a method without state."""

    def set_step(self, step: int) -> None:
        """Tells the number of optimizer steps taken.

        The training loop calls it once before the first forward, after a resume too, and after every step
        taken. What anneals does it here, and from the first call on statistics that `forward` gathers are
        applied here.
        """
        self.updates_by_step = True
        self.samples.begin(step)

    def freeze_codebook(self) -> None:
        """Keeps the entries as they are: no gradient, average, revival or k-means moves them."""
        self.codebook_frozen = True
        self.requires_grad_(False)
        self.discard_statistics()

    def discard_statistics(self) -> None:
        """Forgets what `forward` gathered since the last `set_step`: the loop skipped that step."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True):
        # model.to(torch.bfloat16) would make other tokens of the same latents: state moves, but keeps its
        # precision.
        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if (
                moved.dtype in (torch.float16, torch.bfloat16)
                and tensor.dtype.itemsize > moved.dtype.itemsize
            ):
                return tensor.to(moved.device)
            return moved

        return super()._apply(move, recurse)

    def _check_latents(self, latents: Tensor) -> None:
        self._check_channels(latents, self.latent_dim)
        self.check_grid(tuple(latents.shape[2:]))

    def _check_channels(self, latents: Tensor, channels: int) -> None:
        if latents.ndim < 2 or latents.shape[1] != channels:
            raise ValueError(
                f"Expected latents of shape (B, {channels}, *grid) for {type(self).__name__}, "
                f"got {tuple(latents.shape)}"
            )
        if not latents.is_floating_point():
            raise ValueError(f"Expected floating-point latents, got {latents.dtype}")

    def _check_tokens(self, tokens: Tensor) -> None:
        if tokens.ndim < 1:
            raise ValueError("Expected tokens of shape (B, *grid), got a scalar")
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise ValueError(f"Expected integer tokens, got {tokens.dtype}")
        if torch.compiler.is_compiling() or tokens.numel() == 0:
            return
        tokens = tokens.long()  # unsigned kinds have no comparisons
        lowest, highest = torch.aminmax(tokens)
        if lowest < 0 or highest >= self.codebook_size:
            wrong = ((tokens < 0) | (tokens >= self.codebook_size)).nonzero()[0].tolist()
            raise ValueError(
                f"Expected tokens in [0, {self.codebook_size}), got {int(tokens[tuple(wrong)])} at position "
                f"{wrong}; are they from another tokenizer?"
            )


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, latents: Tensor, quantized: Tensor) -> Tensor:
        return quantized.clone()  # of its own, so that it may be changed in place

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient, None


def straight_through(latents: Tensor, quantized: Tensor) -> Tensor:
    """`quantized`, bit for bit, whose gradient goes to the latents unchanged and nowhere else.

    The usual `latents + (quantized - latents).detach()` is off by a rounding.

    Args:
        latents: float, any shape.
        quantized: float, the same shape.
    """
    return _StraightThrough.apply(latents, quantized)
