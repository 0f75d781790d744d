"""SimVQ: a frozen random codebook, seen through one learned linear map that moves all entries at once.

Addressing Representation Collapse in Vector Quantized Models with One Linear Layer. Zhu, Li, Xin, Xu.
arXiv:2411.02038
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from ..configuration import VisualTokenizerConfig, number
from .base import QuantizerOutput, straight_through
from .codebook import CodebookQuantizer, as_grid, as_tokens, errors


class SimVQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with a frozen codebook and a learned linear map.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        codebook_weight: Weight of the loss that draws entries to latents; its gradient reaches the map.
        commitment_weight: Weight of the loss that draws latents to entries.

    Example:
        >>> from vistok import SimVQConfig
        >>> SimVQConfig(codebook_size=65536, codebook_dim=128).codebook_dim
        128
    """

    model_type = "vistok_simvq"

    codebook_size: int = number(1024, at_least=1, below=2**31)
    codebook_dim: int = number(8, at_least=1, below=2**16)
    codebook_weight: float | int = number(1.0, at_least=0)
    commitment_weight: float | int = number(0.25, at_least=0)


class SimVQ(CodebookQuantizer):
    """Vector quantization whose entries are a linear map of frozen ones: a step moves them together.

    Only the chosen entries are mapped with a gradient, which is exact: the others get none.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        codebook_weight: Weight of the loss that draws entries to latents.
        commitment_weight: Weight of the loss that draws latents to entries.

    Attributes:
        codebook: float32 `(codebook_size, codebook_dim)`, a buffer that nothing changes.
        projection_weight: float32 `(codebook_dim, codebook_dim)`; an entry is
            `codebook[token] @ projection_weight.T + projection_bias`.
        projection_bias: float32 `(codebook_dim,)`.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import SimVQ
        >>> quantizer = SimVQ(codebook_size=16, codebook_dim=4)
        >>> quantizer(torch.randn(2, 4, 8, 8)).loss.backward()
        >>> [name for name, parameter in quantizer.named_parameters() if parameter.grad.any()]
        ['projection_weight', 'projection_bias']
    """

    config_class = SimVQConfig

    def __init__(
        self,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
    ):
        SimVQConfig.check(
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            codebook_weight=codebook_weight,
            commitment_weight=commitment_weight,
        )
        super().__init__(codebook_size, codebook_dim, initialization="normal")
        self.codebook_weight = codebook_weight
        self.commitment_weight = commitment_weight
        self.register_buffer("codebook", torch.empty(codebook_size, codebook_dim, dtype=torch.float32))
        self.projection_weight = nn.Parameter(torch.empty(codebook_dim, codebook_dim, dtype=torch.float32))
        self.projection_bias = nn.Parameter(torch.empty(codebook_dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the entries from N(0, 1/D) and the map as `torch.nn.Linear` does."""
        super().reset_parameters()
        bound = self.codebook_dim**-0.5
        init.uniform_(self.projection_weight, -bound, bound)
        init.uniform_(self.projection_bias, -bound, bound)

    def table(self) -> Tensor:
        """See `CodebookQuantizer`."""
        return self._mapped(self.codebook)

    def vectors(self, tokens: Tensor) -> Tensor:
        """See `CodebookQuantizer`."""
        return self._mapped(self.codebook.index_select(0, tokens))

    def _mapped(self, entries: Tensor) -> Tensor:
        return F.linear(entries, self.projection_weight, self.projection_bias)

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        rows = self.rows(latents)
        tokens = self.nearest_tokens(rows)
        quantized = self.vectors(tokens).to(latents.dtype)
        losses = {}
        if self.training:
            to_codebook, to_latents = errors(quantized, rows, mask)
            if self.codebook_weight and not self.codebook_frozen:
                losses["codebook"] = self.codebook_weight * to_codebook
            if self.commitment_weight:
                losses["commitment"] = self.commitment_weight * to_latents
        return QuantizerOutput(
            as_grid(straight_through(rows, quantized.detach()), latents), as_tokens(tokens, latents), losses
        )
