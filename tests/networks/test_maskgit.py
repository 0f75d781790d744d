"""MaskGIT's network beside its numbers, which tests/conversion shows against the originals'."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vistok import LFQConfig, MaskGITConfig, VQModelHF
from vistok.networks import build_encoder

over_downsamplings = pytest.mark.parametrize("downsampling", ["pool", "conv"])


def small(downsampling: str) -> VQModelHF:
    torch.manual_seed(0)
    network = MaskGITConfig(
        hidden_channels=32, channel_multipliers=[1, 2], num_res_blocks=1, downsampling=downsampling
    )
    return VQModelHF(LFQConfig(num_bits=6, image_size=16, network=network)).eval()


def pictures() -> Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@over_downsamplings
def test_checkpointed_gradients_are_equal_and_blocks_run_twice(downsampling: str):
    plain = small(downsampling).train()
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


@over_downsamplings
def test_compiled_is_equal(downsampling: str):
    model = small(downsampling)
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


@over_downsamplings
def test_bfloat16_is_near_float32(downsampling: str):
    model = small(downsampling)
    with torch.no_grad():
        out = model.encode(pictures())
        latents, picture = model.encode_latents(pictures()), model.decode(out.tokens)
        half = model.to(torch.bfloat16)
        near = half.encode_latents(pictures())
        assert near.dtype == torch.bfloat16
        torch.testing.assert_close(near.float(), latents, atol=0.05 * float(latents.abs().max()), rtol=0)
        decoded = half.decode(out.tokens)
        torch.testing.assert_close(decoded.float(), picture, atol=0.05 * float(picture.abs().max()), rtol=0)


def test_a_block_that_changes_the_width_forgets_its_input():
    # The original's quirk, which the weights need: the skip is computed from the block's own output.
    encoder = build_encoder(MaskGITConfig(hidden_channels=32, channel_multipliers=[2], num_res_blocks=2))
    widening, other = encoder.levels[0]
    x = torch.randn(1, 32, 4, 4)
    features = widening.conv2(F.silu(widening.norm2(widening.conv1(F.silu(widening.norm1(x))))))
    torch.testing.assert_close(widening(x), features + F.conv2d(features, widening.shortcut.weight))
    for convolution in (widening.conv2, other.conv2):
        torch.nn.init.zeros_(convolution.weight)
    assert not widening(x).any()
    y = torch.randn(1, 64, 4, 4)
    assert torch.equal(other(y), y)


def test_strided_convolutions_pad_on_the_right_and_below():
    encoder = small("conv").encoder
    x = torch.randn(1, 32, 6, 8)
    (down,) = encoder.downsamples
    wanted = F.conv2d(F.pad(x, (0, 1, 0, 1)), down.conv.weight, down.conv.bias, stride=2)
    torch.testing.assert_close(down(x), wanted)
    assert wanted.shape == (1, 32, 3, 4)


@pytest.mark.parametrize(
    "fields", [{"hidden_channels": 48}, {"hidden_channels": 16, "channel_multipliers": [2]}]
)
def test_widths_that_have_no_groups_are_refused(fields: dict):
    # The second has levels of 32 channels, but its first block normalizes 16.
    with pytest.raises(ValueError, match=f"hidden_channels {fields['hidden_channels']}.*multiples of 32"):
        MaskGITConfig(**fields)
