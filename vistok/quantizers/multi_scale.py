"""Multi-scale residual quantization: coarse token maps first, each finer one adds what is still missing.

Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction. Tian, Jiang, Yuan, Peng,
Wang. arXiv:2404.02905
"""

import itertools
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from ..configuration import VisualTokenizerConfig, number, numbers
from .base import QuantizerOutput, straight_through
from .codebook import CodebookQuantizer, as_rows, errors

VAR_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # of the published tokenizer, for pictures of 256 x 256


class MultiScaleVQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer whose tokens are maps of several scales, one after another.

    Args:
        scales: Side lengths of the square token maps, coarse to fine. The last is that of the latents' grid,
            and no other grid will do: with a network of downsample factor 16, scales that end at 16 are for
            pictures of 256 x 256.
        codebook_size: Number of entries; all scales share them.
        codebook_dim: Channels of an entry.
        normalize: Whether a latent takes the entry at the smallest angle and not the nearest. Other than with
            `VQConfig`, the quantized vector is made of the entries as they are, not of unit length.
        num_phis: Number of the convolutions that smooth what a scale adds. Each scale takes the one at about
            its own place among the scales: 1 is shared by all, as many as scales is one each.
        phi_ratio: Share of the convolution in what a scale adds, the rest is the upsampled entries; 0 for no
            convolutions.
        codebook_weight: Weight of the loss that draws entries and convolutions to latents.
        commitment_weight: Weight of the loss that draws latents to the quantized vectors.
        initialization: `"uniform"` in [-1/K, 1/K] or `"normal"` with a standard deviation of D^-0.5.

    Example:
        >>> from vistok import MultiScaleVQConfig, StridedCNNConfig, VQModelHF
        >>> network = StridedCNNConfig(hidden_channels=8)  # 8 pixels per place: a grid of 4 x 4
        >>> VQModelHF(MultiScaleVQConfig(scales=[1, 2, 4], image_size=32, network=network)).token_shape
        (21,)
    """

    model_type = "vistok_multi_scale_vq"

    scales: list[int] | tuple[int, ...] = numbers(VAR_SCALES, at_least=1, below=2**10)
    codebook_size: int = number(4096, at_least=1, below=2**31)
    codebook_dim: int = number(32, at_least=1, below=2**16)
    normalize: bool = False
    num_phis: int = number(4, at_least=1, below=2**10)
    phi_ratio: float | int = number(0.5, at_least=0, at_most=1)
    codebook_weight: float | int = number(1.0, at_least=0)
    commitment_weight: float | int = number(0.25, at_least=0)
    initialization: Literal["uniform", "normal"] = "uniform"

    def validate_single_codebook(self):
        """The scales are residual stages already."""
        if self.num_codebooks != 1:
            raise ValueError(f"num_codebooks must be 1 with several scales, got {self.num_codebooks}")


class MultiScaleVQ(CodebookQuantizer):
    """Vector quantization of a pyramid: each scale quantizes what the coarser ones left over.

    What is left of the latents is averaged down to the scale's map, whose nearest entries are upsampled
    (bicubic) to the whole grid and smoothed: `phi(h) = (1 - phi_ratio) * h + phi_ratio * conv3x3(h)`. The
    quantized vectors are the sum over the scales.

    The tokens are one sequence, int64 `(B, sum of side^2)`: the scales one after another, each row by row.
    The first scales alone decode too, to a coarser picture.

    The losses are means of `(quantized - latents)^2` over every element, after each scale and then over the
    scales. The codebook loss reaches the entries and the convolutions, the commitment loss the latents. The
    gradient of the quantized vectors reaches the latents unchanged and nothing else: the convolutions learn
    by the codebook loss alone, as in VAR.

    A mask keeps padding out of the losses. The coarser maps average over its latents as zeros, so that the
    tokens are those that `encode` gives of latents with zeros there.

    Args:
        scales: Side lengths of the token maps, coarse to fine; the last is that of the latents' grid.
        codebook_size: Number of entries.
        codebook_dim: Channels of an entry.
        normalize: Whether entries are chosen by angle; see `MultiScaleVQConfig`.
        num_phis: Number of convolutions.
        phi_ratio: Share of the convolution in what a scale adds.
        codebook_weight: Weight of the loss that draws entries and convolutions to latents.
        commitment_weight: Weight of the loss that draws latents to the quantized vectors.
        initialization: `"uniform"` or `"normal"`; see `MultiScaleVQConfig`.

    Attributes:
        codebook: float32 `(codebook_size, codebook_dim)`.
        phi_kernels: float32 `(num_phis, codebook_dim, codebook_dim, 3, 3)`; None where `phi_ratio` is 0.
        phi_biases: float32 `(num_phis, codebook_dim)`; None where `phi_ratio` is 0.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import MultiScaleVQ
        >>> quantizer = MultiScaleVQ(scales=[1, 2, 4], codebook_size=16, codebook_dim=8)
        >>> tokens = quantizer.encode(torch.randn(2, 8, 4, 4))
        >>> tuple(tokens.shape), tuple(quantizer.lookup(tokens[:, : 1 + 4]).shape)  # two of three scales
        ((2, 21), (2, 8, 4, 4))
    """

    config_class = MultiScaleVQConfig

    def __init__(
        self,
        scales: list[int] | tuple[int, ...] = VAR_SCALES,
        codebook_size: int = 4096,
        codebook_dim: int = 32,
        normalize: bool = False,
        num_phis: int = 4,
        phi_ratio: float = 0.5,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
        initialization: Literal["uniform", "normal"] = "uniform",
    ):
        MultiScaleVQConfig.check(
            scales=scales,
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            normalize=normalize,
            num_phis=num_phis,
            phi_ratio=phi_ratio,
            codebook_weight=codebook_weight,
            commitment_weight=commitment_weight,
            initialization=initialization,
        )
        super().__init__(codebook_size, codebook_dim, normalize, initialization)
        self.scales = tuple(scales)
        self.phi_ratio = phi_ratio
        self.codebook_weight = codebook_weight
        self.commitment_weight = commitment_weight
        self.codebook = nn.Parameter(torch.empty(codebook_size, codebook_dim, dtype=torch.float32))
        # One tensor for all: few scales may leave a convolution out, and DistributedDataParallel needs a
        # gradient of each parameter.
        self.phi_kernels = self.phi_biases = None
        if phi_ratio:
            kernels = torch.empty(num_phis, codebook_dim, codebook_dim, 3, 3, dtype=torch.float32)
            self.phi_kernels = nn.Parameter(kernels)
            self.phi_biases = nn.Parameter(torch.empty(num_phis, codebook_dim, dtype=torch.float32))
        self._phi_of_scale = _nearest_ticks(len(scales), num_phis)
        self._ends = tuple(itertools.accumulate(side * side for side in scales))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the entries, and the convolutions as `nn.Conv2d` draws its own."""
        super().reset_parameters()
        if self.phi_kernels is not None:
            bound = (9 * self.codebook_dim) ** -0.5
            init.uniform_(self.phi_kernels, -bound, bound)
            init.uniform_(self.phi_biases, -bound, bound)

    def token_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """See `Quantizer`."""
        self.check_grid(grid)
        return self._ends[-1:]

    def check_grid(self, grid: tuple[int, ...]) -> None:
        """See `Quantizer`."""
        side = self.scales[-1]
        if tuple(grid) != (side, side):
            raise ValueError(
                f"Expected a grid of {side} x {side}, the last of the scales {list(self.scales)}, got "
                f"{' x '.join(map(str, grid)) or 'none'}; other grids need other scales"
            )

    def vectors(self, tokens: Tensor) -> Tensor:
        """The entries of tokens `(N,)`, as they are: `(N, codebook_dim)`."""
        return self.codebook.index_select(0, tokens)

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        tokens, sums = self._code(latents)
        losses = {}
        if self.training:
            count = len(self.scales)
            every = None if mask is None else mask.flatten().repeat(count)
            to_codebook, to_latents = errors(
                as_rows(torch.cat(sums)), as_rows(latents).repeat(count, 1), every
            )
            if self.codebook_weight and not self.codebook_frozen:
                losses["codebook"] = self.codebook_weight * to_codebook
            if self.commitment_weight:
                losses["commitment"] = self.commitment_weight * to_latents
        return QuantizerOutput(straight_through(latents, sums[-1].detach()), tokens, losses)

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        return self._code(latents)[0]

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        quantized, start = 0, 0
        for place, (side, end) in enumerate(zip(self.scales, self._ends, strict=True)):
            if end > tokens.shape[1]:
                break
            quantized = quantized + self._part(tokens[:, start:end].view(-1, side, side), place)
            start = end
        return quantized

    def lookup(self, tokens: Tensor) -> Tensor:
        """The vectors that tokens stand for, of all scales or of the first ones.

        Args:
            tokens: int `(B, n)` in `[0, codebook_size)`, where n is the number of tokens of the first scales.

        Returns:
            float32 `(B, codebook_dim, side, side)`, on the grid of the last scale.

        Raises:
            ValueError: As `Quantizer.lookup`, and where the sequence does not end with a scale.
        """
        return super().lookup(tokens)

    def index(self, quantized: Tensor) -> Tensor:
        """The greedy tokens of vectors: each scale takes its nearest. See `Quantizer.index`.

        It does not invert `lookup`: other tokens may come as near.
        """
        return super().index(quantized)

    def _code(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The tokens, and the quantized vectors after each scale with their gradient to the state."""
        left = latents.detach().contiguous()
        tokens, sums = [], []
        for place, side in enumerate(self.scales):
            pooled = left if side == left.shape[-1] else F.interpolate(left, (side, side), mode="area")
            tokens.append(self.nearest_tokens(self.rows(pooled)).view(-1, side, side))
            part = self._part(tokens[-1], place).to(left.dtype)
            sums.append(sums[-1] + part if sums else part)
            left = left - part.detach()
        return torch.cat([one.flatten(1) for one in tokens], dim=1), sums

    def _part(self, tokens: Tensor, place: int) -> Tensor:
        """What the tokens `(B, side, side)` of a scale add: `(B, codebook_dim, *grid)`."""
        entries = self.vectors(tokens.flatten()).view(*tokens.shape, self.codebook_dim)
        part, grid = entries.movedim(-1, 1).contiguous(), (self.scales[-1], self.scales[-1])
        if part.shape[2:] != grid:
            part = F.interpolate(part, grid, mode="bicubic")
        if self.phi_kernels is None:
            return part
        phi = self._phi_of_scale[place]
        smooth = _Convolution.apply(part, self.phi_kernels[phi], self.phi_biases[phi])
        return (1 - self.phi_ratio) * part + self.phi_ratio * smooth

    def _check_tokens(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or tokens.shape[1] not in self._ends:
            raise ValueError(
                f"Expected tokens of shape (B, {self._ends[-1]}), or (B, n) of the first scales, n one of "
                f"{', '.join(map(str, self._ends))}, got {tuple(tokens.shape)}"
            )
        super()._check_tokens(tokens)


def _nearest_ticks(scales: int, phis: int) -> list[int]:
    """Which convolution each scale takes: the one whose tick lies nearest to its place in [0, 1].

    VAR's ticks are the middles of equal parts; but four of them lie further out.
    """
    margin = 1 / 3 / phis if phis == 4 else 1 / 2 / phis
    ticks = np.linspace(margin, 1 - margin, phis)  # its rounding decides between two as near
    return [int(np.abs(ticks - place / max(1, scales - 1)).argmin()) for place in range(scales)]


class _Convolution(torch.autograd.Function):
    """A 3x3 convolution, padded by one, as a matrix product: cuDNN rounds to TF32, tokens change."""

    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        return (kernel.flatten(1) @ F.unfold(x, 3, padding=1) + bias.unsqueeze(1)).view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        x, kernel = ctx.saved_tensors
        gradient = gradient.flatten(2)
        with torch.autocast(x.device.type, enabled=False):  # a backward may run within one
            to_x = F.fold(kernel.flatten(1).t() @ gradient, x.shape[2:], 3, padding=1)
            to_kernel = (gradient @ F.unfold(x, 3, padding=1).transpose(1, 2)).sum(0).view(kernel.shape)
        return to_x, to_kernel, gradient.sum((0, 2))
