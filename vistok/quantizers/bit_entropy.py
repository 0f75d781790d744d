"""Entropies of independent bits: how unsure one latent is, and how evenly a batch uses all patterns.

Language Model Beats Diffusion - Tokenizer is Key to Visual Generation. Yu et al. arXiv:2310.05737
Both come of the probabilities of all patterns for every latent, a matrix that is never made: rows go tile by
tile, gradients are known in closed form, and the backward works the probabilities out again.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .entropy import flat, kept, means, spread, tiles

_TILE = (1 << 19, 1 << 24)  # numbers in one tile: to stay in a CPU's cache; to fill an accelerator
_ROWS = (256, 8192)  # fewest, or reading 2^D sums again for every tile dominates; and most


def bit_entropies(
    logits: Tensor, group_size: int | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The entropies of independent bits, exact, over all `2^group_size` patterns of each group.

    A softmax over the patterns `c` in {-1, 1}^D of `<z, c>` is a product of D bits with log-odds `2 z`. So
    the entropy of one place is a sum over bits, and the mean probabilities are a product of two narrow
    matrices: the joint probabilities of the first and of the second half of the bits.

    Args:
        logits: float `(N, D)`, the log-odds of each bit.
        group_size: Number of consecutive bits whose patterns are counted together; it divides D. The
            entropies of the groups are summed. None for one group of all D.
        mask: bool, N places in any shape; those that are False have no part.

    Returns:
        In nats, each with a gradient of its own: the mean over the places of the entropy of a place, and the
        entropy of the mean probabilities, over all ranks.

    Example:
        >>> import torch
        >>> sample, codebook = bit_entropies(torch.tensor([[50.0, 50.0], [-50.0, 50.0]]))
        >>> sample.item() < 1e-6, round(codebook.item() / torch.tensor(2.0).log().item(), 4)
        (True, 1.0)
    """
    return _BitEntropies.apply(logits, flat(mask), group_size or logits.shape[1])


# Operators of their own, so that torch.compile neither unrolls the loops over tiles nor looks at the ranks.
@torch.library.custom_op("vistok::bit_entropies", mutates_args=())
def _bits_forward(
    logits: Tensor, mask: Tensor | None, group_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = kept(logits, mask)
    groups, first = rows.shape[1] // group_size, group_size // 2
    sums = rows.new_zeros(groups * 2**group_size + 1)
    table = sums[:-1].view(groups, 2**first, -1)
    entropy = rows.new_zeros(())
    for tile in tiles(rows, table[:, 0].numel(), _TILE, *_ROWS):
        odds = _channels_first(rows[tile], group_size)
        size = odds.abs()
        entropy += (F.softplus(-size) + size * torch.sigmoid(-size)).sum()
        one, zero = torch.sigmoid(odds), torch.sigmoid(-odds)
        left, right = _joint(one[:, :first], zero[:, :first]), _joint(one[:, first:], zero[:, first:])
        table.baddbmm_(left, right.transpose(1, 2))
    sample, mean, share = means(sums, len(rows), entropy)
    return sample, torch.special.entr(mean).sum(), mean, share


@_bits_forward.register_fake
def _(logits: Tensor, mask: Tensor | None, group_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean = logits.new_empty(logits.shape[1] // group_size * 2**group_size)
    return logits.new_empty(()), logits.new_empty(()), mean, logits.new_empty(())


@torch.library.custom_op("vistok::bit_entropies_backward", mutates_args=())
def _bits_backward(
    to_sample: Tensor, to_codebook: Tensor, logits: Tensor, mask: Tensor | None, mean: Tensor, group_size: int
) -> Tensor:
    rows = kept(logits, mask)
    groups, first = rows.shape[1] // group_size, group_size // 2
    # d/dp of -p log p is -log p - 1, and the constant drops out: a place's probabilities sum to one.
    slope = mean.clamp(min=torch.finfo(mean.dtype).tiny).log_().mul_(-to_codebook)
    slope = slope.view(groups, 2**first, -1)
    gradient = rows.new_empty(rows.shape)  # contiguous, however the rows lie
    for tile in tiles(rows, slope[:, 0].numel(), _TILE, *_ROWS):
        odds = _channels_first(rows[tile], group_size)
        one, zero = torch.sigmoid(odds), torch.sigmoid(-odds)
        left, right = _joint(one[:, :first], zero[:, :first]), _joint(one[:, first:], zero[:, first:])
        to_odds = odds.mul_(one).mul_(zero).mul_(-to_sample)
        for bits, weights in (
            (slice(0, first), torch.bmm(slope, right).mul_(left)),
            (slice(first, None), torch.bmm(slope.transpose(1, 2), left).mul_(right)),
        ):
            where_one, where_zero = _sums_by_bit(weights)
            to_odds[:, bits] += zero[:, bits] * where_one - one[:, bits] * where_zero
        gradient[tile] = to_odds.flatten(0, 1).t()
    return spread(gradient, mask)


@_bits_backward.register_fake
def _(
    to_sample: Tensor, to_codebook: Tensor, logits: Tensor, mask: Tensor | None, mean: Tensor, group_size: int
) -> Tensor:
    return logits.new_empty(logits.shape)


class _BitEntropies(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, mask: Tensor | None, group_size: int):
        sample, codebook, mean, share = _bits_forward(logits, mask, group_size)
        ctx.save_for_backward(logits, mask, mean, share)
        ctx.group_size = group_size
        return sample, codebook

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, to_sample: Tensor, to_codebook: Tensor):
        logits, mask, mean, share = ctx.saved_tensors
        with torch.autocast(logits.device.type, enabled=False):  # a backward may run within one
            gradient = _bits_backward(
                to_sample / share, to_codebook / share, logits, mask, mean, ctx.group_size
            )
        return gradient, None, None


def _channels_first(rows: Tensor, group_size: int) -> Tensor:
    """`(n, D)` to a new `(D / group_size, group_size, n)`."""
    return rows.t().clone(memory_format=torch.contiguous_format).view(-1, group_size, len(rows))


def _joint(one: Tensor, zero: Tensor) -> Tensor:
    """The probabilities of all patterns of bits, `(groups, 2^bits, n)`; bit `i` of a pattern is worth `2^i`.

    Args:
        one: float `(groups, bits, n)`, the probability that a bit is one.
        zero: float `(groups, bits, n)`, that it is zero.
    """
    groups, bits, places = one.shape
    joint = one.new_empty(groups, 2**bits, places)
    joint[:, 0] = 1
    for bit in range(bits):
        known, new = joint[:, : 2**bit], joint[:, 2**bit : 2 ** (bit + 1)]
        torch.mul(known, one[:, bit : bit + 1], out=new)
        known.mul_(zero[:, bit : bit + 1])
    # Subnormal numbers make a matrix product many times slower on a CPU; below this, products would be some.
    return F.threshold_(joint, math.sqrt(torch.finfo(joint.dtype).tiny), 0.0)


def _sums_by_bit(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the patterns where each bit is one, and where it is zero: `(groups, bits, n)` both."""
    patterns = torch.arange(weights.shape[1], device=weights.device)
    bits = torch.arange(weights.shape[1].bit_length() - 1, device=weights.device)
    ones = (patterns >> bits.unsqueeze(1)) & 1
    sums = torch.cat([ones, 1 - ones]).to(weights.dtype) @ weights
    return sums.chunk(2, dim=1)
