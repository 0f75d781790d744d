"""The cross-entropy of tokens over the distances to all entries, without the N x K matrix.

OptVQ's loss `"ce"`. arXiv:2412.15195
"""

import torch
from torch import Tensor

from .distributed import mean_count
from .search import centred
from .sinkhorn import Tiles


def distance_cross_entropy(rows: Tensor, table: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean over places of the cross-entropy of tokens, with minus the distances as logits.

    Its gradient reaches rows and table; it is made with the value, tile by tile, and needs no N x K matrix.
    Where a latent lies on an entry, their distance has gradient zero.

    Args:
        rows: float `(N, D)`, the latents.
        table: float `(K, D)`, the entries.
        tokens: int64 `(N,)`, in any shape.
        mask: bool, N places in any shape; others have no part in the mean.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> from vistok.quantizers.distance_cross_entropy import distance_cross_entropy
        >>> rows, table = torch.zeros(1, 1), torch.tensor([[1.0], [-1.0]])
        >>> round(distance_cross_entropy(rows, table, torch.tensor([0])).item(), 4)  # log(2)
        0.6931
    """
    differentiable = torch.is_grad_enabled() and (rows.requires_grad or table.requires_grad)
    mask = None if mask is None else mask.flatten()
    return _CrossEntropy.apply(rows, table, tokens.flatten(), mask, differentiable)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, table: Tensor, tokens: Tensor, mask: Tensor | None, differentiable: bool):
        weights = rows.new_ones(len(rows)) if mask is None else mask.to(rows.dtype)
        weights = weights / mean_count(mask, len(rows), rows.device)
        loss, to_rows, to_table = _cross_entropy(rows, table, tokens, weights, differentiable)
        ctx.save_for_backward(to_rows, to_table)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        to_rows, to_table = ctx.saved_tensors
        return to_rows * gradient, to_table * gradient, None, None, None


@torch.library.custom_op("vistok::distance_cross_entropy", mutates_args=())
def _cross_entropy(
    rows: Tensor, table: Tensor, tokens: Tensor, weights: Tensor, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted sum of the places' cross-entropies, and its gradients to rows and table."""
    latents, entries = centred(rows, table)
    latents.masked_fill_(weights[:, None] == 0, 0)  # what does not count may be anything
    tiles = Tiles(latents, entries)
    one = torch.ones_like(entries[:, :1])
    entries_and_one = torch.cat([entries, one], 1)
    # Of what is nearer, the difference is mostly rounding where it is a difference of sums.
    nearest = (4 * torch.finfo(rows.dtype).eps * entries.square().sum(1).amax()).sqrt().clamp_(min=1e-30)
    loss = rows.new_zeros((), dtype=torch.float64)
    to_rows, to_table = rows.new_zeros(rows.shape), torch.zeros_like(entries_and_one)
    for part in tiles.parts:
        x, token, weight = latents[part], tokens[part, None], weights[part, None]
        towards = x - entries[tokens[part]]
        to_target = towards.norm(dim=1, keepdim=True)
        distances = tiles.distances(part).scatter_(1, token, to_target)
        least = distances.amin(1, keepdim=True)
        shares = torch.sub(least, distances).exp_()
        total = shares.sum(1, keepdim=True)
        excess = to_target - least + total.log()
        loss += (excess * weight).sum()
        if not differentiable:
            continue
        # Of a distance, the gradient is its share, of the target's its share - 1: along unit vectors. The
        # target is often the nearest by far, and made from differences.
        pull = shares.div_(distances.clamp_min_(nearest)).mul_(-weight / total).scatter_(1, token, 0)
        unit = torch.where(to_target > 0, towards / to_target, 0) * (weight * -torch.expm1(-excess))
        from_entries = pull @ entries_and_one
        to_rows[part] = unit + from_entries[:, -1:] * x - from_entries[:, :-1]
        to_table.addmm_(pull.t(), torch.cat([x, one.new_ones(len(x), 1)], 1), alpha=-1)
        to_table[:, :-1].index_add_(0, tokens[part], unit, alpha=-1)
    # A latent's pull on an entry is share * (entry - latent) / distance: the sums of both terms are apart.
    to_table = to_table[:, :-1] - to_table[:, -1:] * entries
    return loss.to(rows.dtype), to_rows, to_table


@_cross_entropy.register_fake
def _(rows, table, tokens, weights, differentiable) -> tuple[Tensor, Tensor, Tensor]:
    return rows.new_empty(()), rows.new_empty(rows.shape), table.new_empty(table.shape)
