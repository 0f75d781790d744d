"""What entropies of soft assignments share: rows that count, tiles of them, means over all ranks.

The batch is that of all ranks. A gradient is what makes the mean over the ranks, which DDP takes, that of one
process on the joined batch.
"""

from collections.abc import Iterator

from torch import Tensor

from .distributed import sum_over_ranks, world_size

# Probabilities below it count as zero. Subnormal numbers make a matrix product many times slower on a CPU,
# and the products of such probabilities with a small gradient would be some.
SMALLEST = 1e-20


def flat(mask: Tensor | None) -> Tensor | None:
    """A mask of N places in one dimension."""
    return None if mask is None else mask.flatten()


def kept(rows: Tensor, mask: Tensor | None) -> Tensor:
    """The rows that count."""
    return rows if mask is None else rows[mask]


def spread(kept: Tensor, mask: Tensor | None) -> Tensor:
    """The gradients of the rows that count, put back to their places."""
    if mask is None:
        return kept
    everywhere = kept.new_zeros(len(mask), kept.shape[1])
    everywhere[mask] = kept
    return everywhere


def tiles(rows: Tensor, columns: int, size: tuple[int, int], at_least: int, at_most: int) -> Iterator[slice]:
    """Cuts rows so that `columns` numbers for each of them stay within `size`."""
    numbers = size[0 if rows.device.type == "cpu" else 1]
    step = min(max(at_least, numbers // columns), at_most)
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


def means(sums: Tensor, places: int, entropy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
