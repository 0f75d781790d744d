"""VQ: its losses and gradients against the plain formula, both placements of beta, unit length."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vistok import VQConfig
from vistok.quantizers import VQ


def make(**values) -> tuple[VQ, Tensor]:
    torch.manual_seed(0)
    quantizer = VQ(**{"codebook_size": 50, "codebook_dim": 6} | values).double()
    with torch.no_grad():
        quantizer.codebook.normal_()
    return quantizer, torch.randn(3, 6, 4, 5, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("codebook_weight", "commitment_weight"), [(1.0, 0.25), (0.25, 1.0), (0.7, 0.0), (0.0, 2.0)]
)
def test_equals_the_plain_formula(normalize: bool, codebook_weight: float, commitment_weight: float):
    quantizer, latents = make(
        normalize=normalize, codebook_weight=codebook_weight, commitment_weight=commitment_weight
    )
    weights = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    out = quantizer(latents)
    ours = torch.autograd.grad((out.quantized * weights).sum() + out.loss, (latents, quantizer.codebook))

    rows = latents.movedim(1, -1)
    table = quantizer.codebook
    if normalize:
        rows, table = F.normalize(rows, dim=-1), F.normalize(table, dim=-1)
    tokens = torch.cdist(rows.reshape(-1, 6), table).argmin(1).view(3, 4, 5)
    entries = table[tokens]
    codebook = codebook_weight * F.mse_loss(entries, rows.detach())
    commitment = commitment_weight * F.mse_loss(rows, entries.detach())
    quantized = (rows + (entries - rows).detach()).movedim(-1, 1)
    total = (quantized * weights).sum() + codebook + commitment
    plain = torch.autograd.grad(total, (latents, quantizer.codebook))

    assert torch.equal(out.tokens, tokens)
    torch.testing.assert_close(out.quantized, quantized)
    torch.testing.assert_close(out.loss.double(), codebook + commitment)
    for actual, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(actual, expected)
    given = {"codebook": codebook_weight, "commitment": commitment_weight}
    assert set(out.losses) == {name for name, weight in given.items() if weight}


def test_only_what_is_asked_for_gets_a_gradient():
    quantizer, latents = make()
    out = quantizer(latents)
    to_latents, to_codebook = torch.autograd.grad(
        out.quantized.sum(), (latents, quantizer.codebook), retain_graph=True, allow_unused=True
    )
    assert torch.equal(to_latents, torch.ones_like(latents))
    assert to_codebook is None or not to_codebook.any()
    (to_latents,) = torch.autograd.grad(out.losses["codebook"], latents, retain_graph=True, allow_unused=True)
    assert to_latents is None or not to_latents.any()
    (to_codebook,) = torch.autograd.grad(out.losses["commitment"], quantizer.codebook, allow_unused=True)
    assert to_codebook is None or not to_codebook.any()


def test_the_codebook_learns_from_latents_without_gradient():
    quantizer, latents = make()
    quantizer(latents.detach()).loss.backward()
    assert quantizer.codebook.grad.any()


def test_unit_length():
    quantizer, latents = make(normalize=True)
    out = quantizer(latents)
    torch.testing.assert_close(out.quantized.norm(dim=1), torch.ones(3, 4, 5, dtype=torch.float64))
    assert torch.equal(quantizer.encode(1e3 * latents), out.tokens)
    assert torch.equal(quantizer(torch.zeros_like(latents)).quantized.isfinite().all(), torch.tensor(True))


def test_initial_entries_are_uniform():
    codebook = VQ(codebook_size=1000, codebook_dim=16).codebook.detach() * 1000
    assert codebook.abs().max() <= 1
    assert codebook.std() == pytest.approx(3**-0.5, rel=0.02)


def test_a_few_steps_lower_the_loss():
    quantizer, latents = make()
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = quantizer(latents.detach()).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codebook_size", 0),
        ("codebook_size", 2.5),
        ("codebook_dim", -1),
        ("normalize", "yes"),
        ("codebook_weight", -0.1),
        ("commitment_weight", float("nan")),
    ],
)
def test_bad_values(name: str, value):
    with pytest.raises(ValueError, match=name):
        VQ(**{name: value})
    with pytest.raises(ValueError, match=name):
        VQConfig(**{name: value})


def test_float64_latents_need_no_conversion_of_the_module():
    quantizer = VQ(codebook_size=16, codebook_dim=4)
    latents = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    out = quantizer(latents)
    (out.quantized.sum() + out.loss).backward()
    assert out.quantized.dtype == latents.grad.dtype == torch.float64
    assert torch.equal(out.tokens, quantizer.encode(latents.float()))
    assert quantizer.codebook.grad.dtype == torch.float32
