"""Several codebooks one after another: each quantizes what the ones before left over.

Autoregressive Image Generation using Residual Quantization. Lee, Kim, Kim, Cho, Han. arXiv:2203.01941
Quantizer dropout. SoundStream: An End-to-End Neural Audio Codec. Zeghidour et al. arXiv:2107.03312
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..configuration import VisualTokenizerConfig
from .base import Quantizer, QuantizerOutput
from .checks import at_least_float32
from .product import SeveralCodebooks, call


class Residual(SeveralCodebooks):
    """Residual quantization: the quantized vector is the sum of the stages' vectors.

    The losses of every stage reach the latents; the straight-through gradient of the sum is that of the first
    stage, so that it is not counted once a stage. Stages of a fixed codebook (FSQ, SFSQ, LFQ, BSQ) divide the
    cell that the stage before rounded to. A method whose latents are logits (Gumbel) has nothing to subtract
    there: each stage reads logits of its own, and the vectors add up.

    Args:
        build: Makes one quantizer; called once for a shared codebook, else once for each stage.
        num_codebooks: Number of stages.
        shared_codebook: Whether the stages share one codebook.
        quantizer_dropout: Share of the pictures in training that keep only their first stages, from one to
            all of them, each number as likely: `lookup(tokens, num_codebooks=k)` then decodes well too. In
            training the tokens of the stages left out mean nothing.

    Raises:
        ValueError: An argument is out of range, there are more stages than float32 can tell apart, or the
            latents are not as wide as the entries.

    Example:
        >>> import torch
        >>> from vistok.quantizers import FSQ, Residual
        >>> latents = torch.randn(1, 2, 64, 64)
        >>> stages = [Residual(lambda: FSQ(levels=[5, 5]), num_codebooks=k) for k in (1, 2)]
        >>> errors = [(s(latents).quantized - s.quantizers[0].bounded(latents)).abs().max() for s in stages]
        >>> bool(errors[1] < errors[0] / 4)
        True
    """

    def __init__(
        self,
        build: Callable[[], Quantizer],
        num_codebooks: int,
        shared_codebook: bool = False,
        quantizer_dropout: float = 0.0,
    ):
        super().__init__(build, num_codebooks, shared_codebook)
        VisualTokenizerConfig.check(quantizer_dropout=quantizer_dropout)
        self.quantizer_dropout = quantizer_dropout
        # A stage's losses are means over the pictures that kept it.
        self.batch_statistics = self.batch_statistics or quantizer_dropout > 0
        most = self.quantizers[0].most_stages()
        if most is not None and num_codebooks > max(1, most):
            raise ValueError(
                f"num_codebooks must be at most {max(1, most)} here, got {num_codebooks}: float32 cannot "
                f"tell more residual stages of this {type(self.quantizers[0]).__name__} apart"
            )
        self.reads_logits = self.quantizers[0].reads_logits
        if self.reads_logits:
            self.latent_dim *= num_codebooks
        elif self.latent_dim != self.quantized_dim:
            raise ValueError(
                f"codebook_layout 'residual' needs latents as wide as the entries, got latent_dim "
                f"{self.latent_dim} and quantized_dim {self.quantized_dim}; use 'product'"
            )

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        shares = latents.chunk(self.num_codebooks, dim=1) if self.reads_logits else None
        kept = self._stages_kept(latents)
        outputs, quantized, left = [], None, None
        for depth in range(self.num_codebooks):
            stage = self.quantizer(depth)
            stage.stream = depth
            stage.entries_in_use = self.shared_codebook and depth > 0
            if shares:
                values = shares[depth]
            elif depth == 0:
                values = latents
            else:
                values = stage.unbounded(stage.zoom_in(left, depth))
            here = None if kept is None or depth == 0 else kept > depth
            outputs.append(call(stage, values, _both(mask, here, latents)))
            part = outputs[-1].quantized
            if depth:
                # Straight through once: only a method that learns through its vectors needs the others' too.
                part = stage.zoom_out(part if stage.learns_through_quantized else part.detach(), depth)
                quantized = quantized + (part if here is None else part * _over_grid(here, part))
            else:
                quantized = part
            if not shares:
                left = (stage.bounded(latents) if depth == 0 else left) - part.detach()
        return QuantizerOutput(
            quantized, torch.stack([out.tokens for out in outputs], dim=1), self.mean_losses(outputs)
        )

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        if self.reads_logits:
            shares = enumerate(latents.chunk(self.num_codebooks, dim=1))
            return torch.stack([self.quantizer(depth).encode(share) for depth, share in shares], dim=1)
        first = self.quantizer(0)
        return self._greedy(first.bounded(latents), first.encode(latents), "encode")

    def index(self, quantized: Tensor) -> Tensor:
        """The greedy tokens of vectors: each stage takes its nearest. See `Quantizer.index`.

        With fixed entries (FSQ) that inverts `lookup`; with learned ones another sum may lie as near.
        """
        self._check_channels(quantized, self.quantized_dim)
        values = at_least_float32(quantized)
        return self._greedy(values, self.quantizer(0).index(values), "index")

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        quantized = self.quantizer(0).lookup(tokens[:, 0])
        for depth in range(1, tokens.shape[1]):
            stage = self.quantizer(depth)
            quantized = quantized + stage.zoom_out(stage.lookup(tokens[:, depth]), depth)
        return quantized

    def _greedy(self, left: Tensor, first_tokens: Tensor, method: str) -> Tensor:
        tokens = [first_tokens]
        left = left - self.quantizer(0).lookup(first_tokens)
        for depth in range(1, self.num_codebooks):
            stage = self.quantizer(depth)
            values = stage.zoom_in(left, depth)
            if method == "encode":
                values = stage.unbounded(values)
            tokens.append(getattr(stage, method)(values))
            left = left - stage.zoom_out(stage.lookup(tokens[-1]), depth)
        return torch.stack(tokens, dim=1)

    def _stages_kept(self, latents: Tensor) -> Tensor | None:
        """How many stages each picture keeps, int64 `(B,)`; None without dropout."""
        if not (self.training and self.quantizer_dropout):
            return None
        kept = []
        for draw in self.samples.next(latents, "quantizer dropout"):
            share, number = torch.rand(2, generator=draw, device=latents.device).tolist()
            drops = share < self.quantizer_dropout
            kept.append(1 + int(number * self.num_codebooks) if drops else self.num_codebooks)
        return torch.tensor(kept, dtype=torch.int64, device=latents.device)


def _over_grid(per_picture: Tensor, like: Tensor) -> Tensor:
    return per_picture.view(-1, *[1] * (like.ndim - 1))


def _both(mask: Tensor | None, per_picture: Tensor | None, latents: Tensor) -> Tensor | None:
    if per_picture is None:
        return mask
    places = latents.new_ones(len(latents), *latents.shape[2:], dtype=torch.bool) if mask is None else mask
    return places & _over_grid(per_picture, places)
