"""SimVQ's published sizes and its codebook; its numbers are in test_families.py."""

import pytest
import torch

from tests.conversion.golden_cases import golden
from tests.conversion.published_layouts import count, magvit2, meta
from vistok import VQModelHF
from vistok.conversion.base import Source
from vistok.conversion.simvq import FAMILY


@pytest.mark.parametrize("codebook_size", [1024, 262144])
def test_published_sizes(codebook_size: int):
    shapes = magvit2([1, 2, 2, 4], 128, blocks=2, adaptive=False)
    assert count(shapes) == 64_134_403  # encoder and decoder, from the layers of the original's code
    quantizer = {
        "quantize.embedding.weight": (codebook_size, 128),
        "quantize.embedding_proj.weight": (128, 128),
        "quantize.embedding_proj.bias": (128,),
    }
    source = Source("epoch=49.ckpt", {"state_dict": meta({**shapes, **quantizer})})
    converted = FAMILY.convert(source)
    with torch.device("meta"):
        model = VQModelHF(converted.config)
    assert {name: weight.shape for name, weight in converted.weights.items()} == {
        name: weight.shape for name, weight in model.state_dict().items()
    }
    # The codebook is frozen, a buffer; the linear map counts.
    assert sum(parameter.numel() for parameter in model.parameters()) == count(shapes) + 129 * 128
    assert converted.left_over == []
    assert model.token_shape == (16, 16)
    assert converted.config.image_size == 128
    assert not converted.config.network.adaptive_norm


def test_entries_are_those_under_the_linear_map():
    # The original's own get_codebook_entry forgets the map.
    source, _ = golden("simvq")
    weights = source.groups["state_dict"]
    model = FAMILY.convert(source).model("simvq")
    wanted = torch.nn.functional.linear(
        weights["quantize.embedding.weight"],
        weights["quantize.embedding_proj.weight"],
        weights["quantize.embedding_proj.bias"],
    )
    entries = model.quantizer.lookup(torch.arange(96).view(1, 8, 12))
    torch.testing.assert_close(entries[0].flatten(1).T, wanted)


def test_the_frozen_codebook_has_no_average():
    source, _ = golden("simvq")
    raw, ema = (FAMILY.convert(source, weights=weights).weights for weights in ("raw", "ema"))
    same = {name for name in raw if torch.equal(raw[name], ema[name])}
    assert same == {"quantizer.codebook"}


@pytest.mark.parametrize(("legacy", "weights"), [(False, (1.0, 0.5)), (True, (0.5, 1.0))])
def test_beta_is_on_the_loss_that_the_project_says(legacy: bool, weights: tuple[float, float]):
    source, _ = golden("simvq")
    settings = {"quantconfig": {"params": {"beta": 0.5, "legacy": legacy}}}
    config = FAMILY.convert(Source("file", source.groups, settings)).config
    assert (config.codebook_weight, config.commitment_weight) == weights
