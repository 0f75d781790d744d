"""Several codebooks one after another: each quantizes what the ones before left over.

Autoregressive Image Generation using Residual Quantization. Lee, Kim, Kim, Cho, Han. arXiv:2203.01941
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .base import Quantizer, QuantizerOutput
from .product import SeveralCodebooks


class Residual(SeveralCodebooks):
    """Residual quantization: the quantized vector is the sum of the stages' vectors.

    The losses of every stage reach the latents; the straight-through gradient of the sum is that of the first
    stage, so that it is not counted once a stage. Stages of a fixed codebook (FSQ) divide the cell that the
    stage before rounded to.

    Args:
        build: Makes one quantizer; called once for a shared codebook, else once for each stage.
        num_codebooks: Number of stages.
        shared_codebook: Whether the stages share one codebook.

    Raises:
        ValueError: `num_codebooks` is below 1 or above what float32 can tell apart, or the latents are not as
            wide as the entries.

    Example:
        >>> import torch
        >>> from vistok.quantizers import FSQ, Residual
        >>> latents = torch.randn(1, 2, 64, 64)
        >>> stages = [Residual(lambda: FSQ(levels=[5, 5]), num_codebooks=k) for k in (1, 2)]
        >>> errors = [(s(latents).quantized - s.quantizers[0].bounded(latents)).abs().max() for s in stages]
        >>> bool(errors[1] < errors[0] / 4)
        True
    """

    def __init__(self, build: Callable[[], Quantizer], num_codebooks: int, shared_codebook: bool = False):
        super().__init__(build, num_codebooks, shared_codebook)
        most = self.quantizers[0].most_stages()
        if most is not None and num_codebooks > most:
            raise ValueError(
                f"num_codebooks must be at most {most} residual stages here, got {num_codebooks}"
            )
        if self.latent_dim != self.quantized_dim:
            raise ValueError(
                f"codebook_layout 'residual' needs latents as wide as the entries, got latent_dim "
                f"{self.latent_dim} and quantized_dim {self.quantized_dim}; use 'product'"
            )

    def quantize(self, latents: Tensor) -> QuantizerOutput:
        """See `Quantizer`."""
        first = self.quantizer(0)
        outputs = [first(latents)]
        quantized = outputs[0].quantized
        left = first.bounded(latents) - quantized.detach()
        for depth in range(1, self.num_codebooks):
            stage = self.quantizer(depth)
            outputs.append(stage(stage.unbounded(stage.zoom_in(left, depth))))
            part = stage.zoom_out(outputs[-1].quantized.detach(), depth)
            quantized = quantized + part
            left = left - part
        return QuantizerOutput(
            quantized, torch.stack([out.tokens for out in outputs], dim=1), self.mean_losses(outputs)
        )

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        first = self.quantizer(0)
        return self._greedy(first.bounded(latents), first.encode(latents), "encode")

    def index(self, quantized: Tensor) -> Tensor:
        """The greedy tokens of vectors: each stage takes its nearest. See `Quantizer.index`.

        With fixed levels (FSQ) that inverts `lookup`; with learned entries another sum may lie as near.
        """
        self._check_latents(quantized)
        values = quantized.float()
        return self._greedy(values, self.quantizer(0).index(values), "index")

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        quantized = self.quantizer(0).lookup(tokens[:, 0])
        for depth in range(1, self.num_codebooks):
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
