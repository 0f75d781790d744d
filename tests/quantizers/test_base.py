"""What the base class does for a method: precision, registration, the straight-through gradient."""

import pytest
import torch
from torch import Tensor, nn

from vistok import QuantizerOutput, VisualTokenizerConfig
from vistok.quantizers import QUANTIZERS, FSQConfig, Quantizer, build_quantizer, straight_through


class Projected(Quantizer):
    """The nearest of eight directions, by a matrix product that autocast would make in bfloat16."""

    def __init__(self):
        super().__init__()
        self.codebook_size, self.codebook_dim = 8, 4
        self.latent_dim = self.quantized_dim = 4
        self.directions = nn.Parameter(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
        self.dtypes = []

    def scores(self, latents: Tensor) -> Tensor:
        scores = torch.einsum("bd...,kd->bk...", latents, self.directions)
        self.dtypes.append(scores.dtype)
        return scores

    def quantize(self, latents: Tensor) -> QuantizerOutput:
        tokens = self.scores(latents).argmax(1)
        return QuantizerOutput(straight_through(latents, self.entries(tokens)), tokens)

    def assign(self, latents: Tensor) -> Tensor:
        return self.scores(latents).argmax(1)

    def entries(self, tokens: Tensor) -> Tensor:
        one_hot = nn.functional.one_hot(tokens, 8).to(self.directions)
        vectors = one_hot @ self.directions
        self.dtypes.append(vectors.dtype)
        return vectors.movedim(-1, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_method_computes_in_float32_whatever_is_around_it(dtype: torch.dtype):
    quantizer = Projected()
    latents = torch.randn(2, 4, 50, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = quantizer(latents.float())
    quantizer.dtypes.clear()
    with torch.autocast("cpu", torch.bfloat16):
        out, tokens, vectors = (
            quantizer(latents),
            quantizer.encode(latents),
            quantizer.lookup(expected.tokens),
        )
    assert set(quantizer.dtypes) == {torch.float32}
    assert torch.equal(out.tokens, expected.tokens)
    assert torch.equal(tokens, expected.tokens)
    assert torch.equal(vectors, expected.quantized)
    assert torch.equal(out.quantized, expected.quantized.to(dtype))


def test_float64_stays_float64():
    quantizer = Projected().double()
    quantizer(torch.randn(2, 4, 5, dtype=torch.float64))
    assert set(quantizer.dtypes) == {torch.float64}


def test_straight_through_is_exact_and_passes_the_gradient():
    latents, quantized = torch.randn(1000, requires_grad=True), torch.randn(1000)
    out = straight_through(latents, quantized)
    assert torch.equal(out, quantized)
    weights = torch.randn(1000)
    (out * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_the_loss_of_an_output_is_the_sum_of_its_losses():
    quantized = torch.zeros(1, 2)
    assert QuantizerOutput(quantized).loss == 0
    assert QuantizerOutput(quantized).losses == {}
    assert QuantizerOutput(quantized, losses={"a": torch.tensor(1.0), "b": torch.tensor(2.5)}).loss == 3.5


def test_a_method_without_its_functions_is_refused():
    with pytest.raises(TypeError, match="must define quantize"):

        class Empty(Quantizer):
            config_class = FSQConfig

    assert QUANTIZERS[FSQConfig].__name__ == "FSQ"


def test_a_constructor_that_is_not_the_config_is_refused():
    with pytest.raises(TypeError, match=r"\['level'\].*\['levels', 'bound'\]"):

        class Other(Projected):
            config_class = FSQConfig

            def __init__(self, level: int):
                super().__init__()

    assert QUANTIZERS[FSQConfig].__name__ == "FSQ"


def test_a_configuration_without_a_quantizer_is_refused():
    class LonelyConfig(VisualTokenizerConfig):
        model_type = "test_lonely"

    with pytest.raises(ValueError, match=r"No quantizer is registered for LonelyConfig.*FSQConfig"):
        build_quantizer(LonelyConfig())
