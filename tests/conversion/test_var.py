"""VAR's VQ-VAE: the original's numbers, the scales that the file does not say, and its convolutions phi."""

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.conversion.golden_cases import assert_as_expected, close, golden
from tests.conversion.published_layouts import Shapes, count, meta
from vistok import VQModelHF
from vistok.conversion.base import Source
from vistok.conversion.var import FAMILY

CASE = "var_vae"
SCALES = [1, 2, 3, 4, 6, 8]
AT_256 = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
AT_512 = [1, 2, 3, 4, 6, 9, 13, 18, 24, 32]
PHI = "quantize.quant_resi.qresi_ls"


def published() -> Shapes:
    """Names and shapes of `vae_ch160v4096z32.pth`, as `models/basic_vae.py` and `quant.py` build them."""

    def conv(name: str, before: int, after: int, size: int = 3) -> Shapes:
        return {f"{name}.weight": (after, before, size, size), f"{name}.bias": (after,)}

    def norm(name: str, width: int) -> Shapes:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    def block(name: str, before: int, after: int) -> Shapes:
        shapes = norm(f"{name}.norm1", before) | conv(f"{name}.conv1", before, after)
        shapes |= norm(f"{name}.norm2", after) | conv(f"{name}.conv2", after, after)
        return shapes | (conv(f"{name}.nin_shortcut", before, after, 1) if before != after else {})

    def attention(name: str, width: int) -> Shapes:
        shapes = norm(f"{name}.norm", width) | conv(f"{name}.qkv", width, 3 * width, 1)
        return shapes | conv(f"{name}.proj_out", width, width, 1)

    def middle(side: str) -> Shapes:
        shapes = block(f"{side}.mid.block_1", 640, 640) | block(f"{side}.mid.block_2", 640, 640)
        return shapes | attention(f"{side}.mid.attn_1", 640)

    widths = [160, 160, 320, 320, 640]
    shapes = conv("encoder.conv_in", 3, 160) | middle("encoder") | norm("encoder.norm_out", 640)
    shapes |= conv("encoder.conv_out", 640, 32) | conv("decoder.conv_in", 32, 640) | middle("decoder")
    shapes |= norm("decoder.norm_out", 160) | conv("decoder.conv_out", 160, 3)
    for level, width in enumerate(widths):
        before, coarser = ([160, *widths][level], [*widths, 640][level + 1])
        for place in range(2):
            shapes |= block(f"encoder.down.{level}.block.{place}", width if place else before, width)
        for place in range(3):
            shapes |= block(f"decoder.up.{level}.block.{place}", width if place else coarser, width)
        if level < 4:
            shapes |= conv(f"encoder.down.{level}.downsample.conv", width, width)
        if level > 0:
            shapes |= conv(f"decoder.up.{level}.upsample.conv", width, width)
    for place in range(2):
        shapes |= attention(f"encoder.down.4.attn.{place}", 640)
    for place in range(3):
        shapes |= attention(f"decoder.up.4.attn.{place}", 640)
    for place in range(4):
        shapes |= conv(f"{PHI}.{place}", 32, 32)
    shapes |= {"quantize.ema_vocab_hit_SV": (10, 4096), "quantize.embedding.weight": (4096, 32)}
    return shapes | conv("quant_conv", 32, 32) | conv("post_quant_conv", 32, 32)


def source_with(weights: dict[str, Tensor], settings: dict | None = None) -> Source:
    return Source("file", {"": weights}, settings or {})


def test_the_published_file_converts_whole():
    shapes = published()
    assert len(shapes) == 324
    assert count(shapes) / 1e6 == pytest.approx(108.99, abs=0.005)
    parameters = count(shapes) - 10 * 4096  # the buffer of hits is none
    conversion = FAMILY.convert(source_with(meta(shapes)))
    assert conversion.left_over == []
    assert conversion.dropped == ["quantize.ema_vocab_hit_SV"]
    with torch.device("meta"):
        model = VQModelHF(conversion.config)
    wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert {name: tuple(weight.shape) for name, weight in conversion.weights.items()} == wanted
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.token_shape == (680,)
    config = model.config
    assert (config.codebook_weight, config.commitment_weight, config.phi_ratio) == (1.0, 0.25, 0.5)
    assert config.image_size == 256


@pytest.mark.parametrize(
    ("options", "scales", "tokens"),
    [
        ({}, AT_256, 680),
        ({"image_size": 256}, AT_256, 680),
        ({"image_size": 512}, AT_512, 2240),
        ({"image_size": 1024}, [1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64], 9451),
        ({"scales": [1, 4, 8]}, [1, 4, 8], 81),
    ],
)
def test_the_published_file_serves_pictures_of_several_sizes(options: dict, scales: list[int], tokens: int):
    config = FAMILY.convert(source_with(meta(published())), **options).config
    assert config.scales == scales
    assert config.image_size == 16 * scales[-1]
    assert sum(side * side for side in scales) == tokens


@torch.no_grad()
def test_the_first_scales_decode_as_the_originals_sum():
    source, expected = golden(CASE)
    model = FAMILY.convert(source, scales=SCALES).model(CASE)
    golden_ones = expected["square"]
    out = model.encode(golden_ones["pixel_values"])
    assert_as_expected(model, golden_ones)
    errors = []
    for end in (1, 5, 14, 30, 66, 130):
        vectors = model.quantizer.lookup(golden_ones["tokens"][:, :end])
        errors.append(float((vectors - golden_ones["latents"]).square().mean()))
        picture = model.decode(golden_ones["tokens"][:, :end])
        assert torch.equal(picture, model.decode_quantized(vectors))
    assert errors[0] > errors[3] > errors[4] > errors[5]  # with random entries too
    close(vectors, out.quantized, "all scales")


def test_scales_come_from_the_settings_where_these_are_there():
    source, expected = golden(CASE)
    settings = {"model": {"v_patch_nums": SCALES, "quant_resi": -0.5, "beta": 1.0}}
    conversion = FAMILY.convert(dataclasses.replace(source, settings=settings))
    assert (conversion.config.scales, conversion.config.commitment_weight) == (SCALES, 1.0)
    assert_as_expected(conversion.model(CASE), expected["square"])
    assert not conversion.config.normalize
    settings["model"]["using_znorm"] = True
    assert FAMILY.convert(dataclasses.replace(source, settings=settings)).config.normalize


def test_scales_are_asked_for_where_nothing_says_them():
    source, _ = golden(CASE)
    with pytest.raises(ValueError, match="6 scales but not their side lengths: say --scales, coarse to fine"):
        FAMILY.convert(source)
    with pytest.raises(ValueError, match="no scales for pictures of 32 pixels: say --scales"):
        FAMILY.convert(source, image_size=32)
    with pytest.raises(ValueError, match="end at 8 are for pictures of 32 pixels, --image_size is 64"):
        FAMILY.convert(source, scales=SCALES, image_size=64)
    del source.groups[""]["quantize.ema_vocab_hit_SV"]  # somebody stripped it: the published scales
    assert FAMILY.convert(source).config.scales == AT_256


@pytest.mark.parametrize(
    ("phis", "names"),
    [
        (0, []),
        (1, ["quantize.quant_resi.qresi"]),
        (2, [f"{PHI}.0", f"{PHI}.1"]),
        (6, [f"quantize.quant_resi.{place}" for place in range(6)]),
    ],
)
def test_convolutions_of_any_number_and_name(phis: int, names: list[str]):
    """None, one for all, some, and one for each scale: `PhiShared`, `PhiPartiallyShared`, `PhiNonShared`."""
    source, _ = golden(CASE)
    weights = {name: weight for name, weight in source.groups[""].items() if PHI not in name}
    kernels = torch.randn(phis, 16, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    for name, kernel in zip(names, kernels, strict=True):
        weights |= {f"{name}.weight": kernel, f"{name}.bias": kernel[:, 0, 0, 0]}
    conversion = FAMILY.convert(source_with(weights), scales=SCALES)
    quantizer = conversion.model("file").quantizer
    assert conversion.left_over == []
    assert conversion.config.phi_ratio == (0.5 if phis else 0.0)
    if phis:
        assert torch.equal(quantizer.phi_kernels, kernels)
        assert torch.equal(quantizer.phi_biases, kernels[:, :, 0, 0, 0])
    else:
        assert quantizer.phi_kernels is None


@pytest.mark.parametrize("shape", [None, (16, 16, 1, 1), (15, 16, 3, 3)], ids=str)
def test_a_missing_or_misshapen_convolution_is_listed(shape: tuple[int, ...] | None):
    source, _ = golden(CASE)
    del source.groups[""][f"{PHI}.1.weight"]
    if shape:
        source.groups[""][f"{PHI}.1.weight"] = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"missing: quantizer\.phi_biases.*left over: .*qresi_ls\.0\.bias"):
        FAMILY.convert(source, scales=SCALES).model(CASE)
