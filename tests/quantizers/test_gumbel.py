"""GumbelVQ: annealed by the step, noise keyed by the step, no noise in evaluation."""

import copy
import math

import pytest
import torch

from vistok.quantizers import GumbelVQ, Product, Residual


def test_the_temperature_falls_by_half_a_cosine():
    quantizer = GumbelVQ(8, 4, temperature=2.0, final_temperature=0.5, anneal_steps=100)
    assert quantizer.current_temperature == 2.0
    for step, expected in ((0, 2.0), (50, 1.25), (100, 0.5), (1000, 0.5)):
        quantizer.set_step(step)
        assert quantizer.current_temperature == pytest.approx(expected)


def test_the_temperature_sharpens_the_mixture():
    torch.manual_seed(0)
    logits = torch.randn(2, 8, 50)
    distances = []
    for temperature in (4.0, 1.0, 0.1):
        quantizer = GumbelVQ(8, 4, temperature=temperature, straight_through=False)
        with torch.no_grad():
            quantizer.codebook.copy_(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)))
        out = quantizer(logits)
        distances.append((out.quantized - quantizer.lookup(out.tokens)).square().mean().item())
    assert distances[0] > 2 * distances[1] > 4 * distances[2]


def test_samples_follow_the_logits():
    quantizer = GumbelVQ(4, 2)
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    tokens = quantizer(p.log()[None, :, None].expand(1, 4, 40_000)).tokens
    shares = torch.bincount(tokens.flatten(), minlength=4) / tokens.numel()
    torch.testing.assert_close(shares, p, atol=0.01, rtol=0)


def test_noise_differs_from_forward_to_forward_and_repeats_with_the_step():
    logits = torch.zeros(2, 32, 20)
    quantizer = GumbelVQ(32, 4)
    first, second = quantizer(logits).tokens, quantizer(logits).tokens
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    quantizer.set_step(7)
    seventh = quantizer(logits).tokens
    quantizer.set_step(8)
    assert not torch.equal(quantizer(logits).tokens, seventh)
    resumed = copy.deepcopy(quantizer)
    resumed.set_step(7)
    assert torch.equal(resumed(logits).tokens, seventh)
    torch.manual_seed(torch.initial_seed() + 1)
    resumed.set_step(7)
    assert not torch.equal(resumed(logits).tokens, seventh)


@pytest.mark.parametrize("layout", [Product, Residual])
@pytest.mark.parametrize("shared", [False, True])
def test_each_codebook_has_noise_of_its_own(layout, shared: bool):
    tokens = layout(lambda: GumbelVQ(32, 4), 2, shared)(torch.zeros(2, 64, 20)).tokens
    assert not torch.equal(tokens[:, 0], tokens[:, 1])


def test_a_uniform_choice_has_no_divergence():
    quantizer = GumbelVQ(8, 4, kl_weight=1.0)
    assert quantizer(torch.zeros(1, 8, 5)).losses["kl"] == pytest.approx(0, abs=1e-6)
    sure = torch.zeros(1, 8, 5)
    sure[:, 3] = 100
    assert quantizer(sure).losses["kl"] == pytest.approx(math.log(8))


def test_learns_to_code():
    torch.manual_seed(0)
    quantizer = GumbelVQ(8, 4, anneal_steps=300)
    encode = torch.nn.Linear(4, 8)
    points = 2 * torch.randn(8, 4)
    optimizer = torch.optim.Adam([*quantizer.parameters(), *encode.parameters()], lr=0.03)
    for step in range(300):
        quantizer.set_step(step)
        x = points[torch.randint(8, (64,))]
        out = quantizer(encode(x))
        loss = (out.quantized - x).square().mean() + out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = (quantizer.eval()(encode(points)).quantized - points).square().mean()
    assert error < 0.3 * points.var()
