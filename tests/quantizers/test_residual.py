"""Residual quantization: every stage lowers the error, fixed codebooks by their levels."""

import pytest
import torch

from vistok.quantizers import FSQ, IBQ, VQ, GumbelVQ, Residual


@pytest.mark.parametrize("bound", ["atanh", "tan"])
@pytest.mark.parametrize("levels", [[5, 5], [8, 8], [3, 7], [4, 2]])
def test_each_stage_of_fsq_lowers_the_error_by_its_levels(levels: list[int], bound: str):
    # Within the outermost levels; beyond them the first stage's error is not a rounding.
    generator = torch.Generator().manual_seed(0)
    half_width = torch.tensor(levels) // 2
    low, high = -torch.ones(2), (torch.tensor(levels) - 1 - half_width) / half_width
    values = low + (high - low) * torch.rand(4000, 2, generator=generator)
    errors = []
    for stages in (1, 2, 3):
        residual = Residual(lambda: FSQ(levels, bound), stages)
        first = residual.quantizer(0)
        latents = first.unbounded(values)
        quantized = residual.eval()(latents).quantized
        torch.testing.assert_close(residual.lookup(residual.encode(latents)), quantized, atol=1e-6, rtol=0)
        errors.append((quantized - first.bounded(latents)).square().mean(0).sqrt())
    for before, after in zip(errors, errors[1:], strict=False):
        factor = before / after
        assert (factor > 0.7 * torch.tensor(levels)).all(), factor
        assert (factor < 1.4 * torch.tensor(levels)).all(), factor


@pytest.mark.parametrize("shared", [False, True])
def test_is_greedy_on_what_is_left(shared: bool):
    torch.manual_seed(0)
    residual = Residual(lambda: VQ(30, 4), 3, shared)
    with torch.no_grad():
        for child in residual.quantizers:
            child.codebook.normal_()
    latents = torch.randn(2, 4, 6)
    out = residual(latents)
    left = latents.movedim(1, -1)
    for depth in range(3):
        table = residual.quantizer(depth).codebook.detach()
        tokens = torch.cdist(left, table.expand(2, -1, -1)).argmin(-1)
        assert torch.equal(out.tokens[:, depth], tokens)
        left = left - table[tokens]
    torch.testing.assert_close(out.quantized.movedim(1, -1), latents.movedim(1, -1) - left)


def test_more_stages_lower_the_error_of_learned_codebooks():
    torch.manual_seed(0)
    latents = torch.randn(8, 4, 32)
    residual = Residual(lambda: VQ(64, 4), 3).eval()
    with torch.no_grad():
        for depth, child in enumerate(residual.quantizers):
            child.codebook.normal_(std=0.5**depth)
    quantized = 0
    errors = []
    for child in residual.quantizers:
        quantized = quantized + child(latents - quantized).quantized
        errors.append((latents - quantized).square().mean().item())
    assert errors[2] < 0.7 * errors[1] < 0.7**2 * errors[0]
    torch.testing.assert_close(residual(latents).quantized, quantized)


def test_the_straight_through_gradient_is_counted_once():
    residual = Residual(lambda: VQ(30, 4, codebook_weight=0.0, commitment_weight=0.0), 3)
    latents = torch.randn(2, 4, 6, requires_grad=True)
    weights = torch.randn(2, 4, 6)
    (residual(latents).quantized * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)


def test_every_codebook_learns():
    residual = Residual(lambda: VQ(30, 4), 3)
    residual(torch.randn(2, 4, 6)).loss.backward()
    assert all(child.codebook.grad.any() for child in residual.quantizers)


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_bad_number_of_codebooks(count):
    with pytest.raises(ValueError, match="num_codebooks"):
        Residual(lambda: FSQ([5, 5]), num_codebooks=count)


def test_stages_that_float32_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="num_codebooks must be at most 7 here"):
        Residual(lambda: FSQ(levels=[8, 5]), num_codebooks=8)
    with pytest.raises(ValueError, match="num_codebooks must be at most 1 here, got 2: float32 cannot tell"):
        Residual(lambda: FSQ(levels=[2**24]), num_codebooks=2)
    assert Residual(lambda: FSQ(levels=[2**24]), num_codebooks=1).codebook_size == 2**24
    quantizer = Residual(lambda: FSQ(levels=[8, 5]), num_codebooks=7)
    tokens = torch.randint(0, 40, (4, 7, 16, 16), generator=torch.Generator().manual_seed(0))
    assert torch.equal(quantizer.index(quantizer.lookup(tokens)), tokens)


def dropped(share: float = 1.0, step: int = 0, **more) -> tuple[Residual, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    residual = Residual(lambda: VQ(16, 4, **more), 3, quantizer_dropout=share)
    with torch.no_grad():
        for depth, child in enumerate(residual.quantizers):
            child.codebook.normal_(std=0.5**depth)
    residual.set_step(step)
    latents = torch.randn(64, 4, 5, generator=torch.Generator().manual_seed(1))
    return residual, latents, residual(latents).quantized


def test_dropout_keeps_the_first_stages_of_a_picture():
    residual, latents, quantized = dropped()
    tokens = residual.encode(latents)
    sums = torch.stack([residual.lookup(tokens, num_codebooks=k) for k in (1, 2, 3)])
    equal = torch.stack([torch.isclose(quantized, part, atol=1e-6).flatten(1).all(1) for part in sums])
    assert equal.any(0).all()
    counts = equal.sum(1)
    assert (counts > 10).all(), f"one to all stages, each as likely, not {counts.tolist()} of 64"


def test_dropout_is_a_share_of_the_pictures_keyed_by_the_step():
    full = dropped(0.0)[2]
    same = [(dropped(0.3, step)[2] == full).flatten(1).all(1) for step in (1, 1, 2)]
    assert 0.65 < same[0].float().mean() < 0.95  # 0.3 drop, a third of them nothing
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
    residual, latents, _ = dropped(1.0)
    assert torch.equal(residual.eval()(latents).tokens, residual.encode(latents))


def test_stages_that_are_dropped_have_no_part_in_losses():
    residual, latents, _ = dropped(1.0)
    residual.set_step(0)
    kept = residual._stages_kept(latents)
    residual.set_step(0)
    residual(latents).losses["codebook"].backward()
    for depth, child in enumerate(residual.quantizers):
        assert child.codebook.grad.any()
        used = residual.encode(latents)[kept > depth, depth].unique()
        unused = torch.ones(16, dtype=torch.bool)
        unused[used] = False
        assert not child.codebook.grad[unused].any()


def test_gumbel_stages_read_logits_of_their_own():
    torch.manual_seed(0)
    residual = Residual(lambda: GumbelVQ(8, 4), 2).eval()
    logits = torch.randn(3, 16, 5)
    tokens = torch.stack([part.argmax(1) for part in logits.chunk(2, dim=1)], dim=1)
    assert torch.equal(residual.encode(logits), tokens)
    expected = sum(residual.quantizer(depth).lookup(tokens[:, depth]) for depth in (0, 1))
    torch.testing.assert_close(residual(logits).quantized, expected)


@pytest.mark.parametrize("method", [IBQ, GumbelVQ])
def test_every_stage_learns_through_its_vectors(method):
    torch.manual_seed(0)
    residual = Residual(lambda: method(8, 4), 3)
    residual(torch.randn(2, residual.latent_dim, 6)).quantized.square().sum().backward()
    assert all(child.codebook.grad.any() for child in residual.quantizers)
