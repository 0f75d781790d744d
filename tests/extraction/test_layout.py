import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from token_folders import tiny

from vistok.extraction.layout import (
    flatten_tokens,
    merge_tokens,
    narrowest,
    split_tokens,
    unflatten_tokens,
)
from vistok.quantizers import LFQ


@pytest.mark.parametrize(
    ("codebook_size", "dtype"),
    [
        (2, "uint8"),
        (256, "uint8"),
        (257, "uint16"),
        (2**16, "uint16"),
        (2**16 + 1, "uint32"),
        (2**32 + 1, "uint64"),
    ],
)
def test_the_narrowest_integer_holds_the_last_token(codebook_size, dtype):
    assert narrowest(codebook_size) == dtype
    assert int(np.array([codebook_size - 1]).astype(narrowest(codebook_size))[0]) == codebook_size - 1


@pytest.mark.parametrize("order", ["place_major", "codebook_major"])
@pytest.mark.parametrize(("codebooks", "grid"), [(1, (2, 3)), (4, (2, 3)), (3, (7,))])
def test_unflatten_is_the_inverse_of_flatten(order, codebooks, grid):
    shape = (5, *grid) if codebooks == 1 else (5, codebooks, *grid)
    tokens = torch.randint(0, 100, shape)
    flat = flatten_tokens(tokens, codebooks, order)
    assert flat.shape == (5, codebooks * np.prod(grid))
    assert torch.equal(unflatten_tokens(flat, grid, codebooks, order), tokens)


def test_place_major_is_the_sequence_of_the_model():
    model = tiny(num_codebooks=3)
    pixel_values = torch.rand(2, 3, 16, 16) * 2 - 1
    flat = flatten_tokens(model.encode(pixel_values).tokens, 3, "place_major")
    assert torch.equal(flat, model.get_image_tokens(pixel_values).flatten(1))


def test_a_wrong_number_of_tokens_is_named():
    with pytest.raises(
        ValueError, match="Expected 32 tokens a picture, for 2 codebooks on a grid of 4 x 4, got 16"
    ):
        unflatten_tokens(torch.zeros(1, 16, dtype=torch.long), (4, 4), 2)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(0, 2**60 - 1))
def test_factors_and_back(bits, value):
    tokens = torch.tensor([value % 2 ** sum(bits), 0, 2 ** sum(bits) - 1])
    factors = split_tokens(tokens, bits)
    assert factors.shape == (3, len(bits))
    assert torch.equal(merge_tokens(factors, bits), tokens)


def test_open_magvit2s_order():
    # Its bits are the signs of 18 channels, the first channel the lowest bit; the factors are the numbers of
    # the first 6 and of the last 12 channels, each with its own lowest bit first.
    signs = torch.randint(0, 2, (50, 18))
    places = 2 ** torch.arange(18)
    factors = split_tokens((signs * places).sum(1), (6, 12))
    assert torch.equal(factors[:, 0], (signs[:, :6] * places[:6]).sum(1))
    assert torch.equal(factors[:, 1], (signs[:, 6:] * places[:12]).sum(1))


@pytest.mark.parametrize("bit_order", ["lsb", "msb"])
def test_factors_are_the_tokens_of_the_channels_in_their_order(bit_order):
    latents = torch.randn(50, 18, 1, 1)
    tokens = LFQ(18, bit_order=bit_order).eval()(latents).tokens.flatten()
    first, last = (
        LFQ(width, bit_order=bit_order).eval()(part).tokens.flatten()
        for width, part in ((6, latents[:, :6]), (12, latents[:, 6:]))
    )
    factors = split_tokens(tokens, (6, 12), bit_order)
    assert torch.equal(factors, torch.stack([first, last], dim=1))
    assert torch.equal(merge_tokens(factors, (6, 12), bit_order), tokens)
    with pytest.raises(ValueError, match="bit_order must be one of lsb, msb, got 'big'"):
        split_tokens(tokens, (6, 12), "big")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: split_tokens(torch.tensor([2**18]), (6, 12)),
        lambda: split_tokens(torch.tensor([-1]), (6, 12)),
        lambda: merge_tokens(torch.tensor([[64, 0]]), (6, 12)),
        lambda: merge_tokens(torch.tensor([[1, 2, 3]]), (6, 12)),
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="Expected"):
        wrong()
