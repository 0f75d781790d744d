"""k-means over the first batches of latents: entries that begin where the latents are.

Some Methods for Classification and Analysis of Multivariate Observations. MacQueen. 1967
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .distributed import counts_of_ranks, from_rank_zero, rows_of_joined
from .randomness import generator, shared_seed
from .search import nearest

LATENTS_PER_ENTRY = 8  # so many make a mean that the next latent hardly moves
_ROUNDS = 10


@torch.no_grad()
def kmeans_step(entries: Tensor, seen: int, rows: Tensor, *, unit_norm: bool = False) -> int:
    """Fits entries to one more batch, in place: the same on all ranks, from the latents of all ranks.

    The first latents become entries, one each, until every entry has one. Then Lloyd's iteration moves them
    to the means of their latents; what earlier batches made of them weighs as many latents as those were.

    Args:
        entries: float `(K, D)`.
        seen: How many latents the entries were made from before.
        rows: float `(N, D)`, the batch of this rank.
        unit_norm: Whether rows have length one, and entries shall have.

    Returns:
        How many latents the entries are made from now.
    """
    rows = rows[rows.isfinite().all(1)]  # of others no mean is made
    counts = counts_of_ranks(len(rows), rows.device)
    total = sum(counts)
    if not total:
        return seen
    everywhere = torch.arange(total, device=rows.device)
    joined = rows_of_joined(rows, counts, everywhere) if len(counts) > 1 else rows
    joined = joined.to(entries.dtype)
    draw = generator(shared_seed(rows.device), "kmeans", seen, device=rows.device)
    order = torch.randperm(total, generator=draw, device=rows.device)
    fresh = order[: max(0, len(entries) - seen)]
    entries[seen : seen + len(fresh)] = joined[fresh]
    known = entries[: min(len(entries), seen + total)]
    weight = torch.full_like(known[:, :1], seen / len(entries))  # of what earlier batches made
    if seen < len(entries):
        weight[:seen], weight[seen:] = 1, 0
    before = known * weight
    for _ in range(_ROUNDS):
        tokens = nearest(joined, known, unit_norm=unit_norm)
        size = weight + torch.bincount(tokens, minlength=len(known)).to(weight).unsqueeze(1)
        means = before.index_add(0, tokens, joined) / size.clamp(min=1e-6)
        empty = (size == 0).squeeze(1)
        if bool(empty.any()):  # such an entry starts again at the latents that are worst served
            error = (joined - known.index_select(0, tokens)).square().sum(1)
            worst = error.topk(min(total, int(empty.sum()))).indices
            means[empty.nonzero().squeeze(1)[: len(worst)]] = joined[worst]
        known.copy_(F.normalize(means, dim=1) if unit_norm else means)
    from_rank_zero(entries)
    return seen + total
