"""The best codebook entry without the N x K matrix.

Scores are made tile by tile, a few rows against the whole codebook, so that a tile stays in the processor's
cache and memory does not grow with the number of latents. `argmin |x - e|^2 = argmax (x.e - |e|^2 / 2)`;
where the two best scores differ by no more than their rounding, all that may be the best are compared in
float64.
"""

import torch
from torch import Tensor

BLOCK = 128  # entries per block of the two-stage argmax
_CPU_TILE = 1 << 18  # scores in a tile on a CPU: 1 MB of float32 stays in its cache
_CPU_WIDE_TILE = 1 << 21  # where the matrix product dominates
_ACCELERATOR_TILE = 1 << 25  # 128 MB: enough to fill a GPU
_CPU_ROWS, _ACCELERATOR_ROWS = 512, 4096  # at most in a tile: few latents cost a whole one
_WIDE = 32  # from this many channels on, the matrix product dominates and wants more rows
_GROUP = 512  # rows whose best blocks are looked through at once: a tile may have few
_OFF_CENTRE = 1 / 4  # of the longest entry: a mean beyond it costs digits
_COMPARED = 1 << 18  # numbers in a part of the float64 differences
_CROWDED = 1024  # so many rivals a row are mostly equal entries


def nearest(latents: Tensor, codebook: Tensor, *, unit_norm: bool = False) -> Tensor:
    """The index of the nearest entry in Euclidean distance for each latent; the lowest index on ties.

    Args:
        latents: float `(N, D)`.
        codebook: float `(K, D)`, of the same dtype.
        unit_norm: Whether all entries, and latents that are not zero, have length one: less work. A latent
            that is zero gets entry 0.

    Returns:
        int64 `(N,)` in `[0, K)`, also for latents that are not finite.
    """
    return _best(latents.detach(), codebook.detach(), "unit" if unit_norm else "distance")


def likeliest(latents: Tensor, codebook: Tensor) -> Tensor:
    """The index of the entry with the largest inner product with each latent; the lowest index on ties.

    Args:
        latents: float `(N, D)`.
        codebook: float `(K, D)`, of the same dtype.

    Returns:
        int64 `(N,)` in `[0, K)`, also for latents that are not finite.
    """
    return _best(latents.detach(), codebook.detach(), "product")


def tile_rows(table: Tensor) -> int:
    """How many rows of scores against a whole table make a tile of a good size on its device."""
    columns = padded(len(table))
    if table.device.type != "cpu":
        return min(max(8, _ACCELERATOR_TILE // columns), _ACCELERATOR_ROWS)
    if table.shape[1] > _WIDE:
        return min(max(64, _CPU_WIDE_TILE // columns), 256)
    return min(max(8, _CPU_TILE // columns), _CPU_ROWS)


def padded(columns: int) -> int:
    """As many columns as whole blocks have."""
    return -(-columns // BLOCK) * BLOCK


def centred(rows: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Both from the table's mean: distances stay, and less cancels in the matrix product."""
    centre = table.mean(0)
    entries = table - centre
    centre += entries.mean(0)  # of what rounding left, so that equal entries become zeros
    return rows - centre, torch.sub(table, centre, out=entries)


def best_blocks(blocks: Tensor, maxima: Tensor) -> tuple[Tensor, Tensor]:
    """The first half of a two-stage argmax: a CPU finds a maximum much faster than its place.

    Args:
        blocks: float `(rows, blocks, BLOCK)`.
        maxima: float `(rows, blocks)`, of the blocks.

    Returns:
        int64 `(rows,)`, the block of each row's maximum, and its numbers `(rows, BLOCK)`.
    """
    best = maxima.argmax(1)
    return best, blocks[torch.arange(len(best), device=best.device), best]


# An operator of its own, so that torch.compile does not unroll the loop over tiles.
@torch.library.custom_op("vistok::best_entry", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def _best(latents: Tensor, codebook: Tensor, criterion: str) -> Tensor:
    search = _Search(latents, codebook, criterion)
    tokens, best, second = search.top_two()
    limit = best - search.rounding(best)
    near = ((second > limit) & limit.isfinite()).nonzero()[:, 0]
    for start in range(0, len(near), search.tile):
        part = near[start : start + search.tile]
        tokens[part] = search.compared(part, limit[part])
    if criterion == "unit":  # as far from every entry as from any other, but for rounding
        tokens.masked_fill_((latents == 0).all(1), 0)
    return tokens


@_best.register_fake
def _(latents: Tensor, codebook: Tensor, criterion: str) -> Tensor:
    return latents.new_empty(len(latents), dtype=torch.int64)


class _Search:
    """The scores `x.e - |e|^2 / 2` of rows, or `x.e` where lengths are one or do not matter."""

    def __init__(self, latents: Tensor, codebook: Tensor, criterion: str):
        self.latents, self.codebook, self.criterion = latents, codebook, criterion
        self.rows, self.table = latents, codebook
        self.half_squares = None if criterion == "unit" else _half_squares(codebook)
        longest = 1.0 if criterion == "unit" else (2 * self.half_squares.amax()).sqrt()
        if codebook.mean(0).norm() > _OFF_CENTRE * longest:
            rows, self.table = centred(latents, codebook)
            if criterion == "product":  # of all entries with a latent, it changes by the same number
                rows = latents
            else:
                self.criterion = "distance"
            self.rows, self.half_squares = rows, _half_squares(self.table)
            longest = (2 * self.half_squares.amax()).sqrt()
        self.longest = longest
        self.bias = -self.half_squares if self.criterion == "distance" else None
        self.tile = tile_rows(codebook)
        self.scores = latents.new_full((self.tile, padded(len(codebook))), -torch.inf)

    def of(self, x: Tensor) -> Tensor:
        """The scores of up to a tile of rows, `(rows, columns)`."""
        scores = self.scores[: len(x)]
        place = scores[:, : len(self.codebook)]
        if self.bias is None:
            torch.mm(x, self.table.t(), out=place)
        else:
            torch.addmm(self.bias, x, self.table.t(), out=place)
        return scores

    def top_two(self) -> tuple[Tensor, Tensor, Tensor]:
        """The entry with the best score of each row, that score, and the second best."""
        count, blocks = len(self.rows), self.scores.unflatten(1, (-1, BLOCK))
        tokens = torch.empty(count, dtype=torch.int64, device=self.rows.device)
        best, second = self.rows.new_empty(count), self.rows.new_empty(count)
        group = max(1, _GROUP // self.tile) * self.tile
        maxima = self.rows.new_empty(group, blocks.shape[1])
        within = self.rows.new_empty(group, BLOCK)
        block = torch.empty(group, dtype=torch.int64, device=self.rows.device)
        for begin in range(0, count, group):
            for start in range(begin, min(begin + group, count), self.tile):
                x = self.rows[start : start + self.tile]
                if len(x) < self.tile:  # of one shape, so that a token depends on its latent alone
                    x = torch.cat([x, x.new_zeros(self.tile - len(x), x.shape[1])])
                self.of(x)
                here = slice(start - begin, start - begin + self.tile)
                torch.amax(blocks, 2, out=maxima[here])
                block[here], within[here] = best_blocks(blocks, maxima[here])
            part = slice(begin, min(begin + group, count))
            size = part.stop - begin
            of_block, place = block[:size, None], within[:size].argmax(1, keepdim=True)
            tokens[part] = (of_block * BLOCK + place)[:, 0]
            best[part] = within[:size].gather(1, place)[:, 0]
            within[:size].scatter_(1, place, -torch.inf)
            maxima[:size].scatter_(1, of_block, -torch.inf)
            second[part] = torch.maximum(within[:size].amax(1), maxima[:size].amax(1))
        return tokens, best, second

    def rounding(self, best: Tensor) -> Tensor:
        """By how much the rounding of float32 may change the difference of two of a row's best scores."""
        channels = self.rows.shape[1]
        factor = (4 + 2 * channels**0.5) * torch.finfo(best.dtype).eps
        length = self.rows.norm(dim=1)
        if self.bias is None:
            return factor * length * self.longest
        distance = (length.square() - 2 * best).clamp_(min=0).sqrt_()
        # What is nearer than the best is no longer than this.
        reach = torch.minimum(length + distance, self.longest)
        return factor * (length + reach) * reach

    def compared(self, part: Tensor, limit: Tensor) -> Tensor:
        """The best entries of some rows, by float64, of all whose scores are above a limit."""
        row, entry = (self.of(self.rows[part]) > limit[:, None]).nonzero(as_tuple=True)
        if len(row) > _CROWDED * len(part):
            first = _first_of_equals(self.codebook)[entry]
            row, entry = row[first], entry[first]
        precise = torch.float32 if row.device.type == "mps" else torch.float64  # which MPS does not have
        step = max(1, _COMPARED // self.rows.shape[1])
        costs = []
        for of_row, of_entry in zip(part[row].split(step), entry.split(step), strict=True):
            x, e = self.latents[of_row].to(precise), self.codebook[of_entry].to(precise)
            costs.append(-(x * e).sum(1) if self.criterion == "product" else (x - e).square().sum(1))
        cost = torch.cat(costs)
        least = cost.new_full((len(part),), torch.inf).scatter_reduce_(0, row, cost, "amin")
        tied = cost == least[row]
        none = torch.full_like(part, len(self.codebook))
        return none.scatter_reduce_(0, row[tied], entry[tied], "amin")


def _half_squares(table: Tensor) -> Tensor:
    # In parts: the squares of a whole codebook would be as large as the codebook.
    return torch.cat([part.square().sum(1) for part in table.split(1024)]).mul_(0.5)


def _first_of_equals(table: Tensor) -> Tensor:
    """Whether an entry is the first of those that are equal to it, bool `(K,)`."""
    distinct, place = table.unique(dim=0, return_inverse=True)
    numbers = torch.arange(len(table), device=table.device)
    first = torch.full_like(numbers[: len(distinct)], len(table)).scatter_reduce_(0, place, numbers, "amin")
    return torch.zeros_like(numbers, dtype=torch.bool).index_fill_(0, first, True)
