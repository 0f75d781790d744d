"""IBQ: index backpropagation, by which every entry of the codebook gets a gradient from every latent.

Scalable Image Tokenization with Index Backpropagation Quantization. Shi, Luo, Ge, Yuan, Shan, Luo.
arXiv:2412.02692
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..configuration import VisualTokenizerConfig, number
from .base import QuantizerOutput
from .checks import at_least_float32, check_finite
from .codebook import CodebookQuantizer, Initialization, as_grid, as_tokens, errors
from .distributed import mean_count
from .entropy import SMALLEST
from .search import likeliest, tile_rows
from .softmax_entropy import softmax_entropies


class IBQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with index backpropagation.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether latents and entries are scaled to unit length first. Without it, as in the paper's
            code, an entry much longer than others can win every latent of an encoder without normalization
            layers.
        double_quantization_weight: Weight of the squared error between latents and quantized vectors whose
            gradient reaches both, the entries through the soft assignment too.
        commitment_weight: Weight of the loss that draws latents to entries.
        codebook_weight: Weight of the loss that draws entries to latents.
        entropy_weight: Weight of the entropy of one latent's soft assignment less that of the batch's mean
            assignment.
        entropy_temperature: Of the soft assignment in the entropy loss.
        initialization: `"uniform"` in [-1/K, 1/K] as in the paper's code, `"normal"` with a standard
            deviation of D^-0.5, or `"kmeans"` of the first training batches, 8 latents an entry or more.

    Example:
        >>> from vistok import IBQConfig
        >>> IBQConfig(codebook_size=16384, codebook_dim=256).entropy_weight
        0.05
    """

    model_type = "vistok_ibq"

    codebook_size: int = number(1024, at_least=1, below=2**31)
    codebook_dim: int = number(8, at_least=1, below=2**16)
    normalize: bool = True
    double_quantization_weight: float | int = number(1.0, at_least=0)
    commitment_weight: float | int = number(1.0, at_least=0)
    codebook_weight: float | int = number(0.25, at_least=0)
    entropy_weight: float | int = number(0.05, at_least=0)
    entropy_temperature: float | int = number(0.01, above=0)
    initialization: Initialization = "normal"


class IBQ(CodebookQuantizer):
    """Vector quantization by inner products, with a gradient through the soft assignment.

    The token is the entry with the largest inner product `z.e`, which is the nearest with `normalize`, and
    may be any longer one without. The quantized vector is that entry; its gradient is that of
    `softmax(z.e) @ codebook`, and of the entry itself.

    Args:
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether latents and entries are scaled to unit length first.
        double_quantization_weight: Weight of the squared error with a gradient to both sides.
        commitment_weight: Weight of the loss that draws latents to entries.
        codebook_weight: Weight of the loss that draws entries to latents.
        entropy_weight: Weight of the entropy loss.
        entropy_temperature: Of the soft assignment in the entropy loss.
        initialization: `"uniform"`, `"normal"` or `"kmeans"`; see `IBQConfig`.

    Attributes:
        codebook: float32 `(codebook_size, codebook_dim)`.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import IBQ
        >>> quantizer = IBQ(codebook_size=16, codebook_dim=4)
        >>> quantizer(torch.randn(1, 4, 1)).quantized.sum().backward()  # one latent
        >>> int(quantizer.codebook.grad.any(dim=1).sum())  # reaches every entry
        16
    """

    config_class = IBQConfig
    learns_through_quantized = True

    def __init__(
        self,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        normalize: bool = True,
        double_quantization_weight: float = 1.0,
        commitment_weight: float = 1.0,
        codebook_weight: float = 0.25,
        entropy_weight: float = 0.05,
        entropy_temperature: float = 0.01,
        initialization: Initialization = "normal",
    ):
        IBQConfig.check(
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            normalize=normalize,
            double_quantization_weight=double_quantization_weight,
            commitment_weight=commitment_weight,
            codebook_weight=codebook_weight,
            entropy_weight=entropy_weight,
            entropy_temperature=entropy_temperature,
            initialization=initialization,
        )
        super().__init__(codebook_size, codebook_dim, normalize, initialization)
        self.double_quantization_weight = double_quantization_weight
        self.commitment_weight = commitment_weight
        self.codebook_weight = codebook_weight
        self.entropy_weight = entropy_weight
        self.entropy_temperature = entropy_temperature
        self.batch_statistics = entropy_weight > 0 or initialization == "kmeans"
        self.codebook = nn.Parameter(torch.empty(codebook_size, codebook_dim, dtype=torch.float32))
        self.reset_parameters()

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        rows = self.rows(latents)
        if self.training:
            self.fit_first_batches(rows, mask)
        table = self.table().to(latents.dtype)
        tokens = self._likeliest(rows)
        quantized = _IndexBackpropagation.apply(rows, table, tokens)
        losses = {}
        if self.training:
            to_codebook, to_latents = errors(table.index_select(0, tokens), rows, mask)
            if self.double_quantization_weight:
                squared = (quantized - rows).square()
                if mask is not None:
                    squared = squared.masked_fill(~mask.flatten().unsqueeze(1), 0)
                elements = mean_count(mask, len(rows), rows.device) * self.codebook_dim
                losses["double_quantization"] = self.double_quantization_weight * squared.sum() / elements
            if self.commitment_weight:
                losses["commitment"] = self.commitment_weight * to_latents
            if self.codebook_weight and not self.codebook_frozen:
                losses["codebook"] = self.codebook_weight * to_codebook
            if self.entropy_weight:
                sample, codebook = softmax_entropies(
                    rows, table, self.entropy_temperature, distances=False, mask=mask
                )
                losses["entropy"] = self.entropy_weight * (sample - codebook)
        return QuantizerOutput(as_grid(quantized, latents), as_tokens(tokens, latents), losses)

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        return as_tokens(self._likeliest(self.rows(latents)), latents)

    def index(self, quantized: Tensor) -> Tensor:
        """The nearest entries of vectors; their likeliest ones may be longer. See `Quantizer.index`."""
        self._check_latents(quantized)
        check_finite(quantized)
        return as_tokens(self.nearest_tokens(self.rows(at_least_float32(quantized.detach()))), quantized)

    @torch.no_grad()
    def _likeliest(self, rows: Tensor) -> Tensor:
        # Of entries of one length, the likeliest is the nearest.
        return self.nearest_tokens(rows) if self.normalize else likeliest(rows, self.table().to(rows.dtype))


class _IndexBackpropagation(torch.autograd.Function):
    """`(onehot - sg(p) + p) @ table` with `p = softmax(rows @ table.T)`, tile by tile in the backward."""

    @staticmethod
    def forward(ctx, rows: Tensor, table: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(rows, table, tokens)
        return table.index_select(0, tokens)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        rows, table, tokens = ctx.saved_tensors
        with torch.autocast(rows.device.type, enabled=False):  # a backward may run within one
            return *_backpropagated(gradient, rows, table, tokens), None


def _backpropagated(gradient: Tensor, rows: Tensor, table: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    rows_gradient = rows.new_empty(rows.shape)  # contiguous, however the rows lie
    table_gradient = table.new_zeros(table.shape).index_add_(0, tokens, gradient)
    tile = tile_rows(table)
    for start in range(0, len(rows), tile):
        here = slice(start, start + tile)
        p = F.threshold_((rows[here] @ table.t()).softmax(1), SMALLEST, 0.0)
        to_logits = gradient[here] @ table.t()
        to_logits -= (p * to_logits).sum(1, keepdim=True)
        to_logits *= p
        torch.mm(to_logits, table, out=rows_gradient[here])
        table_gradient.addmm_(to_logits.t(), rows[here])
    return rows_gradient, table_gradient
