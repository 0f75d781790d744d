"""What holds for MAGVIT2's and MaskGIT's networks alike; for what the originals give see tests/conversion."""

import copy

import pytest
import torch
from torch import Tensor

from vistok import LFQConfig, MAGVIT2Config, MaskGITConfig, NetworkConfig, VQGANConfig, VQModelHF

SMALL = {"hidden_channels": 32, "channel_multipliers": [1, 2], "num_res_blocks": 1}
NETWORKS = [
    *(MAGVIT2Config(**SMALL, adaptive_norm=adaptive) for adaptive in (True, False)),
    *(MaskGITConfig(**SMALL, downsampling=downsampling) for downsampling in ("pool", "conv")),
]
over_networks = pytest.mark.parametrize(
    "network", NETWORKS, ids=["adaptive norm", "plain norm", "pooling", "strided"]
)


def small(network: NetworkConfig) -> VQModelHF:
    torch.manual_seed(0)
    return VQModelHF(LFQConfig(num_bits=6, image_size=16, network=network)).eval()


def pictures() -> Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@over_networks
def test_checkpointed_gradients_are_equal_and_blocks_run_twice(network: NetworkConfig):
    plain = small(network).train()
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


@pytest.mark.parametrize(
    "network",
    [*NETWORKS[1:3], VQGANConfig(**SMALL, attention_levels=[])],
    ids=["MAGVIT2", "MaskGIT", "VQGAN"],
)
def test_features_of_the_middle_are_never_overwritten(network: NetworkConfig):
    model = small(network)
    seen = []
    model.encoder.middle.register_forward_hook(lambda module, args, out: seen.append((out, out.clone())))
    with torch.no_grad():
        model.encode(pictures())
    [(features, before)] = seen
    assert torch.equal(features, before)


@over_networks
def test_compiled_is_equal(network: NetworkConfig):
    model = small(network)
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


@over_networks
def test_bfloat16_is_near_float32(network: NetworkConfig):
    model = small(network)
    with torch.no_grad():
        out = model.encode(pictures())
        latents, picture = model.encode_latents(pictures()), model.decode(out.tokens)
        half = model.to(torch.bfloat16)
        near = half.encode_latents(pictures())
        assert near.dtype == torch.bfloat16
        torch.testing.assert_close(near.float(), latents, atol=0.05 * float(latents.abs().max()), rtol=0)
        decoded = half.decode(out.tokens)
        torch.testing.assert_close(decoded.float(), picture, atol=0.05 * float(picture.abs().max()), rtol=0)
