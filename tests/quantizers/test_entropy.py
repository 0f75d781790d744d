"""Entropies: the sources' numbers, the definition in float64, masks, nothing of size N x K."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from vistok.quantizers import bit_entropy, softmax_entropy
from vistok.quantizers.bit_entropy import bit_entropies
from vistok.quantizers.softmax_entropy import softmax_entropies

GOLDEN = Path(__file__).parent / "golden"
LOSS = {"atol": 1e-5, "rtol": 1e-5}
GRADIENT = {"atol": 2e-5, "rtol": 1e-4}
WITH_CORRECTIONS = [
    "lfq_lsb_seedvoken_10bits",
    "lfq_lsb_seedvoken_6bits",
    "lfq_lsb_seedvoken_6bits_small",
    "lfq_msb_lucidrains_10bits",
    "lfq_msb_lucidrains_6bits",
    "lfq_msb_lucidrains_6bits_small",
    "lfq_msb_seed_10bits",
    "lfq_msb_seed_6bits",
]


def load(name: str) -> tuple[dict[str, Tensor], dict]:
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    return load_file(GOLDEN / f"{name}.safetensors"), case


def rows_of(latents: Tensor) -> Tensor:
    return latents.movedim(1, -1).flatten(0, -2)


def matches(actual: Tensor, expected: Tensor, **tolerance: float) -> None:
    torch.testing.assert_close(actual, expected.to(actual.dtype), **tolerance)


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves, retain_graph=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def corners(bits: int) -> Tensor:
    """All entries of {-1, 1}^bits, the first channel the least significant."""
    return ((torch.arange(2**bits).unsqueeze(1) >> torch.arange(bits)) & 1).double() * 2 - 1


def entropies_of(log_probabilities: Tensor, epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    """By definition, from the N x K matrix."""
    probabilities = log_probabilities.exp()
    mean = probabilities.mean(0)
    inside = mean + epsilon if epsilon else mean.clamp(min=1e-300)
    return -(probabilities * log_probabilities).sum(1).mean(), -(mean * inside.log()).sum()


def bits_by_definition(logits: Tensor, group_size: int | None = None) -> tuple[Tensor, Tensor]:
    groups = logits.split(group_size or logits.shape[1], dim=1)
    both = [entropies_of((group / 2 @ corners(group.shape[1]).t()).log_softmax(1)) for group in groups]
    return tuple(torch.stack(terms).sum() for terms in zip(*both, strict=True))


def softmax_by_definition(
    rows: Tensor, table: Tensor, temperature: float, distances: bool, epsilon: float = 1e-5
) -> tuple[Tensor, Tensor]:
    scores = -(rows.unsqueeze(1) - table).square().sum(2) if distances else rows @ table.t()
    return entropies_of((scores / temperature).log_softmax(1), epsilon)


# Bits


@pytest.mark.parametrize("name", WITH_CORRECTIONS)
def test_bits_golden(name: str):
    golden, case = load(name)
    settings = case["settings"]
    temperature = settings.get("temperature") or 1 / settings["inverse_temperature"]
    latents = golden["latents"].requires_grad_()
    both = bit_entropies(rows_of(latents) * 4 / temperature)
    for term, value in zip(("sample_entropy", "codebook_entropy"), both, strict=True):
        matches(value, golden[f"corrected/loss/{term}"], **LOSS)
        (gradient,) = gradients(value, latents)
        matches(gradient, golden[f"corrected/grad/{term}/latents"], **GRADIENT)


@pytest.mark.parametrize(
    ("bits", "group_size"), [(1, None), (2, None), (3, None), (7, None), (6, 1), (6, 2), (6, 3), (9, 3)]
)
@pytest.mark.parametrize("scale", [0.3, 3.0, 40.0])
@pytest.mark.parametrize("places", [1, 2, 300])
def test_bits_equal_the_definition(bits: int, group_size: int | None, scale: float, places: int):
    logits = (scale * normal(places, bits)).requires_grad_()
    single = logits.detach().float().requires_grad_()
    both = zip(
        bit_entropies(logits, group_size),
        bit_entropies(single, group_size),
        bits_by_definition(logits, group_size),
        strict=True,
    )
    for value, in_float32, expected in both:
        matches(value, expected, atol=1e-12, rtol=1e-12)
        matches(in_float32, expected, **LOSS)
        (gradient,) = gradients(expected, logits)
        matches(gradients(value, logits)[0], gradient, atol=1e-12, rtol=1e-9)
        matches(gradients(in_float32, single)[0], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_where_probabilities_underflow(dtype: torch.dtype):
    logits = (2000 * normal(40, 8).clamp(-1, 1)).to(dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    for value, expected in zip(bit_entropies(logits), bits_by_definition(exact), strict=True):
        matches(value, expected.detach(), **LOSS)
        gradient, exact_gradient = gradients(value, logits)[0], gradients(expected, exact)[0]
        assert gradient.isfinite().all()
        # 400 = 4 / temperature: what the latents of LFQ get
        matches(400 * gradient, 400 * exact_gradient, **GRADIENT)


def test_bits_of_few_and_of_even_use():
    certain = 100 * corners(5)
    sample, codebook = bit_entropies(certain)
    assert sample < 1e-12
    matches(codebook, torch.tensor(5 * math.log(2)), **LOSS)
    sample, codebook = bit_entropies(certain[3:4].expand(9, -1).float())
    assert sample < 1e-12
    assert codebook.abs() < 1e-12
    sample, codebook = bit_entropies(torch.zeros(4, 5))
    matches(sample, torch.tensor(5 * math.log(2)), **LOSS)
    matches(codebook, torch.tensor(5 * math.log(2)), **LOSS)


def test_bits_are_counted_over_all_tiles():
    logits = normal(20_001, 4).requires_grad_()  # more places than the largest tile
    for value, expected in zip(bit_entropies(logits), bits_by_definition(logits), strict=True):
        matches(value, expected, atol=1e-10, rtol=0)
        matches(gradients(value, logits)[0], gradients(expected, logits)[0], atol=1e-14, rtol=1e-8)


@pytest.mark.parametrize("group_size", [None, 1, 2])
def test_bits_gradcheck(group_size: int | None):
    logits = normal(5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: bit_entropies(x, group_size), logits)


# A softmax over a table


@pytest.mark.parametrize("distances", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.05])
@pytest.mark.parametrize("entries", [1, 7, 300])
def test_softmax_equals_the_definition(entries: int, temperature: float, distances: bool):
    rows, table = normal(1200, 5).requires_grad_(), normal(entries, 5, seed=1).requires_grad_()
    both = zip(
        softmax_entropies(rows, table, temperature, distances=distances),
        softmax_by_definition(rows, table, temperature, distances),
        strict=True,
    )
    for value, expected in both:
        matches(value, expected, atol=1e-12, rtol=1e-12)
        for gradient, wanted in zip(
            gradients(value, rows, table), gradients(expected, rows, table), strict=True
        ):
            matches(gradient, wanted, atol=1e-13, rtol=1e-9)


def test_softmax_with_another_epsilon():
    rows, table = normal(20, 3).requires_grad_(), 30 * normal(50, 3, seed=1)
    for epsilon in (0.0, 1e-2):
        _, codebook = softmax_entropies(rows, table, 0.01, distances=True, epsilon=epsilon)
        _, expected = softmax_by_definition(rows, table, 0.01, True, epsilon)
        matches(codebook, expected.detach(), atol=1e-12, rtol=1e-12)
        assert gradients(codebook, rows)[0].isfinite().all()


def test_softmax_far_apart_in_float32():
    rows = (300 * normal(30, 4)).float().requires_grad_()
    table = (300 * normal(20, 4, seed=1)).float().requires_grad_()
    for value in softmax_entropies(rows, table, 0.01, distances=True):
        assert value.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients(value, rows, table))


@pytest.mark.parametrize("distances", [True, False])
def test_softmax_gradcheck(distances: bool):
    rows, table = normal(4, 3).requires_grad_(), normal(6, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, e: softmax_entropies(x, e, 0.7, distances=distances, epsilon=1e-3), (rows, table)
    )


@pytest.mark.parametrize("bits", [6, 10])
@pytest.mark.parametrize("source", ["seedvoken", "xyfjason"])
def test_softmax_over_all_corners_is_the_published_lfq(source: str, bits: int):
    golden, case = load(f"lfq_lsb_{source}_{bits}bits")
    latents = golden["latents"].requires_grad_()
    temperature = case["settings"]["temperature"] / 2  # softmax(2 <z, c> / temperature)
    sample, codebook = softmax_entropies(
        rows_of(latents), corners(bits).float(), temperature, distances=False
    )
    values = {"sample_entropy": sample, "codebook_entropy": codebook, "entropy": sample - codebook}
    absolute = float(case["tolerance"]["gradients"].split()[0])
    for term, value in values.items():
        if f"loss/{term}" in golden:
            matches(value, golden[f"loss/{term}"], **LOSS)
            expected = golden[f"grad/{term}/latents"]
            matches(gradients(value, latents)[0], expected, atol=absolute, rtol=1e-4)


def test_softmax_golden_of_llamagen():
    golden, case = load("vq_l2_llamagen_32x8")
    latents, codebook = golden["latents"].requires_grad_(), golden["parameters/codebook"].requires_grad_()
    sample, joint = softmax_entropies(
        F.normalize(rows_of(latents), dim=1),
        F.normalize(codebook, dim=1),
        case["settings"]["entropy_temperature"],
        distances=True,
    )
    matches(sample - joint, golden["loss/entropy"], **LOSS)
    for leaf, gradient in zip(
        ("latents", "codebook"), gradients(sample - joint, latents, codebook), strict=True
    ):
        matches(gradient, golden[f"grad/entropy/{leaf}"], **GRADIENT)


# Both


TABLE = normal(9, 4, seed=1)


def of_bits(rows: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return bit_entropies(rows, mask=mask)


def of_softmax(rows: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return softmax_entropies(rows, TABLE.to(rows.dtype), 0.5, distances=True, mask=mask)


over_both = pytest.mark.parametrize("entropies", [of_bits, of_softmax])


@over_both
def test_masked_places_have_no_part(entropies):
    rows = normal(30, 4)
    mask = torch.rand(30, generator=torch.Generator().manual_seed(0)) < 0.6
    rows[~mask] = torch.nan
    rows.requires_grad_()
    kept = rows.detach()[mask].requires_grad_()
    for value, expected in zip(entropies(rows, mask.view(5, 6)), entropies(kept), strict=True):
        assert torch.equal(value, expected)
        gradient = gradients(value, rows)[0]
        assert torch.equal(gradient[mask], gradients(expected, kept)[0])
        assert not gradient[~mask].any()


@over_both
def test_no_places_at_all(entropies):
    rows = torch.zeros(0, 4, requires_grad=True)
    masked = torch.ones(3, 4, requires_grad=True)
    for leaf, mask in ((rows, None), (masked, torch.zeros(3, dtype=torch.bool))):
        for value in entropies(leaf, mask):
            assert value == 0
            assert not gradients(value, leaf)[0].any()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of torch itself
@over_both
@pytest.mark.parametrize("transposed", [False, True])  # as those of one picture are
def test_traces_as_one_graph(entropies, transposed: bool):
    rows, mask = normal(30, 4), torch.arange(30) % 3 > 0
    rows = (rows.t().contiguous().t() if transposed else rows).requires_grad_()
    torch.compiler.reset()
    compiled = torch.compile(entropies, fullgraph=True, backend="aot_eager")
    for value, expected in zip(compiled(rows, mask), entropies(rows, mask), strict=True):
        assert torch.equal(value, expected)
        assert torch.equal(gradients(value, rows)[0], gradients(expected, rows)[0])


@over_both
def test_operators_describe_themselves(entropies, monkeypatch):
    # What torch.compile is told of the operators' outputs is true of them.
    operators = [(bit_entropy, f"_bits_{way}") for way in ("forward", "backward")]
    operators += [(softmax_entropy, f"_softmax_{way}") for way in ("forward", "backward")]
    for module, name in operators:
        operator = getattr(module, name)

        def checked(*args, operator=operator):
            torch.library.opcheck(operator, args, test_utils=("test_schema", "test_faketensor"))
            return operator(*args)

        monkeypatch.setattr(module, name, checked)
    for rows in (normal(10, 4), normal(4, 10).t()):  # the second as those of one picture are
        rows.requires_grad_()
        for mask in (None, torch.arange(10) % 3 > 0):
            sum(entropies(rows, mask)).backward()
        assert rows.grad.isfinite().all()


def test_no_matrix_of_places_times_entries(monkeypatch):
    places, bits, largest = 6000, 14, 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(out):
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())
            return out

    logits = normal(places, bits).float().requires_grad_()
    rows, table = normal(600, 4).float().requires_grad_(), normal(2**14, 4, seed=1).float().requires_grad_()
    with Watch():
        sum(bit_entropies(logits)).backward()
    assert 0 < largest <= 2**19  # a hundredth of N x K, and however many places there are
    largest = 0
    with Watch():
        sum(softmax_entropies(rows, table, 1.0, distances=True)).backward()
    assert 0 < largest <= 2**18
