"""VQ: the nearest entry of a learned codebook, drawn to the latents by a loss.

Neural Discrete Representation Learning. van den Oord, Vinyals, Kavukcuoglu. arXiv:1711.00937
With `normalize`, entries and latents of unit length. Vector-quantized Image Modeling with Improved VQGAN. Yu
et al. arXiv:2110.04627
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ..configuration import VisualTokenizerConfig, number
from .base import QuantizerOutput, straight_through
from .codebook import CodebookQuantizer, Initialization, as_grid, as_rows, as_tokens, errors
from .rotation import rotated
from .softmax_entropy import softmax_entropies


class VQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with a learned codebook.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether latents and entries are scaled to unit length first.
        normalize_losses: Whether the losses and the gradient take the normalized latents (as LlamaGen and
            TiTok do) or the latents as they come (as visual-tokenizer-pytorch does). Nothing without
            `normalize`.
        codebook_weight: Weight of the loss that draws entries to latents.
        commitment_weight: Weight of the loss that draws latents to entries. Papers differ in which of the two
            carries their beta: taming-transformers' default is `codebook_weight=0.25, commitment_weight=1.0`.
        entropy_weight: Weight of the entropy of one latent's soft assignment less that of the batch's mean
            assignment: it makes choices sure and entries equally used.
        entropy_temperature: Of the soft assignment, the softmax of the negative squared distances over it.
        initialization: `"uniform"` in [-1/K, 1/K], `"normal"` with a standard deviation of D^-0.5, or
            `"kmeans"` of the first training batches, 8 latents an entry or more.
        gradient: How the gradient of the entries reaches the latents: unchanged (`"straight_through"`), or
            turned and scaled (`"rotation"`, arXiv:2410.06424).

    Example:
        >>> from vistok import VQConfig
        >>> VQConfig(codebook_size=16384, codebook_dim=8, normalize=True).commitment_weight
        0.25
    """

    model_type = "vistok_vq"

    codebook_size: int = number(1024, at_least=1, below=2**31)
    codebook_dim: int = number(8, at_least=1, below=2**16)
    normalize: bool = False
    normalize_losses: bool = True
    codebook_weight: float | int = number(1.0, at_least=0)
    commitment_weight: float | int = number(0.25, at_least=0)
    entropy_weight: float | int = number(0.0, at_least=0)
    entropy_temperature: float | int = number(0.01, above=0)
    initialization: Initialization = "uniform"
    gradient: Literal["straight_through", "rotation"] = "straight_through"


class VQ(CodebookQuantizer):
    """Vector quantization with a codebook loss and a commitment loss.

    Both losses are means over every element of `(quantized - latents)^2`; their gradient reaches the codebook
    and the latents respectively.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether latents and entries are scaled to unit length first.
        normalize_losses: Whether the losses and the gradient take the normalized latents; see `VQConfig`.
        codebook_weight: Weight of the loss that draws entries to latents.
        commitment_weight: Weight of the loss that draws latents to entries.
        entropy_weight: Weight of the entropy loss.
        entropy_temperature: Of the soft assignment in the entropy loss.
        initialization: `"uniform"`, `"normal"` or `"kmeans"`; see `VQConfig`.
        gradient: `"straight_through"` or `"rotation"`; see `VQConfig`.

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
        normalize_losses: bool = True,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        entropy_weight: float = 0.0,
        entropy_temperature: float = 0.01,
        initialization: Initialization = "uniform",
        gradient: Literal["straight_through", "rotation"] = "straight_through",
    ):
        VQConfig.check(
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            normalize=normalize,
            normalize_losses=normalize_losses,
            codebook_weight=codebook_weight,
            commitment_weight=commitment_weight,
            entropy_weight=entropy_weight,
            entropy_temperature=entropy_temperature,
            initialization=initialization,
            gradient=gradient,
        )
        super().__init__(codebook_size, codebook_dim, normalize, initialization)
        self.normalize_losses = normalize_losses
        self.codebook_weight = codebook_weight
        self.commitment_weight = commitment_weight
        self.entropy_weight = entropy_weight
        self.entropy_temperature = entropy_temperature
        self.gradient = gradient
        self.batch_statistics = entropy_weight > 0 or initialization == "kmeans"
        self.codebook = nn.Parameter(torch.empty(codebook_size, codebook_dim, dtype=torch.float32))
        self.reset_parameters()

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        compared = self.rows(latents)
        if self.training:
            self.fit_first_batches(compared, mask)
        tokens = self.nearest_tokens(compared)
        quantized = self.vectors(tokens).to(latents.dtype)
        rows = compared if self.normalize_losses else as_rows(latents)
        losses = {}
        if self.training:
            to_codebook, to_latents = errors(quantized, rows, mask)
            if self.codebook_weight and not self.codebook_frozen:
                losses["codebook"] = self.codebook_weight * to_codebook
            if self.commitment_weight:
                losses["commitment"] = self.commitment_weight * to_latents
            if self.entropy_weight:
                losses["entropy"] = self.entropy_weight * self._entropy(compared, mask)
        through = rotated if self.gradient == "rotation" else straight_through
        return QuantizerOutput(
            as_grid(through(rows, quantized.detach()), latents), as_tokens(tokens, latents), losses
        )

    def _entropy(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        sample, codebook = softmax_entropies(
            rows, self.table().to(rows.dtype), self.entropy_temperature, distances=True, mask=mask
        )
        return sample - codebook
