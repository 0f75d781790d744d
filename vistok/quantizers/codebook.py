"""What methods with a table of entries share: rows of latents, the nearest entry, the two squared errors."""

from typing import Literal

import torch
from torch import Tensor
from transformers import initialization as init

from .base import Quantizer
from .distributed import mean_count
from .kmeans import LATENTS_PER_ENTRY, kmeans_step
from .search import nearest

Initialization = Literal["uniform", "normal", "kmeans"]


class CodebookQuantizer(Quantizer):
    """A quantizer whose evaluation token is the nearest entry of a table.

    A method registers its `codebook` and then calls `reset_parameters`. It says what its entries are in
    `table` and `vectors`; by default they are the rows of the codebook, scaled to unit length where
    `normalize` is set.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether latents and entries are scaled to unit length.
        initialization: `"uniform"` in [-1/K, 1/K], `"normal"` with a standard deviation of D^-0.5, or
            `"kmeans"` of the first training batches.

    Attributes:
        codebook: float32 `(codebook_size, codebook_dim)`, a parameter or a buffer.
        latents_seen: int64, from how many latents k-means made the entries; kept in checkpoints, so that a
            resumed run does not begin anew.
    """

    codebook: Tensor

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        normalize: bool = False,
        initialization: Initialization = "uniform",
    ):
        super().__init__()
        self.codebook_size = codebook_size
        self.codebook_dim = self.latent_dim = self.quantized_dim = codebook_dim
        self.normalize = normalize
        self.initialization = initialization
        if initialization == "kmeans":
            self.register_buffer("latents_seen", torch.zeros((), dtype=torch.int64))
        self._fitting: bool | None = None  # whether k-means goes on; None where latents_seen must tell

    def reset_parameters(self) -> None:
        """Draws the entries; k-means moves them when the first batches come."""
        if self.initialization == "normal":
            init.normal_(self.codebook, std=self.codebook_dim**-0.5)
        else:
            init.uniform_(self.codebook, -1 / self.codebook_size, 1 / self.codebook_size)
        if self.initialization == "kmeans":
            init.zeros_(self.latents_seen)
            self._fitting = None

    def fit_first_batches(self, rows: Tensor, mask: Tensor | None = None) -> bool:
        """Fits the entries to one of the first batches; nothing where they are not initialized by k-means.

        Args:
            rows: float `(N, codebook_dim)`, as `rows` makes them.
            mask: bool, N places in any shape, False for padding.

        Returns:
            Whether the entries were moved.
        """
        held = self.codebook_frozen or self.entries_in_use
        if self.initialization != "kmeans" or held or self._fitting is False:
            return False
        seen, enough = int(self.latents_seen), LATENTS_PER_ENTRY * self.codebook_size
        if seen < enough:
            valid = rows.detach() if mask is None else rows.detach()[mask.flatten()]
            seen = kmeans_step(self.codebook.detach(), seen, valid, unit_norm=self.normalize)
            self.latents_seen.fill_(seen)
            self._fitting = seen < enough
            return True
        self._fitting = False
        return False

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._fitting = None

    def table(self) -> Tensor:
        """The entries that latents are compared with, `(codebook_size, codebook_dim)`."""
        return unit_length(self.codebook) if self.normalize else self.codebook

    def vectors(self, tokens: Tensor) -> Tensor:
        """The entries of tokens `(N,)`: `(N, codebook_dim)`, with their gradient."""
        chosen = self.codebook.index_select(0, tokens)
        return unit_length(chosen) if self.normalize else chosen

    def rows(self, latents: Tensor) -> Tensor:
        """The latents of all places, `(N, codebook_dim)`, as they are compared with the entries."""
        rows = as_rows(latents)
        return unit_length(rows) if self.normalize else rows

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


def unit_length(vectors: Tensor) -> Tensor:
    """Vectors `(N, D, ...)` scaled to length one along their channels.

    One without length stays zero and gets no gradient; `F.normalize` would multiply it by 10^12.
    """
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / length.masked_fill(length < 1e-6, torch.inf)


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
        elements = mean_count(mask, len(rows), rows.device) * max(1, rows.shape[1])
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
