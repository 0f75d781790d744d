"""Sizes and parameter counts of every network; the originals' outputs are in tests/conversion/."""

import pytest
import torch
from torch import nn

from vistok import FSQConfig, SimpleCNNConfig, StridedCNNConfig, VQModelHF
from vistok.networks import DECODERS, ENCODERS, build_decoder, build_encoder, takes_quantized

from ..small_networks import SMALL

NETWORKS = [config for config in ENCODERS if config.__module__.startswith("vistok.")]


def small(config_class: type):
    return config_class(
        **{
            name: value
            for name, value in {**SMALL, "image_size": 64}.items()
            if name in config_class.public_fields()
        }
    )


# Those whose grid is that of the picture; the others are for one size of picture.
OF_ANY_SIZE = [config for config in NETWORKS if hasattr(build_encoder(small(config)), "downsample_factor")]


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


@pytest.mark.parametrize("config_class", OF_ANY_SIZE)
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


@pytest.mark.parametrize("config_class", OF_ANY_SIZE)
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
    pictures = decoder(torch.randn(1, wanted, *build_encoder(small(config_class)).grid(64, 64)))
    (gradient,) = torch.autograd.grad(pictures.sum(), decoder.last_layer)
    assert gradient.abs().sum() > 0
    assert decoder.last_layer is [p for p in decoder.parameters() if p.ndim > 1][-1]
