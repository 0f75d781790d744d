"""PatchGAN's discriminator: its size, its weights, what it sees, and what depends on what."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vistok.training.discriminators import PatchDiscriminator


def small(normalization: str = "group", num_layers: int = 2) -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(channels=16, num_layers=num_layers, normalization=normalization)


@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_size_is_that_of_the_publication(normalization):
    with torch.device("meta"):
        discriminator = PatchDiscriminator(normalization=normalization)
        assert discriminator(torch.empty(2, 3, 256, 256)).shape == (2, 1, 30, 30)
    widths = [3, 64, 128, 256, 512, 1]
    kernels = sum(16 * before * after for before, after in zip(widths, widths[1:], strict=False))
    biases = 64 + 1  # of the first and the last layer; the others have a normalization
    norms = 2 * (128 + 256 + 512)
    assert kernels + biases + norms == 2_765_633
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 2_765_633


def test_channels_double_up_to_eight_times_the_first():
    with torch.device("meta"):
        discriminator = PatchDiscriminator(channels=16, num_layers=5)
    widths = [layer.out_channels for layer in discriminator.layers if isinstance(layer, nn.Conv2d)]
    assert widths == [16, 32, 64, 128, 128, 128, 1]


def test_initial_weights():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator()
    for layer in discriminator.layers:
        if isinstance(layer, nn.Conv2d):
            error = 4 * 0.02 / layer.weight.numel() ** 0.5  # four standard errors
            assert abs(layer.weight.mean().item()) < error
            assert abs(layer.weight.std().item() - 0.02) < error
        elif isinstance(layer, nn.BatchNorm2d):
            error = 4 * 0.02 / layer.weight.numel() ** 0.5
            assert abs(layer.weight.mean().item() - 1) < error
            assert abs(layer.weight.std().item() - 0.02) < error
            assert not layer.bias.any()
    first = discriminator.layers[0].weight.clone()
    discriminator.reset_parameters()
    assert not torch.equal(first, discriminator.layers[0].weight)


@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_equals_a_transcription_with_nothing_in_place(normalization):
    discriminator = small(normalization).double()
    pixel_values = torch.randn(3, 3, 20, 28).double().requires_grad_()
    kept = pixel_values.detach().clone()
    logits = discriminator(pixel_values)
    assert torch.equal(pixel_values, kept)
    parameters = list(discriminator.parameters())
    weights = iter(parameters)

    def normalized(x):
        scale, shift = next(weights).view(-1, 1, 1), next(weights).view(-1, 1, 1)
        if normalization == "batch":
            parts, eps, dims = x, 1e-5, (0, 2, 3)
        else:
            parts, eps, dims = x.unflatten(1, (32, -1)), 1e-6, (2, 3, 4)
        mean, variance = parts.mean(dims, keepdim=True), parts.var(dims, keepdim=True, correction=0)
        return ((parts - mean) / (variance + eps).sqrt()).reshape(x.shape) * scale + shift

    def leaky(x):
        return torch.where(x > 0, x, 0.2 * x)

    x = leaky(F.conv2d(pixel_values, next(weights), next(weights), stride=2, padding=1))
    x = leaky(normalized(F.conv2d(x, next(weights), stride=2, padding=1)))
    x = leaky(normalized(F.conv2d(x, next(weights), padding=1)))
    expected = F.conv2d(x, next(weights), next(weights), padding=1)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    upstream = torch.randn_like(logits)
    found = torch.autograd.grad(logits, [pixel_values, *parameters], upstream)
    for one, other in zip(
        found, torch.autograd.grad(expected, [pixel_values, *parameters], upstream), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("num_layers", "field"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_a_patch(num_layers: int, field: int):
    discriminator = small("batch", num_layers).double()
    for name, layer in discriminator.layers.named_children():
        if isinstance(layer, nn.BatchNorm2d):  # whose statistics see everything
            discriminator.layers[int(name)] = nn.Identity()
    pixel_values = torch.randn(1, 3, 120, 120, dtype=torch.float64, requires_grad=True)
    logits = discriminator(pixel_values)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    seen = pixel_values.grad[0].abs().sum(0) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == field


def test_group_normalization_makes_logits_depend_on_the_picture_alone():
    pictures = torch.randn(3, 3, 16, 16).double()
    for normalization, alone in (("group", True), ("batch", False)):
        discriminator = small(normalization).double()
        together = discriminator(pictures)
        one_by_one = torch.cat([discriminator(picture) for picture in pictures.split(1)])
        assert torch.allclose(together, one_by_one, rtol=1e-9, atol=1e-9) is alone


@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_a_forward_changes_no_state(normalization):
    discriminator = small(normalization)
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    pictures = torch.randn(2, 3, 16, 16)
    trained = discriminator.train()(pictures)
    assert torch.equal(discriminator.eval()(pictures), trained)
    after = discriminator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_conversion_for_several_gpus_keeps_the_values():
    discriminator = small("batch")
    pictures = torch.randn(2, 3, 16, 16)
    expected = discriminator(pictures)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(discriminator)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules()) == 2
    assert torch.equal(converted(pictures), expected)


def test_channels_last():
    discriminator = small()
    seen = []
    for layer in discriminator.layers:
        layer.register_forward_hook(
            lambda layer, inputs, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
        )
    discriminator(torch.randn(2, 3, 32, 32))
    assert len(seen) == 9 and all(seen)


def test_half_precision_under_autocast():
    discriminator = small()
    with torch.autocast("cpu", torch.bfloat16):
        logits = discriminator(torch.randn(2, 3, 16, 16))
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_smallest_pictures(num_layers: int, normalization: str):
    discriminator = small(normalization, num_layers)
    size = discriminator.minimum_size
    assert size == 3 * 2**num_layers
    assert discriminator(torch.randn(1, 3, size, size)).shape == (1, 1, 1, 1)
    for height, width in ((size - 1, size), (size, size - 1)):
        with pytest.raises(ValueError, match=f"{height}x{width} pixels .* needs {size}x{size}"):
            discriminator(torch.randn(1, 3, height, width))


def test_pictures_too_small_are_told_what_to_set():
    discriminator = PatchDiscriminator()
    with pytest.raises(ValueError, match="num_layers 3, .* set num_layers to 2, or train on larger") as error:
        discriminator(torch.zeros(1, 3, 16, 64))
    assert "\n" not in str(error.value)
    advised = int(re.search(r"set num_layers to (\d)", str(error.value))[1])
    assert PatchDiscriminator(num_layers=advised)(torch.zeros(1, 3, 16, 64)).shape == (1, 1, 2, 14)
    with pytest.raises(ValueError, match="24x24: train on larger pictures"):
        discriminator(torch.zeros(1, 3, 5, 64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalization": "layer"}, "normalization must be 'batch' or 'group', got 'layer'"),
        ({"channels": 0}, "channels 0"),
        ({"num_layers": 0}, "num_layers 0"),
        ({"channels": 40, "normalization": "group"}, "multiple of 16 with groups, got 40"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        PatchDiscriminator(**arguments)


def test_learns_to_tell_two_kinds_of_pictures_apart():
    discriminator = small()
    draw = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3)
    for _ in range(30):
        smooth = F.interpolate(torch.randn(4, 3, 4, 4, generator=draw), scale_factor=8, mode="bilinear")
        noisy = torch.randn(4, 3, 32, 32, generator=draw)
        loss = F.softplus(-discriminator(smooth)).mean() + F.softplus(discriminator(noisy)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert discriminator(smooth).min() > 0 > discriminator(noisy).max()
