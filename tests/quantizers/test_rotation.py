"""The rotation trick: forward the entry, backward a rotation and a scaling."""

import pytest
import torch

from vistok.quantizers import VQ
from vistok.quantizers.rotation import rotated


def test_the_forward_value_is_the_entry():
    rows, quantized = torch.randn(50, 6, requires_grad=True), torch.randn(50, 6)
    assert torch.equal(rotated(rows, quantized), quantized)


def test_the_gradient_is_turned_and_scaled():
    torch.manual_seed(0)
    rows, quantized = torch.randn(50, 6, dtype=torch.float64, requires_grad=True), torch.randn(50, 6).double()
    rows_length, length = rows.detach().norm(dim=1), quantized.norm(dim=1)
    weights = torch.randn(50, 6).double()
    (gradient,) = torch.autograd.grad((rotated(rows, quantized) * weights).sum(), rows)
    torch.testing.assert_close(gradient.norm(dim=1), weights.norm(dim=1) * length / rows_length)
    # The angle between gradient and latent is that between the weights and the entry.
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(gradient, rows.detach()), cosine(weights, quantized))


@pytest.mark.parametrize("case", ["no latent", "no entry", "opposite", "equal"])
def test_degenerate_vectors_have_a_finite_gradient(case: str):
    entry = torch.tensor([[1.0, 2.0, 2.0]])
    rows = {"no latent": 0 * entry, "no entry": entry, "opposite": -2 * entry, "equal": entry.clone()}[case]
    quantized = 0 * entry if case == "no entry" else entry
    weights = torch.tensor([[0.3, -1.0, 2.0]])
    rows.requires_grad_()
    (gradient,) = torch.autograd.grad((rotated(rows, quantized) * weights).sum(), rows)
    torch.testing.assert_close(gradient, weights)


def test_vq_uses_it():
    torch.manual_seed(0)
    plain, turned = VQ(16, 4), VQ(16, 4, gradient="rotation")
    turned.load_state_dict(plain.state_dict())
    latents = torch.randn(2, 4, 9, requires_grad=True)
    weights = torch.randn(2, 4, 9)
    gradients = [
        torch.autograd.grad((q(latents).quantized * weights).sum(), latents)[0] for q in (plain, turned)
    ]
    assert torch.equal(plain(latents).quantized, turned(latents).quantized)
    assert not torch.allclose(*gradients)
