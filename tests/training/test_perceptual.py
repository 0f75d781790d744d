"""The perceptual loss: whom its gradient reaches, and in which precision."""

import pytest
import torch

from tests.evaluation.random_trunks import trunk_file
from vistok.training.perceptual import PerceptualLoss


@pytest.fixture(scope="module")
def loss(tmp_path_factory):
    return PerceptualLoss("alex", trunk_file("alex", tmp_path_factory.mktemp("trunks")))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 3, 40, 32, generator=generator) * 2 - 1 for _ in range(2)]


def test_it_is_the_mean_distance_of_the_batch(loss, batch):
    torch.testing.assert_close(loss(*batch), loss.lpips(*batch).mean())
    assert loss(*batch).shape == ()
    assert float(loss(*batch)) > 0.01
    assert float(loss(batch[0], batch[0])) == 0


def test_the_gradient_reaches_the_reconstruction_alone(loss, batch):
    reconstruction, pixel_values = (pictures.requires_grad_() for pictures in batch)
    loss(reconstruction, pixel_values).backward()
    assert float(reconstruction.grad.abs().max()) > 0
    assert pixel_values.grad is None
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}


def test_autocast_and_half_precision_change_nothing_but_the_input(loss, batch):
    halves = [pictures.bfloat16() for pictures in batch]
    reconstruction = halves[0].clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        ours = loss.to(torch.bfloat16)(reconstruction, halves[1])
    assert ours.dtype == torch.float32
    assert torch.equal(ours, loss(*(pictures.float() for pictures in halves)))
    ours.backward()
    assert reconstruction.grad.dtype == torch.bfloat16
    assert reconstruction.grad.isfinite().all()


def test_following_it_brings_a_picture_nearer(loss, batch):
    picture = batch[0].requires_grad_()
    optimizer = torch.optim.Adam([picture], lr=0.05)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        distance = loss(picture, batch[1])
        distance.backward()
        optimizer.step()
        losses.append(distance.item())
    assert losses[-1] < 0.7 * losses[0]


def test_pictures_that_are_too_small(loss):
    pictures = torch.zeros(1, 3, 24, 64)
    with pytest.raises(ValueError, match="'alex' needs pictures of at least 31 x 31 pixels, got 24 x 64"):
        loss(pictures, pictures)


def test_what_is_not_finite_is_left_to_the_loop(loss, batch):
    batch[0][0, 0, 0, 0] = torch.nan
    assert loss(*batch).isnan()
