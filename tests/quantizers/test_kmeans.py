"""k-means initialization: from the first batches, kept across a resume."""

import pytest
import torch

from vistok.quantizers import EMAVQ, IBQ, VQ
from vistok.quantizers.kmeans import LATENTS_PER_ENTRY, kmeans_step

from .test_ema import clusters


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_finds_the_clusters():
    rows = clusters(8, 512, 0)[0].t()
    entries = torch.full((8, 4), 50.0)
    assert kmeans_step(entries, 0, rows) == 512
    error = (rows - entries[torch.cdist(rows, entries).argmin(1)]).square().mean()
    assert error < 0.12 * rows.var()  # one entry may serve two clusters
    assert len(torch.cdist(rows, entries).argmin(1).unique()) == 8


def test_one_batch_is_lloyds_iteration():
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    entries = torch.empty(16, 4)
    kmeans_step(entries, 0, rows)
    tokens = torch.cdist(rows, entries).argmin(1)
    distortion = (rows - entries[tokens]).square().sum()
    again = entries.clone()
    for k in range(16):
        again[k] = rows[tokens == k].mean(0)
    moved = (rows - again[torch.cdist(rows, again).argmin(1)]).square().sum()
    assert moved <= distortion * (1 + 1e-6)
    assert moved > 0.98 * distortion  # nearly converged


@pytest.mark.parametrize("method", [VQ, EMAVQ, IBQ])
def test_few_latents_fill_the_codebook_batch_by_batch(method):
    quantizer = method(32, 4, initialization="kmeans")
    batches = 0
    while int(quantizer.latents_seen) < LATENTS_PER_ENTRY * 32:
        batches += 1
        quantizer(clusters(32, 24, batches))
    assert batches == 11  # of 24 latents: 256
    latents = clusters(32, 640, 999)
    assert quantizer.index(latents).unique().numel() >= 28
    before = quantizer.codebook.clone()
    quantizer.set_step(0)
    quantizer(clusters(32, 24, 1000))  # enough seen: from here on the method alone moves its entries
    assert torch.equal(quantizer.codebook, before)


def test_a_resumed_run_does_not_begin_anew():
    quantizer = VQ(16, 4, initialization="kmeans")
    quantizer(clusters(16, 256, 0))
    resumed = VQ(16, 4, initialization="kmeans")
    resumed(clusters(16, 8, 5))  # before the checkpoint comes
    resumed.load_state_dict(quantizer.state_dict())
    resumed(clusters(16, 256, 1))
    assert torch.equal(resumed.codebook, quantizer.codebook)


def test_goes_on_where_a_checkpoint_among_the_first_batches_left_it():
    quantizer = VQ(16, 4, initialization="kmeans")
    quantizer(clusters(16, 40, 0))
    resumed = VQ(16, 4, initialization="kmeans")
    resumed.load_state_dict(quantizer.state_dict())
    for one in (quantizer, resumed):
        for seed in (1, 2, 3):
            one(clusters(16, 40, seed))
    assert torch.equal(resumed.codebook, quantizer.codebook)


def test_equal_latents_and_no_latents():
    quantizer = VQ(16, 4, initialization="kmeans")
    quantizer(torch.zeros(0, 4, 3))
    assert int(quantizer.latents_seen) == 0
    quantizer(torch.ones(1, 4, 200))
    assert quantizer.codebook.isfinite().all()
    assert torch.equal(quantizer.eval()(torch.ones(1, 4, 1)).quantized, torch.ones(1, 4, 1))


def test_evaluation_and_frozen_codebooks_do_not_start_it():
    quantizer = VQ(16, 4, initialization="kmeans").eval()
    quantizer(clusters(16, 256, 0))
    assert int(quantizer.latents_seen) == 0
    quantizer.train().freeze_codebook()
    quantizer(clusters(16, 256, 0))
    assert int(quantizer.latents_seen) == 0


def test_non_finite_latents_are_left_out():
    latents = clusters(16, 256, 0)
    latents[0, 0, 3] = float("nan")
    quantizer = VQ(16, 4, initialization="kmeans")
    quantizer(latents)
    assert int(quantizer.latents_seen) == 255
    assert quantizer.codebook.isfinite().all()
