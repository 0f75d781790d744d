"""Adversarial losses, adaptive weight, R1 and LeCAM against numbers by hand, formulae and differences."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vistok.training.adversarial import (
    LeCam,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)
from vistok.training.discriminators import PatchDiscriminator

from .adversarial_ranks import run

ROOT = Path(__file__).parents[2]
KINDS = ["hinge", "vanilla", "non_saturating"]
REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])


def decoder() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 3, 3, padding=1)).double()


def small_discriminator() -> PatchDiscriminator:
    torch.manual_seed(1)
    return PatchDiscriminator(channels=16, num_layers=1, normalization="group").double()


def pictures(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(
    ("kind", "of_discriminator", "of_generator"),
    [
        # ((0 + 0.5) / 2 + (0 + 1.5) / 2) / 2, and -(-3 + 0.5) / 2
        ("hinge", 0.5, 1.25),
        # softplus of -2, -0.5, -3 and 0.5: 0.126928, 0.474077, 0.048587, 0.974077
        ("vanilla", (0.126928 + 0.474077 + 0.048587 + 0.974077) / 4, 1.25),
        # softplus of 3 and -0.5: 3.048587, 0.474077
        ("non_saturating", (0.126928 + 0.474077 + 0.048587 + 0.974077) / 4, (3.048587 + 0.474077) / 2),
    ],
)
def test_losses_by_hand(kind, of_discriminator, of_generator):
    assert discriminator_loss(kind, REAL, FAKE).item() == pytest.approx(of_discriminator, abs=2e-6)
    assert generator_loss(kind, FAKE).item() == pytest.approx(of_generator, abs=2e-6)


@pytest.mark.parametrize(
    ("kind", "chance"), [("hinge", 1), ("vanilla", math.log(2)), ("non_saturating", math.log(2))]
)
def test_a_discriminator_that_knows_nothing(kind, chance):
    zeros = torch.zeros(2, 1, 3, 3)
    assert discriminator_loss(kind, zeros, zeros).item() == pytest.approx(chance)


@pytest.mark.parametrize("kind", ["vanilla", "non_saturating"])
def test_cross_entropy_has_its_arguments_in_order(kind):
    real, fake = pictures(3, 1, 4, 4), pictures(2, 1, 4, 4, seed=3)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    expected = (expected + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))) / 2
    torch.testing.assert_close(discriminator_loss(kind, real, fake), expected)
    expected = F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))
    torch.testing.assert_close(generator_loss("non_saturating", fake), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_who_pushes_where(kind):
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    discriminator_loss(kind, real, fake).backward()
    # A picture beyond the margin of the hinge is settled.
    assert (real.grad <= 0).all() and (fake.grad >= 0).all() and real.grad[1] < 0 < fake.grad[1]
    assert (real.grad[0] == 0) == (fake.grad[0] == 0) == (kind == "hinge")
    fake.grad = None
    generator_loss(kind, fake).backward()
    assert (fake.grad < 0).all()
    assert (fake.grad[0] < fake.grad[1]) == (kind == "non_saturating")  # it pushes hardest where it fails


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_float32(kind, dtype):
    real, fake = (
        pictures(2, 1, 30, 30).to(dtype),
        60_000 * pictures(2, 1, 30, 30, seed=3).clamp(-1, 1).to(dtype),
    )
    with torch.autocast("cpu", torch.bfloat16):
        found = discriminator_loss(kind, real, fake), generator_loss(kind, fake), LeCam()(real, fake)
    real, fake = real.float(), fake.float()
    expected = discriminator_loss(kind, real, fake), generator_loss(kind, fake), LeCam()(real, fake)
    assert all(loss.dtype == torch.float32 for loss in found)
    assert torch.equal(torch.stack(found), torch.stack(expected)) and torch.stack(found).isfinite().all()


def test_unknown_kind():
    message = "must be 'hinge', 'vanilla' or 'non_saturating', got 'wgan'"
    with pytest.raises(ValueError, match=message):
        discriminator_loss("wgan", REAL, FAKE)
    with pytest.raises(ValueError, match=message):
        generator_loss("wgan", FAKE)


def losses_of(network: nn.Module, discriminator: nn.Module) -> tuple[Tensor, Tensor]:
    reconstruction = network(pictures(2, 4, 8, 8))
    distance = F.mse_loss(reconstruction, pictures(2, 3, 8, 8, seed=3))
    return distance, generator_loss("non_saturating", discriminator(reconstruction))


def test_adaptive_weight_equals_its_formula():
    network, discriminator = decoder(), small_discriminator().requires_grad_(False)
    weight = network[-1].weight
    found = adaptive_weight(*losses_of(network, discriminator), weight)
    gradients = torch.zeros(2, weight.numel(), dtype=torch.float64)  # by central differences
    with torch.no_grad():
        for place in range(weight.numel()):
            for sign in (1e-5, -1e-5):
                weight.view(-1)[place] += sign
                gradients[:, place] += torch.stack(losses_of(network, discriminator)) / (2 * sign)
                weight.view(-1)[place] -= sign
    reconstruction, adversarial = (math.sqrt(gradient.square().sum()) for gradient in gradients)
    assert found.item() == pytest.approx(reconstruction / (adversarial + 1e-4), rel=1e-7)
    network, discriminator = network.float(), discriminator.float()
    network.register_forward_pre_hook(lambda module, inputs: inputs[0].float())
    in_float32 = adaptive_weight(*losses_of(network, discriminator), network[-1].weight)
    assert in_float32.dtype == torch.float32
    assert in_float32.item() == pytest.approx(found.item(), rel=1e-5)


def test_adaptive_weight_leaves_everything_as_it_was():
    network, discriminator = decoder(), small_discriminator()
    distance, adversarial = losses_of(network, discriminator)
    weight = adaptive_weight(distance, adversarial, network[-1].weight)
    assert not weight.requires_grad
    assert all(p.grad is None for p in [*network.parameters(), *discriminator.parameters()])
    (distance + weight * adversarial).backward()  # the graph is still there
    assert all(p.grad is not None for p in network.parameters())


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


def test_adaptive_weight_by_hand_and_its_bounds():
    weight = parameter(1.0, 2.0)
    direction, other = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])

    def found(distance: float, adversarial: float) -> float:
        return adaptive_weight(
            (weight * direction).sum() * distance, (weight * other).sum() * adversarial, weight
        ).item()

    assert found(1, 1) == pytest.approx(5 / 2.0001)
    assert found(1e-2, 0) == pytest.approx(0.05 / 1e-4)  # nothing to pull with: the floor of the divisor
    assert found(1, 0) == 1e4  # 5 / 1e-4, clamped
    assert found(1e15, 1) == 1e4
    assert found(0, 1) == found(0, 0) == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_adaptive_weight_of_gradients_that_are_not_finite(wrong):
    weight = parameter(1.0, 2.0)
    good, bad = weight.sum(), (weight * torch.tensor([wrong, 1.0])).sum()
    for losses in ((good, bad), (bad, good), (bad, bad)):
        found = adaptive_weight(*losses, weight)
        assert found.isnan()
    # So the step is seen to be wrong, even where the adversarial loss by itself is finite.
    (gradient,) = torch.autograd.grad(good + found * good, weight)
    assert not gradient.isfinite().any()


def test_adaptive_weight_under_the_scale_of_fp16():
    weight = nn.Parameter(torch.randn(3, 8, 1, 1, generator=torch.Generator().manual_seed(0)))
    features, target = pictures(8, 8, 16, 16).float(), pictures(8, 3, 16, 16, seed=3).float()
    mixture = pictures(3, seed=4).float().view(1, 3, 1, 1)

    def losses(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        half = (1e-2 * F.conv2d(features, weight)).to(dtype).float()  # as autocast leaves it
        return 1e-5 * F.mse_loss(half, target), 1e-5 * F.softplus(half * mixture).mean()

    exact = adaptive_weight(*losses(torch.float32), weight)
    assert torch.equal(adaptive_weight(*losses(torch.float32), weight, scale=2.0**10), exact)
    vanished = adaptive_weight(*losses(torch.float16), weight)
    assert vanished == 0  # gradients below 2^-25 are none
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    scale = scaler.scale(torch.ones(()))
    torch.testing.assert_close(
        adaptive_weight(*losses(torch.float16), weight, scale), exact, rtol=1e-2, atol=0
    )
    # The step is not taken, and the scaler lowers what was too much.
    assert adaptive_weight(*losses(torch.float16), weight, scale=2.0**60).isnan()


def test_r1_of_a_linear_discriminator():
    discriminator = nn.Conv2d(3, 1, 2, stride=2).double()  # each pixel of 6x6 is in one of 9 patches
    penalty = r1_penalty(discriminator, pictures(5, 3, 6, 6))
    torch.testing.assert_close(penalty, 0.5 * 9 * discriminator.weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(discriminator.weight.grad, 9 * discriminator.weight)
    assert discriminator.bias.grad is None or not discriminator.bias.grad.any()


class Quadratic(nn.Module):
    def forward(self, pixel_values: Tensor) -> Tensor:
        return 0.5 * pixel_values.square()  # whose gradient is the picture


def test_r1_is_a_mean_over_pictures():
    two = torch.stack([torch.full((3, 2, 2), 1.0), torch.full((3, 2, 2), 3.0)])
    assert r1_penalty(Quadratic(), two).item() == 0.5 * (12 * 1 + 12 * 9) / 2


def test_r1_against_differences():
    discriminator, batch = small_discriminator(), pictures(2, 3, 6, 6)

    def by_differences() -> float:
        total = 0.0
        with torch.no_grad():
            for picture in batch:
                moves = 1e-5 * torch.eye(picture.numel(), dtype=torch.float64).view(-1, *picture.shape)
                slopes = discriminator(picture + moves) - discriminator(picture - moves)
                total += (slopes.sum((1, 2, 3)) / 2e-5).square().sum().item()
        return 0.5 * total / len(batch)

    penalty = r1_penalty(discriminator, batch)
    assert penalty.item() == pytest.approx(by_differences(), rel=1e-6)
    penalty.backward()  # twice differentiated: along a direction, by differences of the penalty
    slope = 0.0
    generator = torch.Generator().manual_seed(5)
    directions = [torch.randn(p.shape, generator=generator).double() for p in discriminator.parameters()]
    for parameter, direction in zip(discriminator.parameters(), directions, strict=True):
        if parameter.grad is not None:  # the last bias moves no gradient
            slope += (parameter.grad * direction).sum().item()
    sides = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(discriminator.parameters(), directions, strict=True):
                parameter += sign * 1e-6 * direction
        sides.append(r1_penalty(discriminator, batch).item())
    assert slope == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5)


def test_r1_is_float32_and_touches_nothing():
    discriminator = small_discriminator().float()
    made = (2 * torch.ones(2, 3, 8, 8, requires_grad=True)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        penalty = r1_penalty(discriminator, made)
    assert penalty.dtype == torch.float32
    outside = made.detach().float().requires_grad_()
    (slopes,) = torch.autograd.grad(discriminator(outside).sum(), outside)
    torch.testing.assert_close(penalty, 0.5 * slopes.square().sum() / 2, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(penalty, made, allow_unused=True)
    assert gradient is None
    plain = torch.ones(2, 3, 8, 8)
    r1_penalty(discriminator, plain)
    assert not plain.requires_grad and plain.grad is None


def test_r1_refuses_what_cannot_be_differentiated_twice():
    discriminator = nn.SyncBatchNorm.convert_sync_batchnorm(PatchDiscriminator(channels=16))
    with pytest.raises(ValueError, match="SyncBatchNorm does not allow: set its normalization to 'group'"):
        r1_penalty(discriminator, torch.zeros(1, 3, 32, 32))


def test_lecam_by_hand_over_several_steps():
    lecam = LeCam(decay=0.9)
    steps = [
        # (2^2 + 0) / 2 + 1^2; the averages take a tenth of 1 and -1
        ([2.0, 0.0], [-1.0], 3.0, (0.1, -0.1)),
        # (1 + 0.1)^2 + (0 + 0.6^2) / 2; 0.9 x 0.1 + 0.1 x 1 and 0.9 x -0.1 + 0.1 x 0
        ([1.0], [0.5, -0.5], 1.39, (0.19, -0.09)),
        # picture below the average of the others, reconstruction above that of pictures: nothing to pay
        ([-0.5], [0.2], 0.0, (0.121, -0.061)),
    ]
    for real, fake, penalty, means in steps:
        real, fake = torch.tensor(real), torch.tensor(fake)
        assert lecam(real, fake).item() == pytest.approx(penalty, abs=1e-6)
        lecam.gather_statistics(real, fake)
        lecam.apply_statistics()
        assert (lecam.real_mean.item(), lecam.fake_mean.item()) == pytest.approx(means, abs=1e-6)


def test_lecam_draws_both_towards_the_other_average():
    lecam = LeCam()
    real, fake = torch.tensor([2.0, -2.0], requires_grad=True), torch.tensor([-3.0, 3.0], requires_grad=True)
    lecam(real, fake).backward()
    assert real.grad.tolist() == [2, 0] and fake.grad.tolist() == [-3, 0]


def test_lecam_of_micro_batches_equals_that_of_one_batch():
    real, fake = pictures(7, 1, 3, 3), pictures(7, 1, 3, 3, seed=3)
    whole, parts = LeCam(0.5).double(), LeCam(0.5).double()
    for _ in range(2):
        whole.gather_statistics(real, fake)
        whole.apply_statistics()
        for of_real, of_fake in zip(real.split([4, 1, 2]), fake.split([2, 2, 3]), strict=True):
            parts.gather_statistics(of_real, of_fake)
        parts.apply_statistics()
        torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=1e-12, atol=0)
    assert whole.real_mean.item() == pytest.approx(0.75 * real.mean().item())


def test_lecam_of_a_skipped_step_is_as_it_was():
    lecam = LeCam(0.5)
    lecam.gather_statistics(torch.ones(2), -torch.ones(2))
    lecam.apply_statistics()
    before = {name: value.clone() for name, value in lecam.state_dict().items()}
    assert before.keys() == {"real_mean", "fake_mean"} and before["real_mean"] == 0.5
    lecam(torch.ones(2), torch.ones(2))
    lecam.apply_statistics()  # nothing was gathered since
    lecam.gather_statistics(torch.tensor([math.nan]), torch.tensor([9.0]))
    lecam.discard_statistics()
    lecam.apply_statistics()
    assert all(torch.equal(value, before[name]) for name, value in lecam.state_dict().items())
    again = LeCam(0.5)
    again.load_state_dict(before)
    for one in (lecam, again):
        one.gather_statistics(torch.ones(1), torch.ones(1))
        one.apply_statistics()
    assert torch.equal(again.real_mean, lecam.real_mean) and again.fake_mean.item() == 0.25


def test_lecam_keeps_no_graph():
    lecam = LeCam()
    logits = torch.ones(2, requires_grad=True)
    lecam.gather_statistics(2 * logits, 2 * logits)
    lecam.apply_statistics()
    assert not lecam.real_mean.requires_grad
    assert lecam(2 * logits, logits).requires_grad


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_lecam_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=f"decay must be in .* got {decay}"):
        LeCam(decay)


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_steps_leave_each_other_alone(kind):
    network, discriminator, lecam = decoder(), small_discriminator(), LeCam().double()
    reconstruction = network(pictures(2, 4, 8, 8))
    real = pictures(2, 3, 8, 8, seed=3)

    discriminator.requires_grad_(False)
    distance = F.l1_loss(reconstruction, real)
    adversarial = generator_loss(kind, discriminator(reconstruction))
    weight = adaptive_weight(distance, adversarial, network[-1].weight)
    (distance + weight * adversarial).backward()
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    from_both = network[-1].weight.grad.clone()
    assert from_both.any()

    discriminator.requires_grad_(True)
    kept = [parameter.grad.clone() for parameter in network.parameters()]
    real_logits, fake_logits = discriminator(real), discriminator(reconstruction.detach())
    loss = discriminator_loss(kind, real_logits, fake_logits) + lecam(real_logits, fake_logits)
    (loss + r1_penalty(discriminator, real)).backward()
    assert all(parameter.grad.any() for parameter in discriminator.parameters())
    assert all(torch.equal(p.grad, before) for p, before in zip(network.parameters(), kept, strict=True))

    network.zero_grad()  # and the adversarial part does reach the generator
    F.l1_loss(network(pictures(2, 4, 8, 8)), real).backward()
    assert not torch.allclose(network[-1].weight.grad, from_both)


def test_two_processes_equal_one(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.adversarial_ranks", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    one = run(0, 1)
    assert len(one) == 10
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name  # bit for bit, or the ranks drift apart
        torch.testing.assert_close(
            first[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )
