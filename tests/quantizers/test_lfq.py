"""LFQ: the sources' numbers, exact tokens of up to 62 bits, losses by definition, stages that halve."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vistok.quantizers import Residual
from vistok.quantizers.bit_entropy import bit_entropies
from vistok.quantizers.lfq import LFQ, LFQConfig

GOLDEN = Path(__file__).parent / "golden"
LOSS = {"atol": 1e-5, "rtol": 1e-5}
GRADIENT = {"atol": 2e-5, "rtol": 1e-4}
SOURCES = ["lsb_seedvoken", "lsb_xyfjason", "msb_lucidrains", "msb_seed"]
CASES = [
    *(f"lfq_{source}_{bits}bits" for source in SOURCES for bits in (6, 10)),
    "lfq_lsb_seedvoken_6bits_small",
    "lfq_msb_lucidrains_6bits_small",
    "lfq_msb_zero_latents",
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


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str):
    golden, settings = load(name)
    temperature = settings.get("temperature") or 1 / settings.get("inverse_temperature", 100.0)
    quantizer = LFQ(
        settings["num_bits"],
        entropy_weight=1.0,
        diversity_gamma=1.0,
        commitment_weight=1.0,
        entropy_temperature=temperature,
        bit_order=settings["bit_order"],
    )
    latents = golden["latents"].requires_grad_()
    out = quantizer(latents)
    assert torch.equal(out.tokens, golden["tokens"])
    assert torch.equal(quantizer.encode(latents), golden["tokens"])
    assert torch.equal(quantizer.lookup(golden["tokens"]), golden["quantized"].sign())
    matches(out.quantized, golden["quantized"], atol=1e-5, rtol=0)
    functional = (golden["functional_weights"] * out.quantized).sum()
    matches(gradient(functional, latents), golden["grad/functional/latents"], **GRADIENT)
    matches(out.losses["commitment"], golden["loss/commitment"], **LOSS)
    matches(gradient(out.losses["commitment"], latents), golden["grad/commitment/latents"], **GRADIENT)
    if "corrected/loss/sample_entropy" in golden:  # the sources clip or shift the logarithm
        sample, codebook = (golden[f"corrected/loss/{term}_entropy"] for term in ("sample", "codebook"))
        matches(out.losses["entropy"], sample - codebook, **LOSS)
        to_latents = [golden[f"corrected/grad/{term}_entropy/latents"] for term in ("sample", "codebook")]
        matches(gradient(out.losses["entropy"], latents), to_latents[0] - to_latents[1], **GRADIENT)


def test_zero_is_negative_and_nan_is_in_range():
    quantizer = LFQ(num_bits=3)
    out = quantizer(torch.tensor([[0.0, -0.0, 1e-45], [torch.nan, torch.inf, -torch.inf]]))
    assert out.quantized.tolist() == [[-1, -1, 1], [-1, 1, -1]]
    assert out.tokens.tolist() == [1, 2]


@pytest.mark.parametrize("bit_order", ["msb", "lsb"])
@pytest.mark.parametrize("num_bits", [1, 2, 24, 25, 31, 32, 33, 53, 62])
def test_tokens_are_exact(num_bits: int, bit_order: str):
    quantizer = LFQ(num_bits, entropy_weight=0, bit_order=bit_order)
    last = 2**num_bits - 1
    assert quantizer.codebook_size == last + 1
    generator = torch.Generator().manual_seed(0)
    tokens = torch.cat(
        [torch.tensor([0, last, last // 3]), torch.randint(last + 1, (200,), generator=generator)]
    )
    vectors = quantizer.lookup(tokens)
    for token, vector in zip(tokens.tolist(), vectors.tolist(), strict=True):
        digits = "".join("1" if value == 1 else "0" for value in vector)
        assert token == int(digits if bit_order == "msb" else digits[::-1], 2)
    assert torch.equal(quantizer.index(vectors), tokens)
    assert torch.equal(quantizer.encode(0.01 * vectors), tokens)
    assert torch.equal(quantizer(vectors).tokens, tokens)


def by_definition(latents: Tensor, temperature: float, gamma: float) -> tuple[Tensor, Tensor]:
    """The entropy loss and the commitment loss of latents `(N, D)`, with the N x K matrix."""
    bits = latents.shape[1]
    corners = ((torch.arange(2**bits).unsqueeze(1) >> torch.arange(bits)) & 1).to(latents) * 2 - 1
    logarithms = (2 * latents @ corners.t() / temperature).log_softmax(1)
    mean = logarithms.exp().mean(0)
    sample, codebook = -(logarithms.exp() * logarithms).sum(1).mean(), -(mean * mean.log()).sum()
    signs = torch.where(latents > 0, 1.0, -1.0).to(latents)
    return sample - gamma * codebook, (latents - signs).square().mean()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("num_bits", [1, 2, 5, 8])
def test_losses_by_definition(num_bits: int, normalize: bool):
    quantizer = LFQ(num_bits, 0.3, 0.7, 0.2, 0.4, normalize=normalize)
    latents = normal(3, num_bits, 4, 5, dtype=torch.float64).requires_grad_()
    mask = normal(3, 4, 5, seed=1) > -0.5
    rows = latents.movedim(1, -1)[mask]
    if normalize:
        rows = rows / rows.norm(dim=1, keepdim=True) * num_bits**0.5
    entropy, commitment = by_definition(rows, 0.4, 0.7)
    losses = quantizer(latents, mask).losses
    assert list(losses) == ["entropy", "commitment"]
    for name, expected in (("entropy", 0.3 * entropy), ("commitment", 0.2 * commitment)):
        matches(losses[name], expected, atol=1e-12, rtol=1e-10)
        matches(gradient(losses[name], latents), gradient(expected, latents), atol=1e-9, rtol=1e-6)


def test_garbage_at_masked_places_does_not_leak():
    latents = normal(2, 6, 10)
    mask = torch.arange(10).expand(2, 10) < 7
    garbage = latents.masked_fill(~mask.unsqueeze(1), torch.nan)
    results = []
    for x in (latents, garbage):
        leaf = x.clone().requires_grad_()
        out = LFQ(6)(leaf, mask)
        out.loss.backward()
        results.append([out.loss.detach(), leaf.grad])
    assert not results[0][1][..., 7:].any()
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_a_loss_of_no_weight_is_left_out():
    latents = normal(2, 4, 5)
    assert list(LFQ(4, entropy_weight=0)(latents).losses) == ["commitment"]
    assert list(LFQ(4, commitment_weight=0)(latents).losses) == ["entropy"]
    assert LFQ(4, entropy_weight=0, commitment_weight=0)(latents).losses == {}
    assert LFQ(4).eval()(latents).losses == {}
    assert LFQ(4).batch_statistics
    assert not LFQ(4, entropy_weight=0).batch_statistics


def test_normalize_scales_to_the_length_of_the_entries():
    plain, normalized = LFQ(8, entropy_weight=0), LFQ(8, entropy_weight=0, normalize=True)
    latents = normal(50, 8)
    assert torch.equal(plain.encode(latents), normalized.encode(latents))
    matches(normalized(latents).losses["commitment"], normalized(7 * latents).losses["commitment"], **LOSS)
    matches(normalized.compared(latents).norm(dim=1), torch.full((50,), 8**0.5), atol=1e-5, rtol=0)
    leaf = latents.requires_grad_()
    weights = normal(50, 8, seed=1)
    smooth = gradient((normalized.compared(leaf) * weights).sum(), leaf)
    matches(gradient((normalized(leaf).quantized * weights).sum(), leaf), smooth, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_each_residual_stage_halves_the_error(normalize: bool):
    values = 4 * torch.rand(4000, 6, generator=torch.Generator().manual_seed(0)) - 2
    latents = LFQ(6).unbounded(values)
    errors = []
    for stages in (1, 2, 3, 4, 8):
        residual = Residual(lambda: LFQ(6, normalize=normalize), stages)
        out = residual(latents)
        assert all(loss.isfinite() for loss in out.losses.values())
        bounded = residual.quantizer(0).bounded(latents)
        if not normalize:
            matches(bounded, values, atol=1e-5, rtol=0)
        matches(residual.lookup(residual.encode(latents)), out.quantized.detach(), atol=1e-6, rtol=0)
        errors.append((out.quantized - bounded).square().mean().sqrt().item())
        assert (out.quantized - bounded).abs().max() < 2 ** (1 - stages) + 1e-5
    for before, after in zip(errors[:3], errors[1:4], strict=True):
        assert 1.8 < before / after < 2.2
    assert 14 < errors[3] / errors[4] < 18


@pytest.mark.parametrize("shared", [False, True])
def test_residual_tokens_of_the_most_stages_are_exact(shared: bool):
    stages = LFQ(5).most_stages()
    residual = Residual(lambda: LFQ(5), stages, shared)
    tokens = torch.randint(32, (3000, stages), generator=torch.Generator().manual_seed(0))
    assert torch.equal(residual.index(residual.lookup(tokens)), tokens)
    with pytest.raises(ValueError, match="num_codebooks"):
        Residual(lambda: LFQ(5), stages + 1)


@pytest.mark.parametrize("build", [LFQ, LFQConfig])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_bits", 0),
        ("num_bits", 63),
        ("num_bits", 10.0),
        ("entropy_weight", -1),
        ("diversity_gamma", -0.1),
        ("commitment_weight", float("nan")),
        ("entropy_temperature", 0),
        ("bit_order", "big"),
        ("normalize", 1),
    ],
)
def test_bad_values_are_named(build: type, name: str, value):
    with pytest.raises(ValueError, match=name):
        build(**{name: value})


@pytest.mark.parametrize("build", [LFQ, LFQConfig])
def test_the_range_of_bits(build: type):
    for num_bits in (1, 24, 25, 61, 62):
        assert build(num_bits=num_bits).num_bits == num_bits


@pytest.mark.parametrize(
    ("num_bits", "group_size"), [(10, 10), (24, 24), (26, 2), (36, 12), (48, 12), (62, 2)]
)
def test_more_bits_than_can_be_counted_are_counted_in_groups(num_bits: int, group_size: int):
    assert LFQ(num_bits).group_size == group_size
    if num_bits > 24:
        latents = (
            0.01 * torch.randn(2, num_bits, 9, generator=torch.Generator().manual_seed(0))
        ).requires_grad_()
        grouped, explicit = (
            bit_entropies(latents.movedim(1, -1).flatten(0, 1), g)[1] for g in (group_size, 1)
        )
        assert grouped <= explicit * (1 + 1e-6)
        LFQ(num_bits)(latents).loss.backward()
        assert latents.grad.isfinite().all()
