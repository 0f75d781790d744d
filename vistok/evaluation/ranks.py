"""What several processes measured, put together in the order of the rows, as if one had done it all."""

import torch
import torch.distributed as dist
from torch import Tensor

from ..quantizers.distributed import world_size


def in_row_order(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """All ranks' values, sorted by row.

    Args:
        rows: int64 `(N,)`, the rows that this rank has measured; N may differ between ranks and be 0.
        values: `(N, ...)`, what it has measured.

    Returns:
        Rows int64 `(M,)` and values `(M, ...)` of all ranks, on the CPU, the same on every rank.

    Example:
        >>> in_row_order(torch.tensor([2, 0]), torch.tensor([0.2, 0.0]))
        (tensor([0, 2]), tensor([0.0000, 0.2000]))
    """
    rows, values = joined(rows), joined(values)
    order = rows.argsort()
    return rows[order], values[order]


def joined(values: Tensor) -> Tensor:
    """The values of rank 0, then those of rank 1, and so on.

    Args:
        values: `(N, ...)`; N may differ between ranks.

    Returns:
        `(M, ...)`, on the CPU.
    """
    if world_size() == 1:
        return values.cpu()
    device = _device()
    length = torch.tensor([len(values)], device=device)
    lengths = [torch.empty_like(length) for _ in range(world_size())]
    dist.all_gather(lengths, length)
    padded = values.new_zeros(max(map(int, lengths)), *values.shape[1:], device=device)
    padded[: len(values)] = values
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(n)].cpu() for part, n in zip(parts, lengths, strict=True)])


def summed(values: Tensor) -> Tensor:
    """The sum over the ranks, on the CPU."""
    if world_size() == 1:
        return values.cpu()
    total = values.to(_device())
    dist.all_reduce(total)
    return total.cpu()


def rank() -> int:
    """The number of this process; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def _device() -> torch.device:
    """Where the process group takes tensors from."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if "nccl" in dist.get_backend()
        else torch.device("cpu")
    )
