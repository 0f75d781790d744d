"""Open-MAGVIT2's published sizes, and what its settings decide; its numbers are in test_families.py."""

import pytest
import torch

from tests.conversion.golden_cases import golden
from tests.conversion.published_layouts import count, magvit2, meta
from vistok import LFQConfig, VQModelHF
from vistok.conversion.base import Source
from vistok.conversion.open_magvit2 import FAMILY

# Of encoder and decoder, from the layers of the original's code. Four bits fewer are less by 4 (512 + 1)
# parameters of the convolution to the latents, 4 * 9 * 512 of the decoder's first, 4 * 2 * 1664 of the norms.
SIZES = {
    ((1, 1, 2, 2, 4), 18): 115_127_829,
    ((1, 1, 2, 2, 4), 14): 115_094_033,
    ((1, 2, 2, 4), 18): 112_021_653,
}


@pytest.mark.parametrize(("multipliers", "bits"), SIZES)
def test_published_sizes(multipliers: tuple[int, ...], bits: int):
    shapes = magvit2(list(multipliers), bits)
    assert count(shapes) == SIZES[multipliers, bits]
    others = {"model_ema.decoderconv_outbias": (3,), "loss.discriminator.main.0.weight": (1,)}
    source = Source("imagenet_L.ckpt", {"state_dict": meta({**shapes, **others})})
    converted = FAMILY.convert(source)
    with torch.device("meta"):
        model = VQModelHF(converted.config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count(shapes)
    assert {name: weight.shape for name, weight in converted.weights.items()} == {
        name: weight.shape for name, weight in model.state_dict().items()
    }
    assert set(converted.dropped) == set(others)
    assert converted.left_over == []
    config = converted.config
    assert isinstance(config, LFQConfig)
    assert (config.num_bits, config.bit_order) == (bits, "lsb")
    assert model.codebook_size == 2**bits
    assert model.token_shape == (16, 16)
    assert config.image_size == {5: 256, 4: 128}[len(multipliers)]
    assert config.network.num_res_blocks == 4
    assert config.network.adaptive_norm


def test_the_pictures_size_is_that_of_the_data():
    # The project's files for 256 pixels say resolution 128 of the network and size 256 of the data.
    source, _ = golden("open_magvit2")
    data = {"train": {"params": {"config": {"size": 256}}}}
    settings = {"model": {"ddconfig": {"resolution": 128}}, "data": data}
    assert FAMILY.convert(Source("file", source.groups, settings)).config.image_size == 256
    assert FAMILY.convert(Source("file", source.groups), image_size=64).config.image_size == 64


def test_the_losses_weights_are_the_projects():
    source, _ = golden("open_magvit2")
    default = FAMILY.convert(Source("file", source.groups)).config
    assert (default.entropy_weight, default.commitment_weight) == (0.1, 0.25)
    settings = {"lossconfig": {"params": {"codebook_weight": 0.2, "commit_weight": 0.5}}}
    config = FAMILY.convert(Source("file", source.groups, settings)).config
    assert (config.entropy_weight, config.commitment_weight) == (0.2, 0.5)


def test_averages_are_a_choice():
    source, _ = golden("open_magvit2")
    raw, ema = (FAMILY.convert(source, weights=weights).weights for weights in ("raw", "ema"))
    assert raw.keys() == ema.keys()
    assert not any(torch.equal(raw[name], ema[name]) for name in raw)
    with pytest.raises(ValueError, match="'raw' or 'ema', got 'average'"):
        FAMILY.convert(source, weights="average")
    weights = source.groups["state_dict"]
    plain = {name: value for name, value in weights.items() if not name.startswith("model_ema.")}
    with pytest.raises(ValueError, match="take --weights raw"):
        FAMILY.convert(Source("file", {"state_dict": plain}), weights="ema")


def test_a_file_of_another_family_is_refused():
    with pytest.raises(ValueError, match=r"encoder.conv_in.weight.*another family"):
        FAMILY.convert(Source("file", {"state_dict": {"enc.weight": torch.zeros(1)}}))
    with pytest.raises(ValueError, match=r"no weights under 'state_dict'.*'model'"):
        FAMILY.convert(Source("file", {"model": {"encoder.conv_in.weight": torch.zeros(1, 1, 1, 1)}}))
