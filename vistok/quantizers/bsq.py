"""BSQ: latents of unit length, and the sign of each channel; the codebook is a cube within the sphere.

Image and Video Tokenization with Binary Spherical Quantization. Zhao, Xiong, Krähenbühl. arXiv:2406.07548
"""

from typing import Literal

from huggingface_hub.dataclasses import validated_field
from torch import Tensor

from ..configuration import VisualTokenizerConfig, number
from .binary import MOST_BITS, BinaryQuantizer, check_group_size
from .codebook import unit_length


def _check_group_size(group_size: int | None) -> None:
    if group_size is not None and group_size < 1:
        raise ValueError(f"expected a number of at least 1 or None, got {group_size!r}")


class BSQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with binary spherical quantization.

    Args:
        num_bits: Number of channels, one bit each, at most 62. The codebook has `2^num_bits` entries; the
            paper takes 18 and 36.
        group_size: Number of consecutive channels whose patterns the codebook entropy counts together; it
            divides `num_bits`, is at most 24, and the entropies of the groups are summed. None counts all
            entries, exactly, up to 24 bits; with more bits it takes groups of at most 12. Groups overestimate
            the entropy, the more the smaller they are; the paper takes 9, and 1 is bsq-vit's `"analytical"`
            form.
        entropy_weight: Weight of the entropy of one latent's soft assignment less `diversity_gamma` times
            that of the batch's mean assignment: it makes choices sure and entries equally used.
        diversity_gamma: Weight of the second of these entropies relative to the first.
        commitment_weight: Weight of the loss that draws latents to entries.
        entropy_temperature: Of the soft assignment, the softmax of twice the inner products over it.
        bit_order: Whether the first channel is the most (`"msb"`) or the least (`"lsb"`) significant bit of a
            token. bsq-vit has the first.

    Example:
        >>> from vistok import BSQConfig
        >>> BSQConfig(num_bits=36, group_size=9, image_size=64).num_bits
        36
    """

    model_type = "vistok_bsq"

    num_bits: int = number(18, at_least=1, below=MOST_BITS + 1)
    group_size: int | None = validated_field(_check_group_size, default=None)
    entropy_weight: float | int = number(0.1, at_least=0)
    diversity_gamma: float | int = number(1.0, at_least=0)
    commitment_weight: float | int = number(0.25, at_least=0)
    entropy_temperature: float | int = number(0.01, above=0)
    bit_order: Literal["msb", "lsb"] = "msb"

    def validate_groups(self):
        """Groups are of equal size, and their patterns are counted."""
        check_group_size(self.num_bits, self.group_size)


class BSQ(BinaryQuantizer):
    """Binary spherical quantization: `u = z / |z|` becomes `sign(u) / sqrt(num_bits)`, of unit length too.

    The gradient passes to `u` unchanged and on through the normalization. The entropies are exact within each
    group. The commitment loss is the mean over places of the squared distance between `u` and its entry. No
    parameters.

    As residual stages, each quantizes what is left of `u`, clipped at twice the entries, at twice the scale.

    Args:
        num_bits: Number of channels, one bit each.
        group_size: Number of channels that the codebook entropy counts together; see `BSQConfig`.
        entropy_weight: Weight of the entropy loss.
        diversity_gamma: Weight of the batch's entropy in it; see `BSQConfig`.
        commitment_weight: Weight of the loss that draws latents to entries.
        entropy_temperature: Of the soft assignment in the entropy loss.
        bit_order: `"msb"` or `"lsb"`; see `BSQConfig`.

    Raises:
        ValueError: An argument is out of range, or `group_size` does not divide `num_bits`.

    Example:
        >>> import torch
        >>> from vistok.quantizers import BSQ
        >>> out = BSQ(num_bits=4)(torch.tensor([[0.3, -2.0, 0.0, 1.0]]))
        >>> out.quantized.tolist(), out.tokens.tolist()
        ([[0.5, -0.5, -0.5, 0.5]], [9])
    """

    config_class = BSQConfig

    def __init__(
        self,
        num_bits: int = 18,
        group_size: int | None = None,
        entropy_weight: float = 0.1,
        diversity_gamma: float = 1.0,
        commitment_weight: float = 0.25,
        entropy_temperature: float = 0.01,
        bit_order: Literal["msb", "lsb"] = "msb",
    ):
        BSQConfig.check(
            num_bits=num_bits,
            group_size=group_size,
            entropy_weight=entropy_weight,
            diversity_gamma=diversity_gamma,
            commitment_weight=commitment_weight,
            entropy_temperature=entropy_temperature,
            bit_order=bit_order,
        )
        check_group_size(num_bits, group_size)
        super().__init__(
            num_bits,
            scale=num_bits**-0.5,
            group_size=group_size,
            entropy_weight=entropy_weight,
            diversity_gamma=diversity_gamma,
            commitment_weight=commitment_weight,
            entropy_temperature=entropy_temperature,
            bit_order=bit_order,
        )

    # bsq-vit multiplies u + sg(sign(u) - u) by 1 / sqrt(num_bits), and so the gradient too. Here it is one:
    # otherwise the reconstruction would teach the encoder less, the more bits there are.
    def compared(self, latents: Tensor) -> Tensor:
        """See `BinaryQuantizer`."""
        return unit_length(latents)

    def commitment(self, quantized: Tensor, rows: Tensor, mask: Tensor | None) -> Tensor:
        """See `BinaryQuantizer`; the sum over the channels, as published, not their mean."""
        return self.num_bits * super().commitment(quantized, rows, mask)

    def bounded(self, latents: Tensor) -> Tensor:
        """The unit vector within what the entries of all stages add up to. See `Quantizer.bounded`.

        There is no `unbounded`: a later stage normalizes what is left over, and its signs stay.
        """
        return self.compared(latents).clamp(-2 * self.scale, 2 * self.scale)
