"""OptVQ: in training, optimal transport shares the latents out evenly among the entries.

Preventing Local Pitfalls in Vector Quantization via Optimal Transport. Zhang et al. arXiv:2412.15195
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from ..configuration import VisualTokenizerConfig, number
from .base import QuantizerOutput, straight_through
from .checks import at_least_float32, check_finite, checked_mask
from .codebook import CodebookQuantizer, as_grid, as_rows, as_tokens, errors
from .distance_cross_entropy import distance_cross_entropy
from .sinkhorn import sinkhorn_tokens


class OptVQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer whose codebook learns through optimal transport.

    The paper's heads are `num_codebooks=4, shared_codebook=True` with `codebook_size=16384, codebook_dim=16`.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        sinkhorn_iterations: How often the transport plan is balanced.
        sinkhorn_epsilon: Inverse temperature of the plan: the larger, the nearer to the nearest entry.
        cost_normalization: What distances are divided by first: their standard deviation over the batch
            (`"all"`), `sqrt(codebook_dim)` (`"dim"`) or nothing (`"none"`).
        loss: Mean squared difference, mean absolute difference, or the cross-entropy of the tokens with minus
            the distances as logits.
        codebook_weight: Weight of the loss that draws entries to latents; not used with `loss="ce"`.
        commitment_weight: Weight of the loss that draws latents to entries; with `loss="ce"`, of the one loss
            that moves both.
        projection: Whether a learned linear layer maps the codebook to the entries.
        train_assignment: `"sinkhorn"`, or `"nearest"` for the plain VQ that OptVQ is compared with.
        eval_assignment: `"nearest"`, or `"sinkhorn"`: then the tokens of a picture depend on the others in
            its batch, and cannot be made again without them.
        sinkhorn_byte_budget: The largest matrix of latents times entries to keep, in bytes; above it, slower
            and without the matrix.

    Example:
        >>> from vistok.quantizers import OptVQConfig
        >>> OptVQConfig(codebook_size=16384, codebook_dim=16, num_codebooks=4).codebook_weight
        0.25
    """

    model_type = "vistok_optvq"

    codebook_size: int = number(1024, at_least=1, below=2**31)
    codebook_dim: int = number(8, at_least=1, below=2**16)
    sinkhorn_iterations: int = number(5, at_least=1)
    sinkhorn_epsilon: float | int = number(10.0, above=0)
    cost_normalization: Literal["all", "dim", "none"] = "all"
    loss: Literal["l2", "l1", "ce"] = "l2"
    codebook_weight: float | int = number(0.25, at_least=0)
    commitment_weight: float | int = number(1.0, at_least=0)
    projection: bool = True
    train_assignment: Literal["sinkhorn", "nearest"] = "sinkhorn"
    eval_assignment: Literal["nearest", "sinkhorn"] = "nearest"
    sinkhorn_byte_budget: int = number(2**29, at_least=0)


class OptVQ(CodebookQuantizer):
    """Vector quantization whose training tokens are those of Sinkhorn's transport plan.

    The plan joins all latents of the batch, over all ranks, with all entries, and gives every entry the same
    mass, so that entries that are nobody's nearest learn too. In evaluation the token is the nearest entry,
    unless `eval_assignment` says otherwise. The gradient is straight-through. Losses `l2` and `l1` are means
    over every element; `ce` is one loss, `cross_entropy`, whose gradient reaches latents and entries.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        sinkhorn_iterations: How often the transport plan is balanced.
        sinkhorn_epsilon: Inverse temperature of the plan.
        cost_normalization: What distances are divided by first: `"all"`, `"dim"` or `"none"`.
        loss: `"l2"`, `"l1"` or `"ce"`.
        codebook_weight: Weight of the loss that draws entries to latents; not used with `"ce"`.
        commitment_weight: Weight of the loss that draws latents to entries; with `"ce"`, of the one loss.
        projection: Whether a learned linear layer maps the codebook to the entries.
        train_assignment: `"sinkhorn"` or `"nearest"`.
        eval_assignment: `"nearest"`, or `"sinkhorn"`: then tokens depend on the rest of the batch.
        sinkhorn_byte_budget: The largest matrix of latents times entries to keep, in bytes.

    Attributes:
        codebook: float32 `(codebook_size, codebook_dim)`.
        projection_weight: float32 `(codebook_dim, codebook_dim)`, with `projection`.
        projection_bias: float32 `(codebook_dim,)`, with `projection`.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import OptVQ
        >>> out = OptVQ(codebook_size=16, codebook_dim=4)(torch.randn(2, 4, 8, 8))
        >>> tuple(out.tokens.shape), sorted(out.losses)
        ((2, 8, 8), ['codebook', 'commitment'])
    """

    config_class = OptVQConfig

    def __init__(
        self,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        sinkhorn_iterations: int = 5,
        sinkhorn_epsilon: float = 10.0,
        cost_normalization: Literal["all", "dim", "none"] = "all",
        loss: Literal["l2", "l1", "ce"] = "l2",
        codebook_weight: float = 0.25,
        commitment_weight: float = 1.0,
        projection: bool = True,
        train_assignment: Literal["sinkhorn", "nearest"] = "sinkhorn",
        eval_assignment: Literal["nearest", "sinkhorn"] = "nearest",
        sinkhorn_byte_budget: int = 2**29,
    ):
        OptVQConfig.check(
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            sinkhorn_iterations=sinkhorn_iterations,
            sinkhorn_epsilon=sinkhorn_epsilon,
            cost_normalization=cost_normalization,
            loss=loss,
            codebook_weight=codebook_weight,
            commitment_weight=commitment_weight,
            projection=projection,
            train_assignment=train_assignment,
            eval_assignment=eval_assignment,
            sinkhorn_byte_budget=sinkhorn_byte_budget,
        )
        super().__init__(codebook_size, codebook_dim, initialization="normal")
        self.sinkhorn_iterations = sinkhorn_iterations
        self.sinkhorn_epsilon = sinkhorn_epsilon
        self.cost_normalization = cost_normalization
        self.loss = loss
        self.codebook_weight = codebook_weight
        self.commitment_weight = commitment_weight
        self.projection = projection
        self.train_assignment = train_assignment
        self.eval_assignment = eval_assignment
        self.batch_statistics = train_assignment == "sinkhorn"
        self.sinkhorn_byte_budget = sinkhorn_byte_budget
        self.codebook = nn.Parameter(torch.empty(codebook_size, codebook_dim, dtype=torch.float32))
        if projection:
            self.projection_weight = nn.Parameter(
                torch.empty(codebook_dim, codebook_dim, dtype=torch.float32)
            )
            self.projection_bias = nn.Parameter(torch.empty(codebook_dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the codebook from N(0, 1), and a projection that about keeps its scale."""
        init.normal_(self.codebook)
        if self.projection:
            bound = self.codebook_dim**-0.5
            init.normal_(self.projection_weight, std=bound)
            init.uniform_(self.projection_bias, -bound, bound)

    def table(self) -> Tensor:
        """See `CodebookQuantizer`."""
        return self._projected(self.codebook)

    def vectors(self, tokens: Tensor) -> Tensor:
        """See `CodebookQuantizer`."""
        return self._projected(self.codebook.index_select(0, tokens))

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        rows = self.rows(latents)
        assignment = self.train_assignment if self.training else self.eval_assignment
        transported = assignment == "sinkhorn"
        tokens = self._transport_tokens(rows, mask) if transported else self.nearest_tokens(rows)
        vectors = self.vectors(tokens).to(rows.dtype)
        quantized = as_grid(straight_through(rows, vectors), latents)
        losses = self._losses(rows, vectors, tokens, mask) if self.training else {}
        return QuantizerOutput(quantized, as_tokens(tokens, latents), losses)

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        if self.eval_assignment == "sinkhorn":
            return as_tokens(self._transport_tokens(self.rows(latents)), latents)
        return super().assign(latents)

    @torch.no_grad()
    def index(self, quantized: Tensor) -> Tensor:
        """The tokens of quantized vectors: the nearest entries, whatever `eval_assignment` is.

        Args:
            quantized: float `(B, quantized_dim, *grid)`.

        Returns:
            int64 `(B, *grid)`.
        """
        self._check_latents(quantized)
        check_finite(quantized)
        with torch.autocast(quantized.device.type, enabled=False):
            return super().assign(at_least_float32(quantized))

    def other_assignments(self, latents: Tensor) -> dict[str, Tensor]:
        """The nearest entries, or those of the transport plan: whichever `encode` does not take."""
        if self.eval_assignment == "sinkhorn":
            return {"nearest entry": self.index(latents)}
        return {"optimal transport": self.transport(latents)}

    @torch.no_grad()
    def transport(self, latents: Tensor, mask: Tensor | None = None) -> Tensor:
        """The tokens of the transport plan, as in training; to be compared with those of `encode`.

        Args:
            latents: float `(B, latent_dim, *grid)`, finite.
            mask: bool `(B, *grid)`, False at places that take no part; their tokens are the nearest of zeros.

        Returns:
            int64 `(B, *grid)`; they depend on the batch as a whole.

        Raises:
            ValueError: The latents or the mask have the wrong shape or dtype, or latents are not finite.
        """
        self._check_latents(latents)
        if mask is not None:
            latents = latents.masked_fill(~checked_mask(mask, latents).unsqueeze(1), 0)  # as `forward` does
        check_finite(latents)
        with torch.autocast(latents.device.type, enabled=False):
            return as_tokens(self._transport_tokens(as_rows(at_least_float32(latents)), mask), latents)

    def _projected(self, entries: Tensor) -> Tensor:
        return F.linear(entries, self.projection_weight, self.projection_bias) if self.projection else entries

    @torch.no_grad()
    def _transport_tokens(self, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        return sinkhorn_tokens(
            rows,
            self.table(),
            iterations=self.sinkhorn_iterations,
            epsilon=self.sinkhorn_epsilon,
            cost_normalization=self.cost_normalization,
            mask=mask,
            byte_budget=self.sinkhorn_byte_budget,
        )

    def _losses(
        self, rows: Tensor, vectors: Tensor, tokens: Tensor, mask: Tensor | None
    ) -> dict[str, Tensor]:
        if self.loss == "ce":
            if not self.commitment_weight:
                return {}
            error = distance_cross_entropy(rows, self.table().to(rows.dtype), tokens, mask)
            return {"cross_entropy": self.commitment_weight * error}
        to_entries, to_latents = errors(vectors, rows, mask, self.loss)
        losses = {}
        if self.codebook_weight and not self.codebook_frozen:
            losses["codebook"] = self.codebook_weight * to_entries
        if self.commitment_weight:
            losses["commitment"] = self.commitment_weight * to_latents
        return losses
