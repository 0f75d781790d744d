"""Entropies of a softmax over a codebook: how unsure one latent is, and how evenly a batch uses the entries.

Language Model Beats Diffusion - Tokenizer is Key to Visual Generation. Yu et al. arXiv:2310.05737
The N x K matrix of probabilities is never made: rows go tile by tile, gradients are known in closed form, and
the backward works the probabilities out again.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .entropy import SMALLEST, flat, kept, means, spread, tiles

_TILE = (1 << 18, 1 << 24)  # numbers in one tile: to stay in a CPU's cache; to fill an accelerator


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
    return _SoftmaxEntropies.apply(rows, table, flat(mask), temperature, distances, epsilon)


@torch.library.custom_op("vistok::softmax_entropies", mutates_args=())
def _softmax_forward(
    rows: Tensor, table: Tensor, mask: Tensor | None, temperature: float, distances: bool, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = kept(rows, mask)
    bias, scale = _bias_and_scale(table, temperature, distances)
    sums = rows.new_zeros(len(table) + 1)
    entropy = rows.new_zeros(())
    for tile in tiles(rows, len(table), _TILE, 8, 4096):
        logarithms = torch.addmm(bias, rows[tile], table.t(), alpha=scale).log_softmax(1)
        probabilities = F.threshold_(logarithms.exp(), SMALLEST, 0.0)
        sums[:-1] += probabilities.sum(0)
        entropy -= torch.dot(probabilities.flatten(), logarithms.flatten())
    sample, mean, share = means(sums, len(rows), entropy)
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
    rows = kept(rows, mask)
    bias, scale = _bias_and_scale(table, temperature, distances)
    inside = (mean + epsilon).clamp_(min=torch.finfo(mean.dtype).tiny)
    slope = (_logarithm(mean, epsilon) + mean / inside).mul_(-to_codebook)
    # Contiguous, however the inputs lie.
    to_rows, to_table = rows.new_empty(rows.shape), table.new_zeros(table.shape)
    to_bias = torch.zeros_like(mean)
    for tile in tiles(rows, len(table), _TILE, 8, 4096):
        x = rows[tile]
        logarithms = torch.addmm(bias, x, table.t(), alpha=scale).log_softmax(1)
        probabilities = F.threshold_(logarithms.exp(), SMALLEST, 0.0)
        # The gradient to the probabilities, then through the softmax.
        to_scores = logarithms.mul_(-to_sample).add_(slope)
        to_scores -= torch.linalg.vecdot(probabilities, to_scores).unsqueeze(1)
        to_scores *= probabilities
        torch.mm(to_scores, table, out=to_rows[tile])
        to_table.addmm_(to_scores.t(), x)
        to_bias += to_scores.sum(0)
    if distances:
        to_table -= to_bias.unsqueeze(1) * table
    return spread(to_rows.mul_(scale), mask), to_table.mul_(scale)


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
        with torch.autocast(rows.device.type, enabled=False):  # a backward may run within one
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
