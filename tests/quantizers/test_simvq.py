"""SimVQ: one linear map moves every entry; IBQ: every entry learns."""

import torch

from vistok.quantizers import IBQ, VQ, SimVQ


@torch.no_grad()
def table_of(quantizer: SimVQ) -> torch.Tensor:
    return quantizer.table().clone()


def test_the_codebook_stays_and_all_entries_move():
    torch.manual_seed(0)
    quantizer = SimVQ(64, 4)
    assert abs(quantizer.codebook.std() - 4**-0.5) < 0.05
    codebook, table = quantizer.codebook.clone(), table_of(quantizer)
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=0.1, weight_decay=0.1)
    quantizer(torch.randn(1, 4, 1) + 3).loss.backward()  # a single latent
    optimizer.step()
    assert torch.equal(quantizer.codebook, codebook)
    assert ((table_of(quantizer) - table).abs().amax(1) > 0.001).all()


def test_the_gradient_of_the_map_is_that_of_the_whole_table():
    torch.manual_seed(0)
    quantizer = SimVQ(32, 4, commitment_weight=0.0)
    latents = torch.randn(2, 4, 30)
    quantizer(latents).loss.backward()
    table = quantizer.table()
    tokens = quantizer.encode(latents)
    loss = (table[tokens].movedim(-1, 1) - latents).square().mean()
    weight, bias = torch.autograd.grad(loss, (quantizer.projection_weight, quantizer.projection_bias))
    torch.testing.assert_close(quantizer.projection_weight.grad, weight)
    torch.testing.assert_close(quantizer.projection_bias.grad, bias)


def test_ibq_gradient_is_that_of_the_formula():
    torch.manual_seed(0)
    quantizer = IBQ(300, 4, normalize=False).double()
    latents = torch.randn(700, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(700, 4, dtype=torch.float64)
    logits = latents @ quantizer.codebook.t()
    p = logits.softmax(1)
    onehot = torch.nn.functional.one_hot(logits.argmax(1), 300).double()
    quantized = (onehot - p.detach() + p) @ quantizer.codebook
    expected = torch.autograd.grad((weights * quantized).sum(), (latents, quantizer.codebook))
    out = quantizer(latents)
    found = torch.autograd.grad((weights * out.quantized).sum(), (latents, quantizer.codebook))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_ibq_moves_entries_that_nothing_chooses():
    torch.manual_seed(0)
    latents = torch.randn(1, 4, 8)
    moved = {}
    for method in (VQ, IBQ):
        quantizer = method(64, 4)
        out = quantizer(latents)
        (out.quantized.square().mean() + out.loss).backward()
        moved[method] = int(quantizer.codebook.grad.any(dim=1).sum())
    assert moved[VQ] <= 8
    assert moved[IBQ] == 64


def test_ibq_by_default_lets_no_entry_win_by_its_length():
    torch.manual_seed(0)
    latents, used = torch.randn(1, 4, 500), {}
    for name, quantizer in (("default", IBQ(64, 4)), ("plain", IBQ(64, 4, normalize=False))):
        with torch.no_grad():
            quantizer.codebook[:2] *= 50
        used[name] = len(quantizer.encode(latents).unique())
    assert used["default"] > 50
    assert used["plain"] < 30
