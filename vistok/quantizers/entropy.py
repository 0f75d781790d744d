"""Entropies of soft assignments: how unsure one latent is, and how evenly a batch uses the entries.

Language Model Beats Diffusion - Tokenizer is Key to Visual Generation. Yu et al. arXiv:2310.05737
Both entropies come of the probabilities of all entries for every latent, a matrix that is never made: rows go
tile by tile, gradients are known in closed form, and the backward works the probabilities out again.

The batch is that of all ranks. A gradient is what makes the mean over the ranks, which DDP takes, that of one
process on the joined batch.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .distributed import sum_over_ranks, world_size

# Numbers in one tile: on a CPU, to stay in its cache; on an accelerator, to fill it.
_SOFTMAX_TILE = (1 << 18, 1 << 24)
_BITS_TILE = (1 << 19, 1 << 24)
_BITS_ROWS = (256, 8192)  # fewest, or reading 2^D sums again for every tile dominates; and most


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
    return _BitEntropies.apply(logits, _flat(mask), group_size or logits.shape[1])


def softmax_entropies(
    rows: Tensor,
    table: Tensor,
    temperature: float,
    *,
    distances: bool,
    mask: Tensor | None = None,
    epsilon: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """The entropies of a softmax over the entries of a table.

    Args:
        rows: float `(N, D)`, the latents.
        table: float `(K, D)`, the entries, of the same dtype.
        temperature: What the scores are divided by.
        distances: Whether the scores are negative squared distances, or inner products.
        mask: bool, N places in any shape; those that are False have no part.
        epsilon: Added to the mean probabilities within the logarithm, as LlamaGen, SEED-Voken's IBQ and
            visual-tokenizer-pytorch do: an entry that nobody uses would have an infinite gradient.

    Returns:
        In nats, each with a gradient of its own to rows and table: the mean over the places of the entropy of
        a place, and the entropy of the mean probabilities, over all ranks.

    Example:
        >>> import torch
        >>> table = torch.eye(4)
        >>> sample, codebook = softmax_entropies(table, table, 0.01, distances=True)
        >>> sample.item() < 1e-6, round(codebook.item() / torch.tensor(4.0).log().item(), 4)
        (True, 1.0)
    """
    return _SoftmaxEntropies.apply(rows, table, _flat(mask), temperature, distances, epsilon)


def _flat(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.flatten()


def _kept(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows if mask is None else rows[mask]


def _spread(kept: Tensor, mask: Tensor | None) -> Tensor:
    """The gradients of the rows that count, put back to their places."""
    if mask is None:
        return kept
    spread = kept.new_zeros(len(mask), kept.shape[1])
    spread[mask] = kept
    return spread


def _tiles(rows: Tensor, columns: int, size: tuple[int, int], at_least: int, at_most: int) -> Iterator[slice]:
    """Cuts rows so that `columns` numbers for each of them stay within `size`."""
    numbers = size[0 if rows.device.type == "cpu" else 1]
    step = min(max(at_least, numbers // columns), at_most)
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


def _means(sums: Tensor, places: int, entropy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The means of the joined batch.

    Args:
        sums: float `(entries + 1,)`, sums of probabilities over this rank's places, and room for a count.
        places: How many places these were.
        entropy: The sum of their entropies.

    Returns:
        The mean entropy, whose mean over the ranks is that of the joined batch; the joined batch's mean
        probabilities; and the number of places by which a gradient is to be divided.
    """
    sums[-1] = places
    sum_over_ranks(sums)
    joined = sums[-1].clamp(min=1)
    share = joined / world_size()
    return entropy / share, sums[:-1] / joined, share


# Operators of their own, so that torch.compile neither unrolls the loops over tiles nor looks at the ranks.
@torch.library.custom_op("vistok::bit_entropies", mutates_args=())
def _bits_forward(
    logits: Tensor, mask: Tensor | None, group_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = _kept(logits, mask)
    groups, first = rows.shape[1] // group_size, group_size // 2
    sums = rows.new_zeros(groups * 2**group_size + 1)
    table = sums[:-1].view(groups, 2**first, -1)
    entropy = rows.new_zeros(())
    for tile in _tiles(rows, table[:, 0].numel(), _BITS_TILE, *_BITS_ROWS):
        odds = _channels_first(rows[tile], group_size)
        size = odds.abs()
        entropy += (F.softplus(-size) + size * torch.sigmoid(-size)).sum()
        one, zero = torch.sigmoid(odds), torch.sigmoid(-odds)
        left, right = _joint(one[:, :first], zero[:, :first]), _joint(one[:, first:], zero[:, first:])
        table.baddbmm_(left, right.transpose(1, 2))
    sample, mean, share = _means(sums, len(rows), entropy)
    return sample, torch.special.entr(mean).sum(), mean, share


@_bits_forward.register_fake
def _(logits: Tensor, mask: Tensor | None, group_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    mean = logits.new_empty(logits.shape[1] // group_size * 2**group_size)
    return logits.new_empty(()), logits.new_empty(()), mean, logits.new_empty(())


@torch.library.custom_op("vistok::bit_entropies_backward", mutates_args=())
def _bits_backward(
    to_sample: Tensor, to_codebook: Tensor, logits: Tensor, mask: Tensor | None, mean: Tensor, group_size: int
) -> Tensor:
    rows = _kept(logits, mask)
    groups, first = rows.shape[1] // group_size, group_size // 2
    # d/dp of -p log p is -log p - 1, and the constant drops out: a place's probabilities sum to one.
    slope = mean.clamp(min=torch.finfo(mean.dtype).tiny).log_().mul_(-to_codebook)
    slope = slope.view(groups, 2**first, -1)
    gradient = torch.empty_like(rows)
    for tile in _tiles(rows, slope[:, 0].numel(), _BITS_TILE, *_BITS_ROWS):
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
    return _spread(gradient, mask)


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
        return (
            _bits_backward(to_sample / share, to_codebook / share, logits, mask, mean, ctx.group_size),
            None,
            None,
        )


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


@torch.library.custom_op("vistok::softmax_entropies", mutates_args=())
def _softmax_forward(
    rows: Tensor, table: Tensor, mask: Tensor | None, temperature: float, distances: bool, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = _kept(rows, mask)
    bias, scale = _bias_and_scale(table, temperature, distances)
    sums = rows.new_zeros(len(table) + 1)
    entropy = rows.new_zeros(())
    for tile in _tiles(rows, len(table), _SOFTMAX_TILE, 8, 4096):
        logarithms = torch.addmm(bias, rows[tile], table.t(), alpha=scale).log_softmax(1)
        probabilities = logarithms.exp()
        sums[:-1] += probabilities.sum(0)
        entropy -= torch.dot(probabilities.flatten(), logarithms.flatten())
    sample, mean, share = _means(sums, len(rows), entropy)
    return sample, -torch.dot(mean, _logarithm(mean, epsilon)), mean, share


@_softmax_forward.register_fake
def _(
    rows: Tensor, table: Tensor, mask: Tensor | None, temperature: float, distances: bool, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return rows.new_empty(()), rows.new_empty(()), rows.new_empty(len(table)), rows.new_empty(())


@torch.library.custom_op("vistok::softmax_entropies_backward", mutates_args=())
def _softmax_backward(
    to_sample: Tensor,
    to_codebook: Tensor,
    rows: Tensor,
    table: Tensor,
    mask: Tensor | None,
    mean: Tensor,
    temperature: float,
    distances: bool,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    rows = _kept(rows, mask)
    bias, scale = _bias_and_scale(table, temperature, distances)
    inside = (mean + epsilon).clamp_(min=torch.finfo(mean.dtype).tiny)
    slope = (_logarithm(mean, epsilon) + mean / inside).mul_(-to_codebook)
    to_rows, to_table, to_bias = torch.empty_like(rows), torch.zeros_like(table), torch.zeros_like(mean)
    for tile in _tiles(rows, len(table), _SOFTMAX_TILE, 8, 4096):
        x = rows[tile]
        logarithms = torch.addmm(bias, x, table.t(), alpha=scale).log_softmax(1)
        probabilities = logarithms.exp()
        # The gradient to the probabilities, then through the softmax.
        to_scores = logarithms.mul_(-to_sample).add_(slope)
        to_scores -= torch.linalg.vecdot(probabilities, to_scores).unsqueeze(1)
        to_scores *= probabilities
        torch.mm(to_scores, table, out=to_rows[tile])
        to_table.addmm_(to_scores.t(), x)
        to_bias += to_scores.sum(0)
    if distances:
        to_table -= to_bias.unsqueeze(1) * table
    return _spread(to_rows.mul_(scale), mask), to_table.mul_(scale)


@_softmax_backward.register_fake
def _(
    to_sample: Tensor,
    to_codebook: Tensor,
    rows: Tensor,
    table: Tensor,
    mask: Tensor | None,
    mean: Tensor,
    temperature: float,
    distances: bool,
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), table.new_empty(table.shape)


class _SoftmaxEntropies(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        rows: Tensor,
        table: Tensor,
        mask: Tensor | None,
        temperature: float,
        distances: bool,
        epsilon: float,
    ):
        ctx.settings = (float(temperature), distances, float(epsilon))
        sample, codebook, mean, share = _softmax_forward(rows, table, mask, *ctx.settings)
        ctx.save_for_backward(rows, table, mask, mean, share)
        return sample, codebook

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, to_sample: Tensor, to_codebook: Tensor):
        rows, table, mask, mean, share = ctx.saved_tensors
        gradients = _softmax_backward(
            to_sample / share, to_codebook / share, rows, table, mask, mean, *ctx.settings
        )
        return *gradients, None, None, None, None


def _bias_and_scale(table: Tensor, temperature: float, distances: bool) -> tuple[Tensor, float]:
    """Scores are `bias + scale * <x, e>`; the length of a latent shifts its scores alike and drops out."""
    if distances:
        return table.square().sum(1).div_(-temperature), 2 / temperature
    return table.new_zeros(len(table)), 1 / temperature


def _logarithm(mean: Tensor, epsilon: float) -> Tensor:
    return (mean + epsilon).clamp_(min=torch.finfo(mean.dtype).tiny).log_()
