"""Sizes, parameter counts, and the outputs of the original projects' networks with their weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vistok import FSQConfig, SimpleCNNConfig, StridedCNNConfig, VQModelHF
from vistok.networks import DECODERS, ENCODERS, build_decoder, build_encoder, takes_quantized

GOLDEN = Path(__file__).parent / "golden"
NETWORKS = [config for config in ENCODERS if config.__module__.startswith("vistok.")]
SMALL = {
    "hidden_channels": 8,
    "num_res_blocks": 1,
}  # fields of a network that make it small, where it has them


def small(config_class: type):
    return config_class(
        **{name: value for name, value in SMALL.items() if name in config_class.public_fields()}
    )


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_encoder_has_its_decoder():
    assert set(ENCODERS) == set(DECODERS)


def test_parameter_counts_are_the_originals():
    simple = SimpleCNNConfig()
    assert count(build_encoder(simple)) / 1e6 == pytest.approx(2.43, abs=0.005)
    assert count(build_decoder(simple, 4)) / 1e6 == pytest.approx(2.43, abs=0.005)
    model = VQModelHF(FSQConfig(levels=[8, 5, 5, 5], image_size=64, network=StridedCNNConfig()))
    encoder = count(model.encoder) + count(model.to_latents)
    decoder = count(model.decoder) + count(model.from_quantized)
    assert encoder / 1e6 == pytest.approx(8.42, abs=0.005)
    assert 8.42 <= decoder / 1e6 <= 8.50


@pytest.mark.parametrize("config_class", NETWORKS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2), (1, 3), (5, 2)])
def test_any_multiple_of_the_factor(config_class: type, rows: int, columns: int):
    encoder, decoder = build_encoder(small(config_class)), build_decoder(small(config_class), 5)
    factor = encoder.downsample_factor
    features = encoder(torch.zeros(2, 3, rows * factor, columns * factor))
    assert features.shape == (2, encoder.channels, rows, columns)
    assert encoder.grid(rows * factor, columns * factor) == (rows, columns)
    wanted = 5 if takes_quantized(decoder) else decoder.channels
    pictures = decoder(torch.zeros(2, wanted, rows, columns))
    assert pictures.shape == (2, 3, rows * factor, columns * factor)


@pytest.mark.parametrize("config_class", NETWORKS)
def test_other_sizes_name_the_nearest_that_fit(config_class: type):
    model = VQModelHF(FSQConfig(levels=[4, 4], image_size=64, network=small(config_class)))
    factor = model.downsample_factor
    with pytest.raises(ValueError, match=rf"{2 * factor} or {3 * factor} x {factor}\b"):
        model.encode(torch.zeros(1, 3, 2 * factor + 1, factor))
    with pytest.raises(ValueError, match=rf"{factor} x {factor}\b"):
        model.encode(torch.zeros(1, 3, factor - 1, factor))
    with pytest.raises(ValueError, match="image_size"):
        VQModelHF(FSQConfig(levels=[4, 4], image_size=factor + 1, network=small(config_class)))


@pytest.mark.parametrize("config_class", NETWORKS)
def test_last_layer_is_the_one_that_makes_pixels(config_class: type):
    decoder = build_decoder(small(config_class), 5)
    wanted = 5 if takes_quantized(decoder) else decoder.channels
    pictures = decoder(torch.randn(1, wanted, 2, 2))
    (gradient,) = torch.autograd.grad(pictures.sum(), decoder.last_layer)
    assert gradient.abs().sum() > 0
    assert decoder.last_layer is [p for p in decoder.parameters() if p.ndim > 1][-1]


def simple_cnn_key(key: str) -> str:
    """The name in vistok of a weight of visual-tokenizer-pytorch's SimpleCNN."""
    names = {
        "encoder.downblocks.0": "encoder.downs.0",
        "encoder.downblocks.2": "encoder.downs.1",
        "encoder.downblocks.4": "encoder.conv",
        "decoder.upblocks.1": "decoder.conv",
        "decoder.upblocks.3": "decoder.ups.0",
        "decoder.upblocks.5": "decoder.ups.1",
        "resblocks": "blocks",
        ".blocks.1.weight": ".conv1.weight",
        ".blocks.3.weight": ".conv2.weight",
        "enc2code": "to_latents",
        "code2dec": "from_quantized",
    }
    for theirs, ours in names.items():
        key = key.replace(theirs, ours)
    return key


def strided_cnn_key(key: str) -> str:
    """The name in vistok of a weight of FSQ-pytorch's network."""
    for place in range(3):
        key = key.replace(f"enc.blocks.{2 * place}.", f"encoder.downs.{place}.conv.")
        key = key.replace(f"dec.blocks.{2 * place}.", f"decoder.ups.{place}.conv.")
    return key.replace("enc.blocks.6", "to_latents").replace("dec.blocks.6", "decoder.to_pixels")


GOLDENS = {
    "xyfjason_cnn_fsq": (
        FSQConfig(levels=[8, 6, 5], image_size=16, network=SimpleCNNConfig(hidden_channels=20)),
        simple_cnn_key,
    ),
    "fsqpytorch_8555": (
        FSQConfig(
            levels=[8, 5, 5, 5], bound="tan", image_size=64, network=StridedCNNConfig(hidden_channels=24)
        ),
        strided_cnn_key,
    ),
}


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("pictures", ["square", "wide"])
@torch.no_grad()
def test_original_weights_give_the_originals_numbers(name: str, pictures: str):
    config, rename = GOLDENS[name]
    stored = load_file(GOLDEN / f"{name}.safetensors")
    model = VQModelHF(config).eval()
    weights = {
        rename(key.removeprefix("weights/")): value.float()  # every value is exact in float16
        for key, value in stored.items()
        if key.startswith("weights/")
    }
    model.load_state_dict(weights)
    golden = expected(stored, pictures)
    # FSQ-pytorch's network takes pictures in the statistics of ImageNet: its input is stored beside them.
    pixel_values = golden.get("input", golden.get("pixel_values"))
    if "features" in golden:
        close(model.encoder(pixel_values), golden["features"], 2e-4)
    close(model.encode_latents(pixel_values), golden["latents"], 2e-4)
    out = model.encode(pixel_values)
    assert torch.equal(out.tokens, golden["tokens"])
    close(out.quantized, golden["quantized"], 1e-5)
    close(model.decode(golden["tokens"]), golden["reconstruction"], 1e-3)


def expected(stored: dict[str, Tensor], pictures: str) -> dict[str, Tensor]:
    start = f"expected/{pictures}/"
    return {key.removeprefix(start): value for key, value in stored.items() if key.startswith(start)}


def close(actual: Tensor, golden: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, golden, atol=tolerance, rtol=0)
