"""Product quantization: each part on its own, in its place."""

import pytest
import torch

from vistok.quantizers import FSQ, VQ, Continuous, OptVQ, Product, Residual


@pytest.mark.parametrize("shared", [False, True])
def test_each_part_is_quantized_on_its_own(shared: bool):
    torch.manual_seed(0)
    product = Product(lambda: VQ(20, 3), num_codebooks=4, shared_codebook=shared)
    latents = torch.randn(2, 12, 5)
    out = product(latents)
    assert len(product.quantizers) == (1 if shared else 4)
    assert (product.latent_dim, product.quantized_dim, product.codebook_dim) == (12, 12, 3)
    losses = []
    for place in range(4):
        part = product.quantizer(place)(latents[:, 3 * place : 3 * place + 3])
        assert torch.equal(out.tokens[:, place], part.tokens)
        torch.testing.assert_close(out.quantized[:, 3 * place : 3 * place + 3], part.quantized)
        losses.append(part.loss)
    torch.testing.assert_close(out.loss, torch.stack(losses).mean())


def test_a_shared_codebook_is_counted_once():
    def count(shared: bool) -> int:
        return sum(p.numel() for p in Product(lambda: VQ(20, 3), 4, shared).parameters())

    assert count(shared=True) * 4 == count(shared=False) == 240
    assert list(Product(lambda: VQ(20, 3), 4, True).state_dict()) == ["quantizers.0.codebook"]


def test_one_codebook_keeps_its_axis():
    product = Product(lambda: FSQ([5, 5]), num_codebooks=1)
    assert product.encode(torch.randn(2, 2, 3)).shape == (2, 1, 3)


@pytest.mark.parametrize("count", [0, -1, 2.0, "3", None])
def test_bad_number_of_codebooks(count):
    with pytest.raises(ValueError, match="num_codebooks"):
        Product(lambda: FSQ([5, 5]), num_codebooks=count)


def test_tokens_name_the_codebook_that_is_wrong():
    product = Product(lambda: FSQ([5, 5]), num_codebooks=3)
    tokens = torch.zeros(2, 3, 4, dtype=torch.int64)
    tokens[1, 2, 3] = 25
    with pytest.raises(ValueError, match=r"\[1, 2, 3\]"):
        product.lookup(tokens)
    with pytest.raises(ValueError, match=r"\(B, 3, \*grid\)"):
        product.lookup(tokens[:, :2])


@pytest.mark.parametrize("layout", [Product, Residual])
def test_somebodys_own_quantizer_may_know_of_no_mask(layout: type):
    class Plain(FSQ):
        def forward(self, latents):
            return super().forward(latents)

    several = layout(lambda: Plain([5, 5]), 2)
    latents = torch.randn(2, several.latent_dim, 3)
    assert torch.equal(several(latents).tokens, several.encode(latents))
    with pytest.raises(TypeError):
        several(latents, torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("shared", [False, True])
def test_other_assignments_are_those_of_the_parts(shared: bool):
    torch.manual_seed(0)
    product = Product(lambda: OptVQ(20, 3), num_codebooks=2, shared_codebook=shared)
    latents = torch.randn(2, 6, 5)
    found = product.other_assignments(latents)["optimal transport"]
    if shared:  # one plan for the parts of all places
        folded = product.quantizers[0].transport(latents.unflatten(1, (2, 3)).flatten(0, 1))
        expected = folded.unflatten(0, (2, 2))
    else:
        expected = torch.stack(
            [product.quantizers[k].transport(latents[:, 3 * k : 3 * k + 3]) for k in (0, 1)], 1
        )
    assert torch.equal(found, expected)
    assert found.shape == product.encode(latents).shape


def test_most_parts_offer_no_other_assignment():
    assert Product(lambda: FSQ([3, 3]), num_codebooks=2).other_assignments(torch.zeros(1, 4, 5)) == {}
    assert Residual(lambda: VQ(20, 3), num_codebooks=2).other_assignments(torch.zeros(1, 3, 5)) == {}


@pytest.mark.parametrize("layout", [Product, Residual])
def test_what_has_no_tokens_has_no_several_codebooks(layout):
    with pytest.raises(ValueError, match="Continuous has no tokens"):
        layout(lambda: Continuous(4), 2)
