"""FSQ: the papers' and the seeds' numbers, exact tokens of any size, every level within reach."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vistok import FSQConfig
from vistok.quantizers import FSQ

BOUNDS = ["atanh", "tan"]


def test_the_example_of_the_paper_and_the_seeds():
    quantizer = FSQ(levels=[3, 5, 4])
    out = quantizer(torch.tensor([[0.25, 0.6, -7.0]]))
    assert out.quantized.tolist() == [[0.0, 0.5, -1.0]]
    assert out.tokens.tolist() == [10]
    assert quantizer.lookup(torch.tensor([10])).tolist() == [[0.0, 0.5, -1.0]]
    assert quantizer.index(torch.tensor([[0.0, 0.5, -1.0]])).tolist() == [10]


@pytest.mark.parametrize("bound", BOUNDS)
def test_golden_token_186(bound: str):
    quantizer = FSQ(levels=[8, 5, 5, 5], bound=bound)
    out = quantizer(torch.tensor([[-0.7, 0.3, 1.1, -2.0]]))
    assert out.quantized.tolist() == [[-0.5, 0.5, 1.0, -1.0]]
    assert out.tokens.tolist() == [186]


@pytest.mark.parametrize(
    ("levels", "token"),
    [
        ([8, 5, 5, 5], 500),
        ([7, 5, 5, 5, 5], 2187),
        ([8, 8, 8, 6, 5], 7972),
        ([8, 8, 8, 5, 5, 5], 32036),
    ],
)
@pytest.mark.parametrize("bound", BOUNDS)
def test_token_of_zero(levels: list[int], token: int, bound: str):
    quantizer = FSQ(levels, bound)
    assert quantizer.encode(torch.zeros(1, len(levels))).tolist() == [token]
    assert quantizer.codebook_size == math.prod(levels)


def test_the_bounds_differ_in_about_one_percent_of_the_tokens():
    latents = 2 * torch.randn(50_000, 4, generator=torch.Generator().manual_seed(0))
    atanh, tan = (FSQ([8, 5, 5, 5], bound).encode(latents) for bound in BOUNDS)
    assert 0.005 < (atanh != tan).double().mean() < 0.02


@pytest.mark.parametrize("bound", BOUNDS)
def test_equals_the_formula_in_float64(bound: str):
    levels = torch.tensor([8, 5, 4, 3], dtype=torch.float64)
    slack, inverse = (1 + 1e-3, torch.atanh) if bound == "atanh" else (1 - 1e-3, torch.tan)
    half, offset = (levels - 1) * slack / 2, (levels % 2 == 0) / 2
    latents = torch.randn(20_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    steps = torch.round(half * torch.tanh(latents + inverse(offset / half)) - offset)
    quantizer = FSQ([8, 5, 4, 3], bound)
    out = quantizer(latents)
    torch.testing.assert_close(out.quantized, steps / (levels // 2), atol=1e-6, rtol=0)
    places = torch.tensor([1, 8, 40, 160], dtype=torch.float64)
    assert torch.equal(out.tokens, ((steps + levels // 2) * places).sum(1).long())


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_gradient_is_that_of_the_bound(bound: str):
    quantizer = FSQ([8, 5, 3], bound).double()
    latents = torch.randn(
        64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    weights = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (straight_through,) = torch.autograd.grad((quantizer(latents).quantized * weights).sum(), latents)
    (smooth,) = torch.autograd.grad((quantizer.bounded(latents) * weights).sum(), latents)
    torch.testing.assert_close(straight_through, smooth, atol=1e-6, rtol=1e-6)
    assert torch.autograd.gradcheck(quantizer.bounded, latents[:4])
    torch.testing.assert_close(quantizer.unbounded(quantizer.bounded(latents)), latents, atol=1e-4, rtol=1e-3)


def test_a_million_of_2_to_the_27_entries():
    quantizer = FSQ(levels=[8] * 9)
    assert quantizer.codebook_size == 2**27
    tokens = torch.randint(2**27, (10**6,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantizer.index(quantizer.lookup(tokens)), tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bound", BOUNDS)
def test_all_64000_entries_are_within_reach(bound: str, dtype: torch.dtype):
    quantizer = FSQ([8, 8, 8, 5, 5, 5], bound)
    tokens = torch.arange(64_000)
    vectors = quantizer.lookup(tokens)
    latents = quantizer.unbounded(vectors).to(dtype)
    assert torch.equal(quantizer.encode(latents), tokens)
    assert torch.equal(quantizer(latents).tokens, tokens)
    assert torch.equal(quantizer.index(vectors.to(dtype)), tokens)


@pytest.mark.parametrize("level", [2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("bound", BOUNDS)
def test_every_level_and_no_other_is_reached(bound: str, level: int):
    quantizer = FSQ([level], bound)
    tokens = quantizer.encode(torch.linspace(-12, 12, 20_001)[:, None])
    reached = tokens.unique().tolist()
    assert reached == list(range(level))
    assert (tokens.diff() >= 0).all()


@pytest.mark.parametrize(
    "levels", [[2] * 62, [2**16, 2**16], [2**24, 2**24], [8] * 20, [5] * 26, [3, 2**20, 2**20, 2**19]]
)
def test_products_far_above_2_to_the_31(levels: list[int]):
    quantizer = FSQ(levels)
    size = math.prod(levels)
    assert quantizer.codebook_size == size > 2**31
    generator = torch.Generator().manual_seed(0)
    tokens = torch.cat([torch.randint(size, (20_000,), generator=generator), torch.tensor([0, 1, size - 1])])
    vectors = quantizer.lookup(tokens)
    assert torch.equal(quantizer.index(vectors), tokens)
    assert vectors.abs().max() <= 1
    with pytest.raises(ValueError, match=str(size)):
        quantizer.lookup(torch.tensor([size]))


@given(st.lists(st.integers(2, 40), min_size=1, max_size=8), st.sampled_from(BOUNDS), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_levels(levels: list[int], bound: str, seed: int):
    quantizer = FSQ(levels, bound)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(quantizer.codebook_size, (2, 7), generator=generator)
    vectors = quantizer.lookup(tokens)
    assert torch.equal(quantizer.index(vectors), tokens)
    digits = [(tokens // math.prod(levels[:i])) % level for i, level in enumerate(levels)]
    expected = torch.stack(
        [(digit - level // 2).double() / (level // 2) for digit, level in zip(digits, levels, strict=True)],
        dim=1,
    )
    torch.testing.assert_close(vectors, expected.float())
    out = quantizer(3 * torch.randn(2, len(levels), 7, generator=generator))
    assert torch.equal(quantizer.index(out.quantized), out.tokens)


def test_every_token_up_to_the_end_of_the_float32_way():
    quantizer = FSQ([7, 5, 3, 9, 11, 97])  # 1,008,315: just below 2^20
    tokens = torch.arange(quantizer.codebook_size)
    digits, rest = [], tokens
    for level in quantizer.levels:
        digits.append(rest % level - level // 2)
        rest = rest // level
    steps = quantizer.lookup(tokens) * torch.tensor([level // 2 for level in quantizer.levels])
    assert torch.equal(steps.round().long(), torch.stack(digits, dim=1))


@pytest.mark.parametrize(
    "levels", [[], [1, 5], [0], [8.5], [8, -5], [2**25], [2] * 63, "8555", 8, [True, 5], None]
)
def test_bad_levels(levels):
    with pytest.raises(ValueError, match="levels"):
        FSQ(levels)
    with pytest.raises(ValueError, match="levels"):
        FSQConfig(levels=levels)


def test_bad_bound():
    with pytest.raises(ValueError, match="bound"):
        FSQ([8, 5], bound="sigmoid")
