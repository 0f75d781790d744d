"""What quantizers do over all ranks, so that several processes equal one on the joined batch.

Everything is looked up when it is called, never remembered: a process group may come after the quantizer, and
without one there is one rank. The joined batch is that of rank 0, then that of rank 1, and so on.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum over the ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def minimum_over_ranks(tensor: Tensor) -> Tensor:
    """The elementwise minimum over the ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MIN)
    return tensor


def from_rank_zero(tensor: Tensor) -> Tensor:
    """The values of rank 0, in place."""
    if world_size() > 1:
        dist.broadcast(tensor, 0)
    return tensor


def counts_of_ranks(count: int, device: torch.device) -> list[int]:
    """What each rank has of something, in the order of the ranks."""
    if world_size() == 1:
        return [count]
    counts = torch.zeros(world_size(), dtype=torch.int64, device=device)
    counts[dist.get_rank()] = count
    return sum_over_ranks(counts).tolist()


def offset_of_rank(counts: list[int]) -> int:
    """Where this rank begins in the joined batch, of the `counts_of_ranks`."""
    return sum(counts[: dist.get_rank()]) if len(counts) > 1 else 0


def rows_of_joined(rows: Tensor, counts: list[int], places: Tensor) -> Tensor:
    """Rows of the joined batch by their place in it, the same on all ranks.

    Args:
        rows: float `(N, D)`, those of this rank.
        counts: The `counts_of_ranks` of N.
        places: int64 `(M,)`, the same on all ranks.

    Returns:
        float `(M, D)`.
    """
    if len(counts) == 1:
        return rows.index_select(0, places)
    own = places - offset_of_rank(counts)
    here = (own >= 0) & (own < len(rows))
    chosen = rows.new_zeros(len(places), rows.shape[1])
    chosen[here] = rows[own[here]]
    return sum_over_ranks(chosen)


def mean_count(mask: Tensor | None, places: int, device: torch.device) -> int | Tensor:
    """What to divide a sum over this rank's places by, so that the mean over the ranks is that of all places.

    Args:
        mask: bool `(N,)`, True where a place counts, or None where all do.
        places: N.
        device: Where the sum over the ranks is made.
    """
    if world_size() == 1 and mask is None:
        return max(1, places)
    own = torch.tensor(float(places), device=device) if mask is None else mask.sum().float()
    return (sum_over_ranks(own) / world_size()).clamp_(min=1 / world_size())
