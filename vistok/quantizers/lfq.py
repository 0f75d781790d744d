"""LFQ: the sign of each channel; the codebook is all corners of a cube, and there is none to look up.

Language Model Beats Diffusion - Tokenizer is Key to Visual Generation. Yu et al. arXiv:2310.05737
"""

from typing import Literal

import torch
from torch import Tensor

from ..configuration import VisualTokenizerConfig, number
from .binary import MOST_BITS, BinaryQuantizer
from .codebook import unit_length


class LFQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with lookup-free quantization.

    Args:
        num_bits: Number of channels, one bit each, at most 62. The codebook has `2^num_bits` entries; the
            paper takes 18. Up to 24, the entropy loss is exact; above, its codebook entropy is the sum over
            groups of at most 12 bits.
        entropy_weight: Weight of the entropy of one latent's soft assignment less `diversity_gamma` times
            that of the batch's mean assignment: it makes choices sure and entries equally used.
        diversity_gamma: Weight of the second of these entropies relative to the first.
        commitment_weight: Weight of the loss that draws latents to entries.
        entropy_temperature: Of the soft assignment: the softmax of twice the inner products over it, which is
            that of the negative squared distances. The 0.01 of vector-quantize-pytorch and Open-MAGVIT2
            leaves latents of length 1 a channel without an entropy gradient; without normalization layers
            most entries are then never used.
        bit_order: Whether the first channel is the most (`"msb"`) or the least (`"lsb"`) significant bit of a
            token. vector-quantize-pytorch has the first, Open-MAGVIT2 the second.
        normalize: Whether latents are scaled to the length of the entries first.

    Example:
        >>> from vistok import LFQConfig
        >>> LFQConfig(num_bits=18, image_size=64).entropy_temperature
        0.1
    """

    model_type = "vistok_lfq"

    num_bits: int = number(10, at_least=1, below=MOST_BITS + 1)
    entropy_weight: float | int = number(0.1, at_least=0)
    diversity_gamma: float | int = number(1.0, at_least=0)
    commitment_weight: float | int = number(0.25, at_least=0)
    entropy_temperature: float | int = number(0.1, above=0)
    bit_order: Literal["msb", "lsb"] = "msb"
    normalize: bool = False


class LFQ(BinaryQuantizer):
    """Lookup-free quantization: entries of 1 and -1, whose gradient passes to the latents unchanged.

    The entropies are exact over all `2^num_bits` entries, up to 24 bits, without a logarithm's epsilon. The
    commitment loss is the mean over every element of `(latents - quantized)^2`. No parameters.

    As residual stages, each quantizes what is left of the latents' `2 tanh(z / 2)` at twice the scale.

    Args:
        num_bits: Number of channels, one bit each.
        entropy_weight: Weight of the entropy loss.
        diversity_gamma: Weight of the batch's entropy in it; see `LFQConfig`.
        commitment_weight: Weight of the loss that draws latents to entries.
        entropy_temperature: Of the soft assignment in the entropy loss.
        bit_order: `"msb"` or `"lsb"`; see `LFQConfig`.
        normalize: Whether latents are scaled to the length of the entries first.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import LFQ
        >>> out = LFQ(num_bits=4)(torch.tensor([[0.3, -2.0, 0.0, 1.0]]))
        >>> out.quantized.tolist(), out.tokens.tolist()
        ([[1.0, -1.0, -1.0, 1.0]], [9])
    """

    config_class = LFQConfig

    def __init__(
        self,
        num_bits: int = 10,
        entropy_weight: float = 0.1,
        diversity_gamma: float = 1.0,
        commitment_weight: float = 0.25,
        entropy_temperature: float = 0.1,
        bit_order: Literal["msb", "lsb"] = "msb",
        normalize: bool = False,
    ):
        LFQConfig.check(
            num_bits=num_bits,
            entropy_weight=entropy_weight,
            diversity_gamma=diversity_gamma,
            commitment_weight=commitment_weight,
            entropy_temperature=entropy_temperature,
            bit_order=bit_order,
            normalize=normalize,
        )
        super().__init__(
            num_bits,
            scale=1.0,
            group_size=None,
            entropy_weight=entropy_weight,
            diversity_gamma=diversity_gamma,
            commitment_weight=commitment_weight,
            entropy_temperature=entropy_temperature,
            bit_order=bit_order,
        )
        self.normalize = normalize

    def compared(self, latents: Tensor) -> Tensor:
        """See `BinaryQuantizer`."""
        return unit_length(latents) * self.num_bits**0.5 if self.normalize else latents

    def bounded(self, latents: Tensor) -> Tensor:
        """The latents within (-2, 2), where the entries of all stages add up to. See `Quantizer.bounded`."""
        return 2 * torch.tanh(self.compared(latents) / 2)

    def unbounded(self, values: Tensor) -> Tensor:
        """See `Quantizer.unbounded`; with `normalize`, up to the length, which a stage does not see."""
        return 2 * torch.atanh((values / 2).clamp(-1 + 1e-6, 1 - 1e-6))
