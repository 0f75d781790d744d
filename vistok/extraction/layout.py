"""How the tokens of a picture lie in a row of a shard: the order of codebooks, the width of an integer.

Also the factors of a large vocabulary: a token of 18 bits as one of 6 and one of 12 bits, as in Open-MAGVIT2
(arXiv:2409.04410), whose first factor is of the first channels.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

TokenOrder = Literal["place_major", "codebook_major"]
BitOrder = Literal["lsb", "msb"]
TOKEN_ORDERS = ("place_major", "codebook_major")


def narrowest(codebook_size: int) -> np.dtype:
    """The narrowest unsigned integer that holds every token of a codebook.

    Example:
        >>> str(narrowest(2**16)), str(narrowest(2**16 + 1))
        ('uint16', 'uint32')
    """
    return np.min_scalar_type(codebook_size - 1)


def flatten_tokens(tokens: Tensor, num_codebooks: int, order: TokenOrder = "place_major") -> Tensor:
    """One sequence a picture.

    Args:
        tokens: int `(B, *grid)`, or `(B, K, *grid)` with K codebooks.
        num_codebooks: K.
        order: `"place_major"` keeps the K tokens of one place together, as `VQModelHF.get_image_tokens` does;
            `"codebook_major"` puts all of the first codebook first.

    Returns:
        int `(B, L)`, where L is the number of places times K.

    Example:
        >>> flatten_tokens(torch.tensor([[[0, 1], [10, 11]]]), 2).tolist()
        [[0, 10, 1, 11]]
        >>> flatten_tokens(torch.tensor([[[0, 1], [10, 11]]]), 2, "codebook_major").tolist()
        [[0, 1, 10, 11]]
    """
    if num_codebooks > 1 and order == "place_major":
        tokens = tokens.flatten(2).transpose(1, 2)
    return tokens.flatten(1)


def unflatten_tokens(
    tokens: Tensor, grid: Sequence[int], num_codebooks: int, order: TokenOrder = "place_major"
) -> Tensor:
    """The inverse of `flatten_tokens`: what `VQModelHF.decode` takes.

    Args:
        tokens: int `(B, L)`.
        grid: The shape of one codebook's tokens.
        num_codebooks: K.
        order: As in `flatten_tokens`.

    Returns:
        int `(B, *grid)`, or `(B, K, *grid)` with K codebooks.

    Raises:
        ValueError: L is not the number of places times K.
    """
    expected = math.prod(grid) * num_codebooks
    if tokens.shape[-1] != expected:
        raise ValueError(
            f"Expected {expected} tokens a picture, for {num_codebooks} codebooks on a grid of "
            f"{' x '.join(map(str, grid))}, got {tokens.shape[-1]}"
        )
    if num_codebooks == 1:
        return tokens.unflatten(1, tuple(grid))
    if order == "place_major":
        tokens = tokens.unflatten(1, (-1, num_codebooks)).transpose(1, 2).flatten(1)
    return tokens.unflatten(1, (num_codebooks, *grid))


def split_tokens(tokens: Tensor, bits: Sequence[int], bit_order: BitOrder = "lsb") -> Tensor:
    """Factors of tokens, that of the first channels first, for a generator that predicts one after another.

    Args:
        tokens: int `(...)` in `[0, 2^sum(bits))`.
        bits: The bits of each factor; `(6, 12)` is Open-MAGVIT2's for a vocabulary of 2^18.
        bit_order: That of the tokenizer's configuration, which the plan of a folder of tokens holds:
            `"lsb"`, as Open-MAGVIT2 has it, where the first channels are the lowest bits, `"msb"` where they
            are the highest.

    Returns:
        int64 `(..., len(bits))`.

    Raises:
        ValueError: A token is out of range.

    Example:
        >>> split_tokens(torch.tensor([5 + 7 * 64]), (6, 12)).tolist()
        [[5, 7]]
        >>> split_tokens(torch.tensor([5 * 4096 + 7]), (6, 12), "msb").tolist()
        [[5, 7]]
    """
    tokens = tokens.long()
    _check_factors(tokens, sum(bits), "tokens")
    shifts = _shifts(bits, bit_order)
    return torch.stack(
        [(tokens >> shift) & (2**width - 1) for shift, width in zip(shifts, bits, strict=True)], dim=-1
    )


def merge_tokens(factors: Tensor, bits: Sequence[int], bit_order: BitOrder = "lsb") -> Tensor:
    """The inverse of `split_tokens`.

    Args:
        factors: int `(..., len(bits))`, each in `[0, 2^its bits)`.
        bits: The bits of each factor.
        bit_order: As for `split_tokens`.

    Returns:
        int64 `(...)`.

    Raises:
        ValueError: A factor is out of range, or there are not as many as `bits`.

    Example:
        >>> merge_tokens(torch.tensor([[5, 7]]), (6, 12)).item() == 5 + 7 * 64
        True
    """
    if factors.shape[-1] != len(bits):
        raise ValueError(f"Expected {len(bits)} factors in the last dimension, got {tuple(factors.shape)}")
    tokens = torch.zeros(factors.shape[:-1], dtype=torch.long, device=factors.device)
    for place, (shift, width) in enumerate(zip(_shifts(bits, bit_order), bits, strict=True)):
        factor = factors[..., place].long()
        _check_factors(factor, width, f"factor {place}")
        tokens |= factor << shift
    return tokens


def _shifts(bits: Sequence[int], bit_order: BitOrder) -> list[int]:
    if bit_order not in get_args(BitOrder):
        raise ValueError(f"bit_order must be one of {', '.join(get_args(BitOrder))}, got {bit_order!r}")
    if bit_order == "lsb":
        return [sum(bits[:place]) for place in range(len(bits))]
    return [sum(bits[place + 1 :]) for place in range(len(bits))]


def _check_factors(tokens: Tensor, bits: int, name: str) -> None:
    if not 1 <= bits <= 62:
        raise ValueError(f"bits must be between 1 and 62 in all, got {bits}")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < 2**bits:
        raise ValueError(
            f"Expected {name} in [0, {2**bits}), got {int(tokens.min())} to {int(tokens.max())}: check bits"
        )
