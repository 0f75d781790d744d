"""VQGAN's network: the sizes of the published models, and its shortcuts against the plain maths."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vistok import FSQConfig, IBQConfig, OptVQConfig, VQConfig, VQGANConfig, VQModelHF
from vistok.networks import build_decoder, build_encoder
from vistok.networks.layers import GroupNorm, silu_of_norm_, upsample_conv

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "benchmarks"))
from plain_vqgan import PlainVQGAN

SMALL = {
    "hidden_channels": 32,
    "channel_multipliers": [1, 2, 2],
    "num_res_blocks": 1,
    "attention_levels": [1, 2],
}


def small(**fields) -> VQModelHF:
    torch.manual_seed(0)
    config = FSQConfig(
        levels=[8, 5, 5], image_size=32, network=VQGANConfig(**{**SMALL, "z_channels": 16, **fields})
    )
    model = VQModelHF(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:  # whose initial values would hide a mistake
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.3)
    return model


def pictures(height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_vqgan_f16_has_the_parameters_of_the_paper():
    with torch.device("meta"):
        assert count(build_encoder(VQGANConfig())) == 29_298_176
        assert count(build_decoder(VQGANConfig(), 256)) == 42_449_795


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (OptVQConfig(codebook_size=16384, codebook_dim=64, num_codebooks=4, shared_codebook=True), 72.93),
        (VQConfig(codebook_size=16384, codebook_dim=8, normalize=True), 71.88),  # LlamaGen's VQ-16
        (IBQConfig(codebook_size=16384, codebook_dim=256), 106.66 + 0.13 + 4.19),  # network, 1x1s, codebook
    ],
    ids=["optvq", "llamagen VQ-16", "ibq"],
)
def test_published_models_have_their_parameters(config, millions: float):
    config.network = VQGANConfig(num_res_blocks=4 if isinstance(config, IBQConfig) else 2)
    with torch.device("meta"):
        assert count(VQModelHF(config)) / 1e6 == pytest.approx(millions, abs=0.006)


def test_llamagens_vq_8_has_its_parameters():
    network = VQGANConfig(channel_multipliers=[1, 2, 2, 4], attention_levels=[3])
    with torch.device("meta"):
        model = VQModelHF(VQConfig(codebook_size=16384, codebook_dim=8, normalize=True, network=network))
    assert count(model) / 1e6 == pytest.approx(70.11, abs=0.006)  # and 65,536 numbers of a buffer: 70.2
    assert model.downsample_factor == 8


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"projection_kernel_size": 3},
        {"num_res_blocks": 2, "attention_levels": []},
        {"attention_norm_eps": 0.1},
    ],
    ids=str,
)
def test_the_plain_layers_give_the_same(fields: dict, grad: bool):
    model = small(**fields)
    plain = PlainVQGAN(model)
    quantized = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(
            model.encode_latents(pictures()), plain.encode(pictures()), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            model.decode_quantized(quantized), plain.decode(quantized), rtol=1e-4, atol=1e-5
        )


def test_the_epsilon_of_the_attention_matters():
    one, other = small(), small(attention_norm_eps=0.1)
    with torch.no_grad():
        assert not torch.allclose(one.encode_latents(pictures()), other.encode_latents(pictures()), atol=1e-4)


def test_gradients_are_those_of_the_plain_layers():
    model = small().double().train()
    plain = PlainVQGAN(model)
    quantized = torch.randn(2, 3, 8, 12, dtype=torch.double)
    for run in (model.encode_latents, plain.encode):
        run(pictures().double()).square().sum().backward()
    for run in (model.decode_quantized, plain.decode):
        run(quantized).square().sum().backward()
    wanted = dict(plain.model.named_parameters())
    for name, parameter in model.named_parameters():
        if ".qkv." not in name:  # the plain layers hold the three parts as tensors of their own
            torch.testing.assert_close(parameter.grad, wanted[name].grad, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("bias", [True, False])
def test_four_small_kernels_are_the_convolution_of_the_doubled_picture(bias: bool):
    x = torch.randn(2, 5, 3, 4, dtype=torch.double, requires_grad=True)
    weight = torch.randn(6, 5, 3, 3, dtype=torch.double, requires_grad=True)
    offset = torch.randn(6, dtype=torch.double) if bias else None
    ours = upsample_conv(x, weight, offset)
    plain = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, offset, padding=1)
    torch.testing.assert_close(ours, plain)
    towards = torch.randn_like(plain)
    for one, other in zip(
        torch.autograd.grad(ours, (x, weight), towards),
        torch.autograd.grad(plain, (x, weight), towards),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@torch.no_grad()
def test_normalization_in_place_is_group_normalization(offset: float):
    norm = GroupNorm(64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(3, 64, 9, 7) + offset + torch.arange(64).view(1, 64, 1, 1)
    x = x.contiguous(memory_format=torch.channels_last)
    wanted = F.silu(F.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double(), norm.eps))
    error = (silu_of_norm_(norm, x.clone(memory_format=torch.preserve_format)) - wanted).abs().max()
    theirs = (F.silu(norm(x)) - wanted).abs().max()
    assert error <= max(2 * theirs, 1e-5)


@torch.no_grad()
def test_a_picture_alone_is_the_picture_in_a_batch():
    model = small()
    together = model.encode_latents(pictures())
    alone = torch.cat([model.encode_latents(picture[None]) for picture in pictures()])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = small().train()
        if checkpointing:
            name = "activation_checkpointing_enable"
            getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")()
        model(pictures()).reconstruction.square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one)


@torch.no_grad()
def test_compiled_whole_and_in_half_precision():
    model = small()
    wanted = model.encode_latents(pictures())
    torch._dynamo.reset()
    compiled = torch.compile(model.encode_latents, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(pictures()), wanted, rtol=1e-3, atol=1e-4)
    half = small().to(torch.bfloat16)
    assert float((half.encode_latents(pictures()).float() - wanted).abs().max() / wanted.abs().max()) < 0.1
    assert half.decode(half.encode(pictures()).tokens).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_channels": 48}, "multiples of 32"),
        ({"channel_multipliers": []}, "channel_multipliers"),
        ({"channel_multipliers": [1, 0]}, "channel_multipliers"),
        ({"attention_levels": [5]}, "attention_levels"),
        ({"projection_kernel_size": 2}, "projection_kernel_size"),
    ],
    ids=str,
)
def test_settings_that_make_no_network(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        VQGANConfig(**fields)
