"""What quantizers whose entries are the corners of a cube share: one bit a channel, no table.

The token is the signs of the latents, read as a binary number. The entropies over all `2^num_bits` entries
are exact and cost little, because the bits are independent: see `bit_entropies`.
"""

from typing import Literal

import torch
from torch import Tensor

from .base import Quantizer, QuantizerOutput, straight_through
from .bit_entropy import bit_entropies
from .codebook import as_rows, errors

MOST_BITS = 62
_LARGEST_SMALL_GROUP = 12  # 4,096 patterns: no slower than single bits
_MOST_COUNTED_BITS = 24  # 2^24 mean probabilities are 64 MB


def check_group_size(num_bits: int, group_size: int | None) -> None:
    """Raises `ValueError` for groups that do not fit, or that have too many patterns to count."""
    if group_size is None:
        return
    if num_bits % group_size:
        raise ValueError(f"Expected group_size to divide num_bits {num_bits}, got group_size {group_size}")
    if group_size > _MOST_COUNTED_BITS:
        raise ValueError(
            f"group_size must be at most {_MOST_COUNTED_BITS}, because the 2**group_size patterns of a group "
            f"are counted, got {group_size}"
        )


def bits_counted_together(num_bits: int) -> int:
    """The default group: all bits where their patterns can be counted, else the largest small divisor."""
    if num_bits <= _MOST_COUNTED_BITS:
        return num_bits
    return max(size for size in range(1, _LARGEST_SMALL_GROUP + 1) if num_bits % size == 0)


class BinaryQuantizer(Quantizer):
    """A quantizer that keeps the sign of each channel; zero counts as negative.

    Args:
        num_bits: Number of channels, one bit each.
        scale: The entries are `scale` or `-scale` in each channel.
        group_size: Number of consecutive channels whose patterns the codebook entropy counts together; None
            for all, or with more than 24 for groups of at most 12.
        entropy_weight: Weight of the entropy of one latent's soft assignment less `diversity_gamma` times
            that of the batch's mean assignment.
        diversity_gamma: Weight of the second of these entropies relative to the first.
        commitment_weight: Weight of the loss that draws latents to entries.
        entropy_temperature: Of the soft assignment, the softmax of twice the inner products over it.
        bit_order: Whether the first channel is the most (`"msb"`) or the least (`"lsb"`) significant bit.
    """

    def __init__(
        self,
        num_bits: int,
        scale: float,
        group_size: int | None,
        entropy_weight: float,
        diversity_gamma: float,
        commitment_weight: float,
        entropy_temperature: float,
        bit_order: Literal["msb", "lsb"],
    ):
        super().__init__()
        self.codebook_size = 2**num_bits
        self.codebook_dim = self.latent_dim = self.quantized_dim = self.num_bits = num_bits
        self.scale = scale
        self.group_size = group_size or bits_counted_together(num_bits)
        self.entropy_weight = entropy_weight
        self.diversity_gamma = diversity_gamma
        self.commitment_weight = commitment_weight
        self.entropy_temperature = entropy_temperature
        self.bit_order = bit_order
        self.batch_statistics = entropy_weight > 0

    def compared(self, latents: Tensor) -> Tensor:
        """The latents as they are compared with the entries; their signs are the same."""
        return latents

    def commitment(self, quantized: Tensor, rows: Tensor, mask: Tensor | None) -> Tensor:
        """How far the compared latents `(N, num_bits)` are from their entries; a gradient to them alone."""
        return errors(quantized, rows, mask)[1]

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        compared = self.compared(latents)
        bits = latents > 0
        quantized = self._vectors(bits.to(latents.dtype))
        losses = {}
        if self.training and (self.entropy_weight or self.commitment_weight):
            rows = as_rows(compared)
            if self.entropy_weight:
                # softmax(2 <z, c> / temperature) over all c: the log-odds of a bit are twice the difference.
                logits = rows * (4 * self.scale / self.entropy_temperature)
                sample, codebook = bit_entropies(logits, self.group_size, mask)
                losses["entropy"] = self.entropy_weight * (sample - self.diversity_gamma * codebook)
            if self.commitment_weight:
                commitment = self.commitment(as_rows(quantized), rows, mask)
                losses["commitment"] = self.commitment_weight * commitment
        return QuantizerOutput(straight_through(compared, quantized), self._tokens(bits), losses)

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        return self._tokens(latents > 0)

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        places = torch.arange(self.num_bits, device=tokens.device)
        if self.bit_order == "msb":
            places = places.flip(0)
        bits = (tokens.unsqueeze(1) >> places.view(-1, *[1] * (tokens.ndim - 1))) & 1
        return self._vectors(bits.float())

    def zoom_in(self, values: Tensor, depth: int) -> Tensor:
        """Each residual stage halves what the one before left over. See `Quantizer.zoom_in`."""
        return values * 2.0**depth

    def zoom_out(self, quantized: Tensor, depth: int) -> Tensor:
        """See `Quantizer.zoom_out`."""
        return quantized * 2.0**-depth

    def most_stages(self) -> int:
        """One bit a stage, of float32's 24; the rest for the arithmetic. See `Quantizer.most_stages`."""
        return 18

    def _vectors(self, bits: Tensor) -> Tensor:
        """Changes bits that are 0.0 or 1.0 into the channels of an entry, in place."""
        return bits.mul_(2 * self.scale).sub_(self.scale)

    def _tokens(self, bits: Tensor) -> Tensor:
        """Bits, bool `(B, num_bits, *grid)`, to int64 `(B, *grid)`, exact up to 62 of them."""
        order = range(self.num_bits) if self.bit_order == "lsb" else reversed(range(self.num_bits))
        tokens = torch.zeros_like(bits[:, 0], dtype=torch.int32 if self.num_bits < 32 else torch.int64)
        for place, channel in enumerate(order):
            tokens.add_(bits[:, channel], alpha=2**place)
        return tokens.long()
