"""The nearest codebook entry without the N x K matrix.

Scores are made tile by tile, a few rows against the whole codebook, so that a tile stays in the processor's
cache and memory does not grow with the number of latents. `argmin |x - e|^2 = argmax (x.e - |e|^2 / 2)`.
"""

import torch
from torch import Tensor

_BLOCK = 128  # entries per block of the two-stage argmax
_CPU_TILE = 1 << 18  # scores in a tile on a CPU: 1 MB of float32 stays in its cache
_CPU_WIDE_TILE = 1 << 21  # where the matrix product dominates
_ACCELERATOR_TILE = 1 << 25  # 128 MB: enough to fill a GPU
_CPU_ROWS, _ACCELERATOR_ROWS = 512, 4096  # at most in a tile: few latents cost a whole one
_WIDE = 32  # from this many channels on, the matrix product dominates and wants more rows


def nearest(latents: Tensor, codebook: Tensor, *, unit_norm: bool = False) -> Tensor:
    """The index of the nearest entry in Euclidean distance for each latent; the lowest index on ties.

    Args:
        latents: float `(N, D)`.
        codebook: float `(K, D)`, of the same dtype.
        unit_norm: Whether all entries have length one, so that their lengths do not matter.

    Returns:
        int64 `(N,)` in `[0, K)`, also for latents that are not finite.
    """
    return _nearest(latents.detach(), codebook.detach(), unit_norm)


def tile_rows(table: Tensor) -> int:
    """How many rows of scores against a whole table make a tile of a good size on its device."""
    on_cpu = table.device.type == "cpu"
    columns = -(-len(table) // _BLOCK) * _BLOCK if on_cpu else len(table)
    if not on_cpu:
        return min(max(8, _ACCELERATOR_TILE // columns), _ACCELERATOR_ROWS)
    if table.shape[1] > _WIDE:
        return min(max(64, _CPU_WIDE_TILE // columns), 256)
    return min(max(8, _CPU_TILE // columns), _CPU_ROWS)


# An operator of its own, so that torch.compile does not unroll the loop over tiles.
@torch.library.custom_op("vistok::nearest", mutates_args=())
def _nearest(latents: Tensor, codebook: Tensor, unit_norm: bool) -> Tensor:
    rows, entries = len(latents), len(codebook)
    bias = None if unit_norm else _half_squares(codebook).neg_()
    on_cpu = latents.device.type == "cpu"
    columns = -(-entries // _BLOCK) * _BLOCK if on_cpu else entries
    tile = tile_rows(codebook)
    tokens = torch.empty(rows, dtype=torch.int64, device=latents.device)
    # Every tile has the same shape, so that a latent's token does not depend on how many others there are.
    scores = latents.new_full((tile, columns), -torch.inf)
    table = codebook.t()
    for start in range(0, rows, tile):
        x = latents[start : start + tile]
        count = len(x)
        if count < tile:
            x = torch.cat([x, x.new_zeros(tile - count, x.shape[1])])
        if bias is None:
            torch.mm(x, table, out=scores[:, :entries])
        else:
            torch.addmm(bias, x, table, out=scores[:, :entries])
        best = _blocked_argmax(scores) if on_cpu else scores.argmax(1)
        tokens[start : start + count] = best[:count]
    return tokens


def _half_squares(codebook: Tensor) -> Tensor:
    # In parts: the squares of a whole codebook would be as large as the codebook.
    return torch.cat([part.square().sum(1) for part in codebook.split(1024)]).mul_(0.5)


@_nearest.register_fake
def _(latents: Tensor, codebook: Tensor, unit_norm: bool) -> Tensor:
    return latents.new_empty(len(latents), dtype=torch.int64)


def _blocked_argmax(scores: Tensor) -> Tensor:
    # A CPU finds a maximum much faster than its place: first the best block, then the place within it.
    blocks = scores.unflatten(1, (-1, _BLOCK))
    block = blocks.amax(2).argmax(1)
    within = blocks[torch.arange(len(scores), device=scores.device), block].argmax(1)
    return block * _BLOCK + within
