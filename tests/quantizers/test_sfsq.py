"""SFSQ: golden tokens, and exact in every precision."""

import math

import pytest
import torch

from vistok.quantizers import SFSQ, Residual


def test_golden():
    out = SFSQ([8, 5, 5, 5])(torch.tensor([[-0.7, 0.3, 1.1, -2.0]]))
    torch.testing.assert_close(out.quantized, torch.tensor([[2 / 7, 0.5, 0.75, 0.0]]))
    assert out.tokens.tolist() == [138]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_entry_of_64000_is_reached(dtype: torch.dtype):
    quantizer = SFSQ([8, 8, 8, 5, 5, 5])
    tokens = torch.arange(64_000)
    latents = torch.logit(quantizer.lookup(tokens).clamp(0.01, 0.99)).to(dtype)
    assert torch.equal(quantizer(latents).tokens, tokens)


def test_62_bits_are_exact():
    quantizer = SFSQ([4] * 31)
    assert quantizer.codebook_size == 2**62
    tokens = torch.randint(2**62, (1000,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantizer.index(quantizer.lookup(tokens)), tokens)


@pytest.mark.parametrize("levels", [[2, 2], [3, 5], [8, 8]])
def test_each_stage_lowers_the_error_by_its_levels(levels: list[int]):
    values = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0))
    latents = torch.logit(values.clamp(1e-4, 1 - 1e-4))
    errors = []
    for stages in (1, 2, 3):
        residual = Residual(lambda: SFSQ(levels), stages)
        quantized = residual.eval()(latents).quantized
        torch.testing.assert_close(residual.lookup(residual.encode(latents)), quantized, atol=1e-6, rtol=0)
        errors.append((quantized - values).square().mean(0).sqrt())
    for before, after in zip(errors, errors[1:], strict=False):
        assert ((before / after) > 0.7 * torch.tensor(levels)).all()


@pytest.mark.parametrize("levels", [[1], [0, 5], [8.5], [], [math.inf], [2] * 63])
def test_bad_levels(levels):
    with pytest.raises(ValueError, match="levels"):
        SFSQ(levels)
