"""No quantization: the latents pass as they are."""

import pytest
import torch

from vistok import ContinuousConfig, SimpleCNNConfig, VQModelHF
from vistok.quantizers import Continuous


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_is_the_identity(dtype: torch.dtype):
    latents = torch.randn(2, 4, 3, 3, dtype=dtype, requires_grad=True)
    out = Continuous(latent_dim=4)(latents)
    assert torch.equal(out.quantized, latents)
    assert out.quantized.dtype == dtype
    assert out.tokens is None
    assert out.losses == {}
    out.quantized.sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))


def test_a_model_without_tokens_says_what_to_use():
    model = VQModelHF(
        ContinuousConfig(latent_dim=4, image_size=16, network=SimpleCNNConfig(hidden_channels=8))
    )
    pictures = torch.zeros(1, 3, 16, 16)
    out = model(pictures)
    assert out.tokens is None
    torch.testing.assert_close(model.decode_quantized(model.encode_latents(pictures)), out.reconstruction)
    for call in (lambda: model.decode(torch.zeros(1, 4, 4, dtype=torch.int64)), lambda: model.token_shape):
        with pytest.raises(ValueError, match="encode_latents and decode_quantized"):
            call()


def test_several_codebooks_are_refused():
    with pytest.raises(ValueError, match="num_codebooks"):
        ContinuousConfig(num_codebooks=2)
    with pytest.raises(ValueError, match="latent_dim"):
        Continuous(latent_dim=0)
