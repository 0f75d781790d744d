"""EMAVQ: what its averages do over steps, and which entries are revived."""

import pytest
import torch
from torch.nn import functional as F

from vistok.quantizers import EMAVQ


def clusters(entries: int, places: int, seed: int, channels: int = 4) -> torch.Tensor:
    """Latents `(1, channels, places)` near `entries` fixed points, every point as often."""
    points = 2 * torch.randn(entries, channels, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    noise = 0.05 * torch.randn(places, channels, generator=draw)
    return (points[torch.arange(places) % entries] + noise).t()[None]


def test_converges_to_the_means_of_its_latents():
    torch.manual_seed(0)
    quantizer = EMAVQ(16, 4, decay=0.9)
    for step in range(200):
        quantizer(clusters(8, 256, step))
    latents = clusters(8, 256, 999)
    quantized = quantizer.eval()(latents).quantized
    assert (quantized - latents).square().mean() < 0.03 * latents.var()  # one entry may serve two clusters
    assert len(quantizer.encode(latents).unique()) >= 8


@pytest.mark.parametrize("epsilon", [0.0, 1e-5])
def test_entries_that_nothing_chooses_stay(epsilon: float):
    quantizer = EMAVQ(16, 4, decay=0.9, epsilon=epsilon, revival_threshold=0.0)
    with torch.no_grad():
        quantizer.codebook[8:] += 100
        quantizer.sums.copy_(quantizer.codebook)
    before = quantizer.codebook.clone()
    for step in range(700):  # long enough for their counts to fade to nothing
        quantizer(clusters(4, 64, step))
    assert torch.equal(quantizer.codebook[8:], before[8:])
    assert quantizer.codebook.isfinite().all()
    assert (quantizer.codebook[:8] - before[:8]).abs().max() > 0.1


def test_dead_entries_are_revived_with_fresh_statistics():
    torch.manual_seed(0)
    quantizer = EMAVQ(16, 4, decay=0.5, revival_threshold=0.01)
    with torch.no_grad():
        quantizer.codebook.fill_(100.0).add_(torch.rand(16, 4))
        quantizer.sums.copy_(quantizer.codebook)
    latents = clusters(16, 256, 0)
    for _ in range(40):
        quantizer(latents)
    assert quantizer.codebook.abs().max() < 20
    # espnet 6284: a vector without its sums and count would jump back at the next update.
    torch.testing.assert_close(
        quantizer.sums / quantizer.counts[:, None], quantizer.codebook, rtol=1e-3, atol=1e-3
    )
    assert len(quantizer.encode(latents).unique()) >= 15


def test_is_updated_once_a_step():
    quantizer = EMAVQ(8, 4)
    quantizer.set_step(0)
    before = quantizer.codebook.clone()
    for seed in range(3):
        quantizer(clusters(8, 64, seed))
        assert torch.equal(quantizer.codebook, before)
    quantizer.set_step(1)
    after = quantizer.codebook.clone()
    assert not torch.equal(after, before)
    assert quantizer.counts.sum() == pytest.approx(0.99 * 8 + 0.01 * 192)
    quantizer.set_step(2)
    assert torch.equal(quantizer.codebook, after)


def test_normalized_entries_stay_of_unit_length():
    quantizer = EMAVQ(8, 4, normalize=True, decay=0.5)
    for step in range(5):
        out = quantizer(clusters(8, 64, step))
        torch.testing.assert_close(quantizer.codebook.norm(dim=1), torch.ones(8))
    torch.testing.assert_close(out.quantized.norm(dim=1), torch.ones(1, 64))


def test_non_finite_latents_do_not_reach_the_codebook():
    quantizer = EMAVQ(8, 4, decay=0.5)
    latents = clusters(8, 64, 0)
    latents[0, 1, 5] = float("nan")
    latents[0, 2, 6] = float("inf")
    quantizer(latents)
    assert all(buffer.isfinite().all() for buffer in quantizer.buffers())


def test_its_averages_have_no_gradient():
    quantizer = EMAVQ(8, 4)
    latents = clusters(8, 64, 0).requires_grad_()
    out = quantizer(latents)
    error = F.mse_loss(latents, out.quantized.detach())
    torch.testing.assert_close(out.losses["commitment"], 0.25 * error)
    assert list(quantizer.parameters()) == []


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of torch itself
def test_a_compiled_forward_has_as_many_graphs_for_any_number_of_steps():
    torch.manual_seed(0)
    quantizer, reference = EMAVQ(16, 4, revival_threshold=0.5), EMAVQ(16, 4, revival_threshold=0.5)
    reference.load_state_dict(quantizer.state_dict())
    assert sorted(quantizer.state_dict()) == ["codebook", "counts", "sums"]
    torch.compiler.reset()
    graphs = 0

    def count(graph, inputs):
        nonlocal graphs
        graphs += 1
        return graph

    compiled = torch.compile(lambda x: quantizer(x).quantized, fullgraph=True, backend=count)
    for module in (quantizer, reference):
        module.set_step(0)
    for step in range(1, 6):
        for seed in range(5):
            latents = clusters(8, 64, 10 * step + seed)
            assert torch.equal(compiled(latents), reference(latents).quantized)
        for module in (quantizer, reference):
            module.set_step(step)
        assert all(
            torch.equal(one, other)
            for one, other in zip(quantizer.buffers(), reference.buffers(), strict=True)
        )
    assert graphs <= 3  # the first micro-batch of a step, the second, and those of any number after them
