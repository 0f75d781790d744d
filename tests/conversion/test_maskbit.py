"""MaskBit's published sizes and variants; its numbers are in test_families.py."""

import pytest
import torch

from tests.conversion.golden_cases import golden
from tests.conversion.published_layouts import count, maskbit, meta
from vistok import LFQConfig, VQConfig, VQModelHF
from vistok.conversion.base import Source
from vistok.conversion.maskbit import FAMILY

MULTIPLIERS = [1, 1, 2, 2, 4]


def on_meta(converted) -> VQModelHF:
    with torch.device("meta"):
        model = VQModelHF(converted.config)
    assert {name: weight.shape for name, weight in converted.weights.items()} == {
        name: weight.shape for name, weight in model.state_dict().items()
    }
    assert converted.left_over == []
    return model


@pytest.mark.parametrize("bits", [10, 12, 14, 16, 18])
def test_published_sizes(bits: int):
    shapes = maskbit(bits, multipliers=MULTIPLIERS)
    # From the layers of the original's code: a bit more is a channel of the 1x1 convolution to the latents
    # (512 + 1 parameters) and of the decoder's first (9 * 512).
    assert count(shapes) == 54_469_005 + (bits - 10) * 5121
    constants = {"quantize.bits_to_indices": (bits,), "quantize.codebook": (2**bits, bits)}
    converted = FAMILY.convert(Source("maskbit_tokenizer.bin", {"": meta({**shapes, **constants})}))
    model = on_meta(converted)
    assert sum(parameter.numel() for parameter in model.parameters()) == count(shapes)
    assert set(converted.dropped) == set(constants)
    config = converted.config
    assert isinstance(config, LFQConfig)
    assert (config.num_bits, config.bit_order, config.image_size) == (bits, "lsb", 256)
    assert config.network.downsampling == "conv"
    assert model.token_shape == (16, 16)


@pytest.mark.parametrize(("size", "conv"), [(4096, True), (1024, False)])
def test_a_codebook_in_the_place_of_bits(size: int, conv: bool):
    # VQGAN+, and MaskGIT's tokenizer as the project publishes it, which averages.
    shapes = maskbit(256, multipliers=MULTIPLIERS, conv=conv) | {"quantize.embedding.weight": (size, 256)}
    converted = FAMILY.convert(Source("vqgan_plus.bin", {"": meta(shapes)}))
    model = on_meta(converted)
    assert sum(parameter.numel() for parameter in model.parameters()) == count(shapes)
    config = converted.config
    assert isinstance(config, VQConfig)
    assert (config.codebook_size, config.codebook_dim, config.normalize) == (size, 256, False)
    assert (config.codebook_weight, config.commitment_weight, config.entropy_weight) == (1.0, 0.25, 0.0)
    assert config.network.downsampling == ("conv" if conv else "pool")
    settings = {"model": {"vq_model": {"use_l2_normalisation": True, "entropy_loss_weight": 0.5}}}
    config = FAMILY.convert(Source("vqgan_plus.bin", {"": meta(shapes)}, settings)).config
    assert config.normalize
    assert config.entropy_weight == 0.5


def test_levels_counted_from_either_end():
    # The project's older decoder, which MaskGIT's weights need, counts its levels from the finest.
    source, _ = golden("maskbit_10bit")
    older = {
        name.replace(".up.0.", ".up.x.").replace(".up.1.", ".up.0.").replace(".up.x.", ".up.1."): weight
        for name, weight in source.groups[""].items()
    }
    wanted = FAMILY.convert(source)
    found = FAMILY.convert(Source("older", {"": older}, source.settings))
    assert found.config == wanted.config
    assert found.weights.keys() == wanted.weights.keys()
    assert all(torch.equal(found.weights[name], weight) for name, weight in wanted.weights.items())
