"""Open-MAGVIT2's network beside its numbers, which tests/conversion shows against the originals'."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vistok import LFQConfig, MAGVIT2Config, VQModelHF
from vistok.networks.magvit2 import AdaptiveGroupNorm

over_norms = pytest.mark.parametrize("adaptive_norm", [True, False])


def small(adaptive_norm: bool = True) -> VQModelHF:
    torch.manual_seed(0)
    network = MAGVIT2Config(
        hidden_channels=32, channel_multipliers=[1, 2], num_res_blocks=1, adaptive_norm=adaptive_norm
    )
    return VQModelHF(LFQConfig(num_bits=6, image_size=16, network=network)).eval()


def pictures() -> Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@over_norms
def test_checkpointed_gradients_are_equal_and_blocks_run_twice(adaptive_norm: bool):
    plain = small(adaptive_norm).train()
    checkpointed = copy.deepcopy(plain)
    enable = getattr(
        checkpointed, "activation_checkpointing_enable", checkpointed.gradient_checkpointing_enable
    )
    enable()
    calls = []
    for name, module in checkpointed.named_modules():
        if name.endswith("conv1"):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    for model in (plain, checkpointed):
        out = model(pictures())
        (out.reconstruction.square().mean() + out.loss).backward()
    assert calls
    assert all(calls.count(name) == 2 for name in calls)
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert one.grad is not None, name
        assert torch.equal(one.grad, other.grad), name


@over_norms
def test_compiled_is_equal(adaptive_norm: bool):
    model = small(adaptive_norm)
    encode = torch.compile(model.encode_latents, fullgraph=True, backend="aot_eager")
    decode = torch.compile(model.decode_quantized, fullgraph=True, backend="aot_eager")
    latents = model.encode_latents(pictures())
    torch.testing.assert_close(encode(pictures()), latents)
    latents = latents.detach().requires_grad_()
    gradients = []
    for call in (model.decode_quantized, decode):
        picture = call(latents)
        gradients.append(torch.autograd.grad(picture.square().mean(), [latents, model.decoder.last_layer]))
    torch.testing.assert_close(picture, model.decode_quantized(latents))
    torch.testing.assert_close(*gradients)


@over_norms
def test_bfloat16_is_near_float32(adaptive_norm: bool):
    model = small(adaptive_norm)
    with torch.no_grad():
        out = model.encode(pictures())
        latents, picture = model.encode_latents(pictures()), model.decode(out.tokens)
        half = model.to(torch.bfloat16)
        near = half.encode_latents(pictures())
        assert near.dtype == torch.bfloat16
        torch.testing.assert_close(near.float(), latents, atol=0.05 * float(latents.abs().max()), rtol=0)
        decoded = half.decode(out.tokens)
        torch.testing.assert_close(decoded.float(), picture, atol=0.05 * float(picture.abs().max()), rtol=0)


def test_adaptive_norm_is_its_formula():
    torch.manual_seed(0)
    norm = AdaptiveGroupNorm(64, 5)
    x, style = torch.randn(2, 64, 6, 4) * 3 + 1, torch.randn(2, 5, 3, 2)
    grouped = x.view(2, 32, -1)
    grouped = (grouped - grouped.mean(2, keepdim=True)) / (
        grouped.var(2, correction=0, keepdim=True) + 1e-6
    ).sqrt()
    places = style.flatten(2)
    deviation = (
        (places - places.mean(2, keepdim=True)).square().sum(2) / 5 + 1e-6
    ).sqrt()  # 6 places less one
    scale, shift = norm.gamma(deviation), norm.beta(places.mean(2))
    wanted = grouped.view_as(x) * scale[:, :, None, None] + shift[:, :, None, None]
    torch.testing.assert_close(norm(x, style), wanted, atol=1e-5, rtol=1e-5)


def test_a_single_place_has_no_deviation():
    # The unbiased variance of one number is not a number; the picture is one all the same.
    model = small()
    with torch.no_grad():
        assert model.decode(model.encode(pictures()[:, :, :2, :2]).tokens).isfinite().all()


def test_upsampling_moves_four_groups_of_channels_to_four_pixels():
    (upsample,) = small().decoder.upsamples
    x = torch.randn(2, 64, 3, 5)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        found = upsample(given)
        groups = F.conv2d(x, upsample.conv.weight, upsample.conv.bias, padding=1).unflatten(1, (2, 2, 64))
        for i in range(2):
            for j in range(2):
                torch.testing.assert_close(found[:, :, i::2, j::2], groups[:, i, j], atol=1e-5, rtol=1e-5)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_widths_that_have_no_groups_are_refused():
    with pytest.raises(ValueError, match="hidden_channels 40.*multiples of 32"):
        MAGVIT2Config(hidden_channels=40)
