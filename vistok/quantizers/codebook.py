"""What methods with a table of entries share: rows of latents, the nearest entry, the two squared errors."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Quantizer
from .distributed import mean_count
from .search import nearest


class CodebookQuantizer(Quantizer):
    """A quantizer whose evaluation token is the nearest entry of a table.

    A method says what its entries are in `table` and `vectors`; by default they are the rows of `codebook`,
    scaled to unit length where `normalize` is set.

    Attributes:
        normalize: Whether latents and entries are scaled to unit length.
        codebook: float32 `(codebook_size, codebook_dim)`, a parameter or a buffer.
    """

    normalize: bool = False
    codebook: Tensor

    def table(self) -> Tensor:
        """The entries that latents are compared with, `(codebook_size, codebook_dim)`."""
        return F.normalize(self.codebook, dim=1) if self.normalize else self.codebook

    def vectors(self, tokens: Tensor) -> Tensor:
        """The entries of tokens `(N,)`: `(N, codebook_dim)`, with their gradient."""
        chosen = self.codebook.index_select(0, tokens)
        return F.normalize(chosen, dim=1) if self.normalize else chosen

    def rows(self, latents: Tensor) -> Tensor:
        """The latents of all places, `(N, codebook_dim)`, as they are compared with the entries."""
        rows = as_rows(latents)
        return F.normalize(rows, dim=1) if self.normalize else rows

    @torch.no_grad()
    def nearest_tokens(self, rows: Tensor) -> Tensor:
        """The nearest entry of each row, int64 `(N,)`."""
        return nearest(rows, self.table().to(rows.dtype), unit_norm=self.normalize)

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        return as_tokens(self.nearest_tokens(self.rows(latents)), latents)

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        return self.vectors(tokens.flatten()).view(*tokens.shape, self.codebook_dim).movedim(-1, 1)


def as_rows(latents: Tensor) -> Tensor:
    """`(B, D, *grid)` to `(B * places, D)`."""
    return latents.movedim(1, -1).reshape(-1, latents.shape[1])


def as_grid(rows: Tensor, latents: Tensor) -> Tensor:
    """`(B * places, D)` back to `(B, D, *grid)`, on the grid of `latents`."""
    return rows.view(latents.shape[0], *latents.shape[2:], rows.shape[1]).movedim(-1, 1)


def as_tokens(tokens: Tensor, latents: Tensor) -> Tensor:
    """`(B * places,)` to `(B, *grid)`, on the grid of `latents`."""
    return tokens.view(latents.shape[0], *latents.shape[2:])


def errors(
    quantized: Tensor, rows: Tensor, mask: Tensor | None = None, kind: Literal["l2", "l1"] = "l2"
) -> tuple[Tensor, Tensor]:
    """The mean error between entries and latents, once for each side.

    Args:
        quantized: float `(N, D)`, the entries.
        rows: float `(N, D)`, the latents.
        mask: bool, N places in any shape; others have no part in the mean.
        kind: Mean squared or mean absolute difference.

    Returns:
        Two scalars of one value: the first passes its gradient to the entries, the second to the latents.
    """
    return _Errors.apply(quantized, rows, None if mask is None else mask.flatten(), kind == "l1")


class _Errors(torch.autograd.Function):
    """Their gradients are known in closed form from the difference, all it saves."""

    @staticmethod
    def forward(ctx, quantized: Tensor, rows: Tensor, mask: Tensor | None, absolute: bool):
        difference = quantized - rows
        if mask is not None:
            difference.masked_fill_(~mask.unsqueeze(1), 0)
        flat = difference.flatten()
        total = flat.abs().sum() if absolute else torch.dot(flat, flat)
        elements = mean_count(mask, len(rows)) * max(1, rows.shape[1])
        ctx.save_for_backward(difference.sign_() if absolute else difference)
        ctx.scale = (1 if absolute else 2) / elements
        error = total / elements
        return error, error.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, to_quantized: Tensor, to_rows: Tensor):
        (difference,) = ctx.saved_tensors
        quantized_gradient = difference * (ctx.scale * to_quantized) if ctx.needs_input_grad[0] else None
        rows_gradient = difference * (-ctx.scale * to_rows) if ctx.needs_input_grad[1] else None
        return quantized_gradient, rows_gradient, None, None
