"""BSQ: the source's numbers, entropies of groups by definition, stages that halve, exact tokens."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vistok.quantizers import Residual
from vistok.quantizers.bsq import BSQ, BSQConfig

GOLDEN = Path(__file__).parent / "golden"
LOSS = {"atol": 1e-5, "rtol": 1e-5}
GRADIENT = {"atol": 2e-5, "rtol": 1e-4}
CASES = [
    f"bsq_{bits}bits_group{size}_{mode}"
    for bits, size in ((8, 8), (12, 4))
    for mode in ("group", "analytical")
]


def load(name: str) -> tuple[dict[str, Tensor], dict]:
    settings = json.loads((GOLDEN / f"{name}.json").read_text())["settings"]
    return load_file(GOLDEN / f"{name}.safetensors"), settings


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss, leaf, retain_graph=True)[0]


def matches(actual: Tensor, expected: Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(actual, expected.to(actual.dtype), **tolerance)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(settings: dict, **weights: float) -> BSQ:
    weights = {"entropy_weight": 0.0, "commitment_weight": 0.0, **weights}
    analytical = settings["sample_entropy"] == "analytical"
    return BSQ(
        settings["num_bits"],
        1 if analytical else settings["group_size"],
        entropy_temperature=1 / settings["inverse_temperature"],
        bit_order=settings["bit_order"],
        **weights,
    )


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str):
    golden, settings = load(name)
    latents = golden["latents"].requires_grad_()
    quantizer = build(settings, commitment_weight=1.0)
    out = quantizer(latents)
    assert torch.equal(out.tokens, golden["tokens"])
    assert torch.equal(quantizer.encode(latents), golden["tokens"])
    matches(out.quantized, golden["quantized"], atol=1e-5, rtol=0)
    matches(quantizer.lookup(golden["tokens"]), golden["quantized"], atol=1e-5, rtol=0)
    functional = (golden["functional_weights"] * out.quantized).sum() / settings["num_bits"] ** 0.5
    matches(gradient(functional, latents), golden["grad/functional/latents"], **GRADIENT)
    sample = build(settings, entropy_weight=1.0, diversity_gamma=0.0)(latents).losses["entropy"]
    both = build(settings, entropy_weight=1.0, diversity_gamma=1.0)(latents).losses["entropy"]
    terms = {
        "commitment_sum_over_channels": out.losses["commitment"],
        "sample_entropy": sample,
        "codebook_entropy": sample - both,
    }
    for term, value in terms.items():
        matches(value, golden[f"loss/{term}"], **LOSS)
        matches(gradient(value, latents), golden[f"grad/{term}/latents"], **GRADIENT)


def by_definition(units: Tensor, group_size: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The sample and the codebook entropy of unit vectors `(N, D)`, with the matrix of all probabilities."""
    corners = (torch.arange(2**group_size).unsqueeze(1) >> torch.arange(group_size)) & 1
    corners = (corners.to(units) * 2 - 1) / units.shape[1] ** 0.5
    sample = codebook = 0
    for group in units.split(group_size, dim=1):
        logarithms = (2 * group @ corners.t() / temperature).log_softmax(1)
        mean = logarithms.exp().mean(0)
        sample = sample - (logarithms.exp() * logarithms).sum(1).mean()
        codebook = codebook - (mean * mean.log()).sum()
    return sample, codebook


@pytest.mark.parametrize(("num_bits", "group_size"), [(1, None), (7, None), (6, 1), (6, 3), (6, 6), (10, 5)])
def test_losses_by_definition(num_bits: int, group_size: int | None):
    quantizer = BSQ(num_bits, group_size, 0.3, 0.7, 0.2, 0.1)
    latents = normal(3, num_bits, 4, 5, dtype=torch.float64).requires_grad_()
    mask = normal(3, 4, 5, seed=1) > -0.5
    rows = latents.movedim(1, -1)[mask]
    units = rows / rows.norm(dim=1, keepdim=True)
    sample, codebook = by_definition(units, group_size or num_bits, 0.1)
    distance = (units - units.detach().sign() / num_bits**0.5).square().sum(1).mean()
    losses = quantizer(latents, mask).losses
    assert list(losses) == ["entropy", "commitment"]
    expected = {"entropy": 0.3 * (sample - 0.7 * codebook), "commitment": 0.2 * distance}
    for name, value in expected.items():
        matches(losses[name], value, atol=1e-12, rtol=1e-10)
        matches(gradient(losses[name], latents), gradient(value, latents), atol=1e-9, rtol=1e-6)


def test_groups_overestimate_the_codebook_entropy():
    latents = normal(200, 12) @ normal(12, 12, seed=1)  # channels that depend on each other
    entropies = []
    for group_size in (None, 6, 3, 1):
        quantizer = BSQ(12, group_size, 1.0, 1.0, 0.0)
        sample_only = BSQ(12, group_size, 1.0, 0.0, 0.0)
        entropies.append((sample_only(latents).loss - quantizer(latents).loss).item())
    assert entropies == sorted(entropies)
    assert entropies[0] < entropies[-1] - 0.1


def test_garbage_at_masked_places_does_not_leak():
    latents = normal(2, 6, 10)
    mask = torch.arange(10).expand(2, 10) < 7
    garbage = latents.masked_fill(~mask.unsqueeze(1), 1e6)
    results = []
    for x in (latents, garbage):
        leaf = x.clone().requires_grad_()
        out = BSQ(6)(leaf, mask)
        out.loss.backward()
        results.append([out.loss.detach(), leaf.grad])
    assert not results[0][1][..., 7:].any()
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_entries_are_of_unit_length_and_the_gradient_is_that_of_the_normalization():
    quantizer = BSQ(9)
    latents, weights = normal(40, 9).requires_grad_(), normal(40, 9, seed=1)
    out = quantizer(latents)
    matches(out.quantized.norm(dim=1), torch.ones(40), atol=1e-5, rtol=0)
    smooth = gradient((latents / latents.norm(dim=1, keepdim=True) * weights).sum(), latents)
    matches(gradient((out.quantized * weights).sum(), latents), smooth, atol=1e-6, rtol=1e-5)


def test_a_latent_of_zero():
    latents = torch.zeros(1, 4, requires_grad=True)
    out = BSQ(4)(latents)
    assert out.tokens.tolist() == [0]
    (out.loss + out.quantized.sum()).backward()
    assert latents.grad.isfinite().all()


@pytest.mark.parametrize("bit_order", ["msb", "lsb"])
@pytest.mark.parametrize("num_bits", [1, 18, 36, 62])
def test_tokens_are_exact(num_bits: int, bit_order: str):
    quantizer = BSQ(num_bits, 1, bit_order=bit_order)
    tokens = torch.randint(2**num_bits, (300,), generator=torch.Generator().manual_seed(0))
    tokens[:2] = torch.tensor([0, 2**num_bits - 1])
    vectors = quantizer.lookup(tokens)
    assert torch.equal(quantizer.index(vectors), tokens)
    bits = [place for place in range(num_bits) if int(tokens[5]) >> place & 1]
    channels = [num_bits - 1 - bit if bit_order == "msb" else bit for bit in bits]
    assert sorted(channels) == (vectors[5] > 0).nonzero().flatten().tolist()


def test_each_residual_stage_halves_the_error():
    latents = normal(4000, 16)
    errors = []
    for stages in (1, 2, 3, 4, 8):
        residual = Residual(lambda: BSQ(16), stages)
        out = residual(latents)
        assert all(loss.isfinite() for loss in out.losses.values())
        bounded = residual.quantizer(0).bounded(latents)
        matches(residual.lookup(residual.encode(latents)), out.quantized.detach(), atol=1e-6, rtol=0)
        assert (out.quantized - bounded).abs().max() < 2 ** (1 - stages) / 4 + 1e-5
        errors.append((out.quantized - bounded).square().mean().sqrt().item())
    for before, after in zip(errors[:3], errors[1:4], strict=True):
        assert 1.8 < before / after < 2.2
    assert 14 < errors[3] / errors[4] < 18
    # What lies beyond twice an entry, 5 % of the channels, is all that never comes back.
    units = torch.nn.functional.normalize(latents, dim=1)
    assert (out.quantized - units).norm(dim=1).mean() < 0.1


@pytest.mark.parametrize("num_bits", [5, 16, 36])
def test_residual_tokens_of_the_most_stages_are_exact(num_bits: int):
    stages = BSQ(num_bits, 1).most_stages()
    residual = Residual(lambda: BSQ(num_bits, 1), stages)
    tokens = torch.randint(2**num_bits, (3000, stages), generator=torch.Generator().manual_seed(0))
    assert torch.equal(residual.index(residual.lookup(tokens)), tokens)


@pytest.mark.parametrize("build", [BSQ, BSQConfig])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_bits", 0),
        ("num_bits", 63),
        ("group_size", 0),
        ("group_size", 4),
        ("group_size", 1.5),
        ("entropy_weight", -1),
        ("entropy_temperature", 0),
        ("bit_order", "big"),
    ],
)
def test_bad_values_are_named(build: type, name: str, value):
    with pytest.raises(ValueError, match=name):
        build(**{name: value})


@pytest.mark.parametrize("build", [BSQ, BSQConfig])
def test_more_bits_than_can_be_counted(build: type):
    build(num_bits=24)
    build(num_bits=48, group_size=24)
    build(num_bits=36)
    with pytest.raises(ValueError, match="group_size must be at most 24.*30"):
        build(num_bits=60, group_size=30)
