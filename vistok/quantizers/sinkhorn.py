"""Which entry optimal transport gives each latent.

Preventing Local Pitfalls in Vector Quantization via Optimal Transport. Zhang et al. arXiv:2412.15195
Sinkhorn Distances: Lightspeed Computation of Optimal Transport. Cuturi. arXiv:1306.0895

Sinkhorn's plan is `a_k * exp(-s * d_nk) * b_n`; each iteration chooses the factors a so that all entries get
the same mass, then b so that all latents give the same. With the distances' minima `m_k = min_n d_nk` and
`r_n = min_k (d_nk - m_k)` taken out, `exp(-s * (d_nk - m_k - r_n))` is 1 somewhere in every row and every
column: no sum underflows, however far an outlier lies, and none needs a guard that would change the plan.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .distributed import minimum_over_ranks, sum_over_ranks
from .search import BLOCK, best_blocks, centred, nearest, padded

_CPU_TILE = 1 << 20  # bytes of distances in a tile on a CPU: they stay in its cache
_ACCELERATOR_TILE = 1 << 27  # enough to fill a GPU
_CLOSE = 1e-3  # of |x|^2: below it, too much of |x|^2 + |e|^2 - 2xe cancels
_SAFE = 1e30  # factors beyond it come near to float32's range
_SHARP = 300  # s * d above it: float32's rounding of d decides between entries that are nearly equal
_NEAR = 1e-3  # entries whose shares of a latent differ by less are compared in float64


@torch.no_grad()
def sinkhorn_tokens(
    rows: Tensor,
    table: Tensor,
    *,
    iterations: int = 5,
    epsilon: float = 10.0,
    cost_normalization: Literal["all", "dim", "none"] = "all",
    mask: Tensor | None = None,
    byte_budget: int = 2**29,
) -> Tensor:
    """The entry that gets most of each latent in the transport plan between all latents and all entries.

    The cost is the Euclidean distance. Over several ranks, the latents are those of all ranks. There are no
    small constants in denominators, and near-ties are decided in float64: float32 latents get the tokens of
    float64 unless an entry's share is as large as the largest to about 1e-5.

    Args:
        rows: float `(N, D)`, at least float32.
        table: float `(K, D)`, the same on all ranks.
        iterations: How often the entries' and the latents' sums are made equal.
        epsilon: The inverse temperature: the plan begins as `exp(-epsilon * cost)`.
        cost_normalization: What distances are divided by: their standard deviation (`"all"`), `sqrt(D)`
            (`"dim"`) or nothing (`"none"`).
        mask: bool, N places in any shape. Others take no part in the plan; their token is the nearest entry,
            as is that of rows that are not finite.
        byte_budget: The largest N x K matrix to keep, in bytes. Where it is larger, its parts are made anew
            in every iteration: the same tokens, in more time and hardly any memory.

    Returns:
        int64 `(N,)` in `[0, K)`.

    Raises:
        ValueError: `iterations`, `epsilon` or `cost_normalization` is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers.sinkhorn import sinkhorn_tokens
        >>> rows, table = torch.tensor([[0.0], [0.1], [0.2], [0.3]]), torch.tensor([[0.0], [9.0]])
        >>> sinkhorn_tokens(rows, table).tolist()  # the nearest entry of all four is entry 0
        [0, 0, 1, 1]
    """
    if iterations < 1 or not 0 < epsilon < float("inf"):
        raise ValueError(f"Expected iterations >= 1 and a finite epsilon > 0, got {iterations} and {epsilon}")
    if cost_normalization not in ("all", "dim", "none"):
        raise ValueError(f"Expected cost_normalization all, dim or none, got {cost_normalization!r}")
    mask = None if mask is None else mask.flatten()
    return _sinkhorn(
        rows.detach(),
        table.detach().to(rows.dtype),
        mask,
        iterations,
        float(epsilon),
        cost_normalization,
        byte_budget,
    )


# An operator of its own, so that torch.compile does not unroll the loop over tiles.
@torch.library.custom_op("vistok::sinkhorn", mutates_args=())
def _sinkhorn(
    rows: Tensor,
    table: Tensor,
    mask: Tensor | None,
    iterations: int,
    epsilon: float,
    cost_normalization: str,
    byte_budget: int,
) -> Tensor:
    latents, entries = centred(rows, table)
    largest = torch.finfo(rows.dtype).max / 16  # so that no squared distance is beyond the range
    if not entries.square().sum(1).amax() < largest:
        return nearest(rows, table)
    valid = latents.square().sum(1) < largest
    if mask is not None:
        valid &= mask
    plan = _Plan(iterations, epsilon, cost_normalization, byte_budget)
    if valid.all():
        return plan.tokens(latents, entries)
    tokens = nearest(rows, table)
    tokens[valid] = plan.tokens(latents[valid], entries)
    return tokens


@_sinkhorn.register_fake
def _(rows, table, mask, iterations, epsilon, cost_normalization, byte_budget) -> Tensor:
    return rows.new_empty(len(rows), dtype=torch.int64)


class _Plan(NamedTuple):
    iterations: int
    epsilon: float
    cost_normalization: str
    byte_budget: int

    def tokens(self, latents: Tensor, entries: Tensor) -> Tensor:
        count, size = len(latents), len(entries)
        tiles = Tiles(latents, entries, count * size * latents.itemsize <= self.byte_budget)

        lowest = latents.new_full((size,), torch.inf)
        total = torch.zeros_like(lowest, dtype=torch.float64)
        for part in tiles.parts:
            distances = tiles.distances(part)
            torch.minimum(lowest, distances.amin(0), out=lowest)
            total += distances.sum(0)  # over few rows: exact enough in float32
        minimum_over_ranks(lowest)
        joined, mean, deviation = _statistics(latents, entries, total.sum())
        if joined == 0:
            return torch.zeros(count, dtype=torch.int64, device=latents.device)
        scale = {"all": deviation + 1e-6, "dim": latents.shape[1] ** 0.5, "none": 1.0}
        sharpness = self.epsilon / scale[self.cost_normalization]
        if latents.dtype == torch.float32 and sharpness * mean > _SHARP:
            return self.tokens(latents.double(), entries.double())

        tiles.set_exponent(sharpness, lowest)
        sums = entries.new_zeros(size, dtype=torch.float64)
        for part in tiles.parts:
            kernel, top = tiles.first_kernel(part)
            sums += kernel.t() @ top.exp()
        factors = sum_over_ranks(sums).reciprocal()
        for _ in range(self.iterations - 1):
            single, sums = factors.to(latents.dtype), torch.zeros_like(sums)
            for part in tiles.parts:
                kernel = tiles.kernel(part)
                sums += kernel.t() @ (kernel @ single).reciprocal_()
            factors = sum_over_ranks(sums).reciprocal()
        in_range = factors.min() > 1 / _SAFE and factors.max() < _SAFE
        if latents.dtype == torch.float32 and not in_range:
            return self.tokens(latents.double(), entries.double())
        return tiles.best(factors)


class Tiles:
    """The distances and `exp(-s * (d_nk - m_k - r_n))`, a few rows at a time, kept where there is room."""

    def __init__(self, latents: Tensor, entries: Tensor, keep: bool = False):
        self.latents, self.entries = latents, entries
        self.squares = latents.square().sum(1)
        # One matrix product makes |x|^2 + |e|^2 - 2xe.
        self.left = torch.cat([-2 * latents, self.squares[:, None], torch.ones_like(latents[:, :1])], 1)
        self.right = torch.cat([entries, torch.ones_like(entries[:, :1]), entries.square().sum(1, True)], 1)
        count, size = len(latents), len(entries)
        tile = _CPU_TILE if latents.device.type == "cpu" else _ACCELERATOR_TILE
        self.rows = min(max(8, tile // (size * latents.itemsize)), max(1, count))
        self.parts = [slice(start, min(start + self.rows, count)) for start in range(0, count, self.rows)]
        self.keep = keep
        self.matrix = latents.new_empty(count if keep else self.rows, size)
        self.top = latents.new_empty(count, 1)

    def _place(self, part: slice) -> Tensor:
        return self.matrix[part] if self.keep else self.matrix[: part.stop - part.start]

    def distances(self, part: slice) -> Tensor:
        """The distances of some rows, `(rows, K)`."""
        squared = torch.mm(self.left[part], self.right.t(), out=self._place(part))
        limit = self.squares[part] * _CLOSE
        close = (squared.amin(1) < limit).nonzero()[:, 0]
        if len(close):  # so few that differences are cheap; without them some would be negative
            row, entry = (squared[close] < limit[close, None]).nonzero(as_tuple=True)
            row = close[row]
            squared[row, entry] = (self.latents[part][row] - self.entries[entry]).square().sum(1)
        return squared.sqrt_()

    def set_exponent(self, sharpness: float, lowest: Tensor) -> None:
        """Says `s` and the `m_k`, `(K,)`, of the kernel."""
        self.sharpness, self.shift = sharpness, sharpness * lowest

    def first_kernel(self, part: slice) -> tuple[Tensor, Tensor]:
        """The kernel, and the logarithms `(rows,)` of what its rows were divided by."""
        distances = self._place(part) if self.keep else self.distances(part)
        exponent = torch.add(self.shift, distances, alpha=-self.sharpness, out=distances)
        top = torch.amax(exponent, 1, keepdim=True, out=self.top[part])
        return exponent.sub_(top).exp_(), top[:, 0]

    def kernel(self, part: slice) -> Tensor:
        """The kernel of some rows, once `first_kernel` made their `r_n`."""
        if self.keep:
            return self._place(part)
        distances = self.distances(part)
        exponent = torch.add(self.shift, distances, alpha=-self.sharpness, out=distances)
        return exponent.sub_(self.top[part]).exp_()

    def best(self, factors: Tensor) -> Tensor:
        """The largest of `kernel * factors` in each row; of the two largest, if nearly equal, by float64."""
        count, size = len(self.latents), len(self.entries)
        found = torch.empty(count, 2, dtype=torch.int64, device=factors.device)
        values = self.latents.new_empty(count, 2)
        single = factors.to(values.dtype)
        scores = self.latents.new_full((self.rows, padded(size)), -1)
        for part in self.parts:
            plan = scores[: part.stop - part.start]
            torch.mul(self.kernel(part), single, out=plan[:, :size])
            _top_two(plan, found[part], values[part])
        near = (values[:, 1] >= values[:, 0] * (1 - _NEAR)).nonzero()[:, 0]
        pairs = found[near].sort(1).values  # of equals, the first
        difference = self.latents[near, None].double() - self.entries[pairs].double()
        logarithms = (self.shift.double() + factors.log())[pairs] - self.sharpness * difference.norm(dim=2)
        tokens = found[:, 0].clone()
        tokens[near] = torch.where(logarithms[:, 1] > logarithms[:, 0], pairs[:, 1], pairs[:, 0])
        return tokens


def _top_two(scores: Tensor, found: Tensor, values: Tensor) -> None:
    blocks = scores.unflatten(1, (-1, BLOCK))
    row = torch.arange(len(scores), device=scores.device)
    maxima = blocks.amax(2)
    for rank in (0, 1):
        block, within = best_blocks(blocks, maxima)
        value, place = within.max(1)
        found[:, rank], values[:, rank] = block * BLOCK + place, value
        blocks[row, block, place] = -1
        maxima[row, block] = blocks[row, block].amax(1)


def _statistics(latents: Tensor, entries: Tensor, total: Tensor) -> tuple[int, float, float]:
    """The latents on all ranks, and the mean and standard deviation of their distances, given the sum."""
    latents, entries = latents.double(), entries.double()
    own = torch.cat([total.new_full((1,), len(latents)), total[None], latents.square().sum()[None]])
    joined, total, squares, *channels = sum_over_ranks(torch.cat([own, latents.sum(0)])).tolist()
    count = joined * len(entries)
    product = sum(a * b for a, b in zip(channels, entries.sum(0).tolist(), strict=True))
    squares = len(entries) * squares + joined * entries.square().sum().item() - 2 * product
    mean = total / max(1, count)
    variance = (squares - count * mean**2) / max(1, count - 1)
    return int(joined), mean, max(0.0, variance) ** 0.5
