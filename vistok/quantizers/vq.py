"""VQ: the nearest entry of a learned codebook, drawn to the latents by a loss.

Neural Discrete Representation Learning. van den Oord, Vinyals, Kavukcuoglu. arXiv:1711.00937
With `normalize`, entries and latents of unit length. Vector-quantized Image Modeling with Improved VQGAN. Yu
et al. arXiv:2110.04627
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from ..configuration import VisualTokenizerConfig, number
from .base import Quantizer, QuantizerOutput
from .search import nearest


class VQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with a learned codebook.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether latents and entries are scaled to unit length first.
        codebook_weight: Weight of the loss that draws entries to latents.
        commitment_weight: Weight of the loss that draws latents to entries. Papers differ in which of the two
            carries their beta: taming-transformers' default is `codebook_weight=0.25, commitment_weight=1.0`.

    Example:
        >>> from vistok import VQConfig
        >>> VQConfig(codebook_size=16384, codebook_dim=8, normalize=True).commitment_weight
        0.25
    """

    model_type = "vistok_vq"

    codebook_size: int = number(1024, at_least=1, below=2**31)
    codebook_dim: int = number(8, at_least=1, below=2**16)
    normalize: bool = False
    codebook_weight: float | int = number(1.0, at_least=0)
    commitment_weight: float | int = number(0.25, at_least=0)


class VQ(Quantizer):
    """Vector quantization with a codebook loss and a commitment loss.

    Both losses are means over every element of `(quantized - latents)^2`, with normalized latents where
    `normalize` is set; their gradient reaches the codebook and the latents respectively.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether latents and entries are scaled to unit length first.
        codebook_weight: Weight of the loss that draws entries to latents.
        commitment_weight: Weight of the loss that draws latents to entries.

    Attributes:
        codebook: float32 `(codebook_size, codebook_dim)`.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import VQ
        >>> out = VQ(codebook_size=16, codebook_dim=4)(torch.randn(2, 4, 8, 8))
        >>> tuple(out.tokens.shape), sorted(out.losses)
        ((2, 8, 8), ['codebook', 'commitment'])
    """

    config_class = VQConfig

    def __init__(
        self,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        normalize: bool = False,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
    ):
        super().__init__()
        VQConfig.check(
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            normalize=normalize,
            codebook_weight=codebook_weight,
            commitment_weight=commitment_weight,
        )
        self.codebook_size = codebook_size
        self.codebook_dim = self.latent_dim = self.quantized_dim = codebook_dim
        self.normalize = normalize
        self.codebook_weight = codebook_weight
        self.commitment_weight = commitment_weight
        self.codebook = nn.Parameter(torch.empty(codebook_size, codebook_dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the entries uniformly from [-1/K, 1/K]."""
        init.uniform_(self.codebook, -1 / self.codebook_size, 1 / self.codebook_size)

    def quantize(self, latents: Tensor) -> QuantizerOutput:
        """See `Quantizer`."""
        rows, codebook = self._rows(latents), self._table().to(latents.dtype)
        quantized, loss_to_codebook, loss_to_latents, tokens = _Lookup.apply(rows, codebook, self.normalize)
        losses = {}
        if self.training and self.codebook_weight:
            losses["codebook"] = self.codebook_weight * loss_to_codebook
        if self.training and self.commitment_weight:
            losses["commitment"] = self.commitment_weight * loss_to_latents
        shape = latents.movedim(1, -1).shape
        return QuantizerOutput(quantized.view(shape).movedim(-1, 1), tokens.view(shape[:-1]), losses)

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        tokens = nearest(self._rows(latents), self._table().to(latents.dtype), unit_norm=self.normalize)
        return tokens.view(latents.shape[0], *latents.shape[2:])

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        vectors = self.codebook.index_select(0, tokens.flatten()).view(*tokens.shape, self.codebook_dim)
        return (F.normalize(vectors, dim=-1) if self.normalize else vectors).movedim(-1, 1)

    def _rows(self, latents: Tensor) -> Tensor:
        rows = latents.movedim(1, -1).reshape(-1, self.latent_dim)
        return F.normalize(rows, dim=1) if self.normalize else rows

    def _table(self) -> Tensor:
        return F.normalize(self.codebook, dim=1) if self.normalize else self.codebook


class _Lookup(torch.autograd.Function):
    """The nearest entries with a straight-through gradient, and their squared error to each side.

    The error is given twice: one passes its gradient to the codebook, the other to the rows. The gradients
    are known in closed form from the difference and the tokens, all it saves.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, codebook: Tensor, unit_norm: bool):
        tokens = nearest(rows, codebook, unit_norm=unit_norm)
        quantized = codebook.index_select(0, tokens)
        difference = quantized - rows
        flat = difference.flatten()
        error = torch.dot(flat, flat) / max(1, len(flat))
        ctx.save_for_backward(difference, tokens)
        ctx.entries = len(codebook)
        ctx.mark_non_differentiable(tokens)
        return quantized, error, error.clone(), tokens

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, to_quantized: Tensor, to_codebook: Tensor, to_rows: Tensor, _):
        difference, tokens = ctx.saved_tensors
        scale = 2 / max(1, difference.numel())
        rows_gradient = codebook_gradient = None
        if ctx.needs_input_grad[0]:
            rows_gradient = torch.addcmul(to_quantized, difference, -scale * to_rows)
        if ctx.needs_input_grad[1]:
            codebook_gradient = difference.new_zeros(ctx.entries, difference.shape[1])
            codebook_gradient.index_add_(0, tokens, difference).mul_(scale * to_codebook)
        return rows_gradient, codebook_gradient, None
