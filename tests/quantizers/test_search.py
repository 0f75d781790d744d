"""The nearest entry: equal to brute force in float64, the lowest index on ties, any size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from vistok.quantizers import EMAVQ, IBQ, VQ, OptVQ, SimVQ
from vistok.quantizers.search import likeliest, nearest


def brute_force(latents: Tensor, codebook: Tensor) -> Tensor:
    distances = (latents.double()[:, None] - codebook.double()[None]).square().sum(-1)
    return (
        distances.min(dim=1, keepdim=True).values.eq(distances).int().argmax(1)
    )  # argmax of ints: the first


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("entries", "channels"), [(1, 8), (5, 3), (127, 8), (128, 8), (129, 8), (1000, 33), (4099, 4), (300, 256)]
)
@pytest.mark.parametrize("rows", [1, 7, 513, 1030])
def test_equals_brute_force(entries: int, channels: int, rows: int):
    latents, codebook = random(rows, channels), random(entries, channels, seed=1)
    tokens = nearest(latents, codebook)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, brute_force(latents, codebook))
    unit, table = F.normalize(latents, dim=1), F.normalize(codebook, dim=1)
    assert torch.equal(nearest(unit, table, unit_norm=True), brute_force(unit, table))
    assert torch.equal(likeliest(latents, codebook), (latents.double() @ codebook.double().t()).argmax(1))


NARROW = [(1024, 1, 0.0, 1.0), (16384, 1, 0.0, 1.0), (65536, 2, 0.0, 1.0), (1024, 8, 10.0, 1e-3)]
NARROW += [(1024, 8, 100.0, 1.0), (300, 64, -30.0, 0.1), (1024, 1, 5.0, 1e-4)]


@pytest.mark.parametrize(("entries", "channels", "offset", "deviation"), NARROW)
def test_narrow_and_off_centre_codebooks(entries: int, channels: int, offset: float, deviation: float):
    codebook = offset + deviation * random(entries, channels, seed=1)
    latents = torch.cat([codebook[:: entries // 60], offset + deviation * random(60, channels)])
    assert torch.equal(nearest(latents, codebook), brute_force(latents, codebook))
    far = latents + 100 * deviation
    assert torch.equal(nearest(far, codebook), brute_force(far, codebook))


@pytest.mark.parametrize("spread", [1.0, 1e-3], ids=["around", "in one direction"])
def test_narrow_codebooks_of_unit_length(spread: float):
    ahead = torch.tensor([1.0, 0.0]) * (1 - spread)
    codebook = F.normalize(ahead + spread * random(4096, 2, seed=1), dim=1)
    latents = torch.cat([codebook[::50], F.normalize(ahead + spread * random(80, 2), dim=1)])
    assert torch.equal(nearest(latents, codebook, unit_norm=True), brute_force(latents, codebook))


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_likeliest_of_narrow_codebooks(offset: float):
    codebook, latents = offset + random(4096, 1, seed=1), 0.1 * random(200, 1)
    scores = latents.double() @ codebook.double().t()
    assert torch.equal(likeliest(latents, codebook), scores.argmax(1))
    assert likeliest(torch.zeros(3, 1), codebook).tolist() == [0] * 3


@pytest.mark.parametrize(
    "build",
    [
        lambda: VQ(1024, 1),
        lambda: VQ(1024, 2, normalize=True),
        lambda: EMAVQ(1024, 1),
        lambda: SimVQ(1024, 1),
        lambda: IBQ(1024, 1, normalize=False),
        lambda: OptVQ(1024, 1),
    ],
    ids=["VQ", "VQ-normalize", "EMAVQ", "SimVQ", "IBQ", "OptVQ"],
)
def test_index_inverts_lookup_of_narrow_codebooks(build):
    torch.manual_seed(0)
    tokens = torch.arange(1024)[None]
    quantizer = build()
    assert torch.equal(quantizer.index(quantizer.lookup(tokens)), tokens)


def test_crowds_of_equal_entries_give_the_first():
    # More rivals than are compared one by one: of 1,500 equal entries, the first alone is.
    codebook = torch.cat([random(100, 8, seed=1), 0.3 + torch.zeros(1500, 8), random(100, 8, seed=2)])
    latents = torch.cat([0.3 + 1e-4 * random(40, 8), random(40, 8)])
    assert torch.equal(nearest(latents, codebook), brute_force(latents, codebook))


@given(st.integers(1, 600), st.integers(1, 40), st.integers(0, 40), st.integers(1, 4), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_lowest_index_on_exact_ties(entries: int, channels: int, rows: int, spread: int, seed: int):
    # Small whole numbers: float32 is exact, and with few values most rows have ties.
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randint(-spread, spread + 1, (rows, channels), generator=generator).float()
    codebook = torch.randint(-spread, spread + 1, (entries, channels), generator=generator).float()
    assert torch.equal(nearest(latents, codebook), brute_force(latents, codebook))


def test_equal_entries_give_the_first():
    for codebook in (torch.ones(300, 8), torch.full((300, 8), 0.1)):
        assert nearest(random(9, 8), codebook).tolist() == [0] * 9
        assert likeliest(random(9, 8), codebook).tolist() == [0] * 9
    table = F.normalize(codebook, dim=1)
    assert nearest(F.normalize(random(9, 8), dim=1), table, unit_norm=True).tolist() == [0] * 9
    assert nearest(torch.zeros(9, 8), table, unit_norm=True).tolist() == [0] * 9


def test_no_latents():
    assert nearest(torch.zeros(0, 8), random(5, 8)).shape == (0,)


@pytest.mark.parametrize("scale", [1e-15, 1e-3, 1e3, 1e15])
def test_norms_of_any_size(scale: float):
    latents, codebook = scale * random(200, 6), scale * random(150, 6, seed=1)
    assert torch.equal(nearest(latents, codebook), brute_force(latents, codebook))


def test_entries_of_very_different_norms():
    codebook = random(400, 6, seed=1) * torch.logspace(-4, 4, 400)[:, None]
    latents = codebook[torch.randint(400, (300,), generator=torch.Generator().manual_seed(2))] * 1.0001
    assert torch.equal(nearest(latents, codebook), brute_force(latents, codebook))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38], ids=str)
@pytest.mark.parametrize("entries", [1, 100, 130, 1025])
def test_in_range_whatever_comes(value: float, entries: int):
    latents = random(20, 8)
    latents[3] = value
    latents[5, 2] = value
    codebook = random(entries, 8, seed=1)
    for unit_norm in (False, True):
        tokens = nearest(latents, codebook, unit_norm=unit_norm)
        assert ((tokens >= 0) & (tokens < entries)).all()
    clean = torch.ones(20, dtype=torch.bool)
    clean[[3, 5]] = False
    assert torch.equal(nearest(latents, codebook)[clean], nearest(latents[clean], codebook))


@pytest.mark.parametrize(("entries", "channels"), [(1024, 8), (16384, 8), (1024, 256), (23, 4)])
def test_tokens_do_not_depend_on_how_many_latents_there_are(entries: int, channels: int):
    # Near-ties everywhere: entries in pairs that differ in the last bits.
    half = random(entries // 2, channels, seed=1)
    codebook = torch.cat([half, half * (1 + 2e-7)])
    latents = random(900, channels)
    tokens = nearest(latents, codebook)
    assert torch.equal(tokens, brute_force(latents, codebook))
    for start, stop in ((0, 1), (1, 300), (17, 18), (255, 258), (500, 900)):
        assert torch.equal(nearest(latents[start:stop], codebook), tokens[start:stop])


def test_inputs_are_untouched_and_need_no_gradient():
    latents, codebook = random(30, 8).requires_grad_(), random(40, 8, seed=1).requires_grad_()
    kept = latents.detach().clone(), codebook.detach().clone()
    assert not nearest(latents, codebook).requires_grad
    assert torch.equal(latents, kept[0])
    assert torch.equal(codebook, kept[1])


def test_a_latent_of_no_direction_gets_entry_0():
    codebook = F.normalize(torch.randn(5000, 6, dtype=torch.float64), dim=1)
    assert nearest(torch.zeros(50, 6, dtype=torch.float64), codebook, unit_norm=True).unique().tolist() == [0]
