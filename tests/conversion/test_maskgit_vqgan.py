"""MaskGIT-VQGAN's published size; its numbers are in test_families.py."""

import torch

from tests.conversion.golden_cases import golden
from tests.conversion.published_layouts import count, maskgit, meta
from vistok import VQModelHF
from vistok.conversion.base import Source
from vistok.conversion.maskgit_vqgan import FAMILY


def test_published_size():
    shapes = maskgit(256, multipliers=[1, 1, 2, 2, 4]) | {"quantize.embedding.weight": (1024, 256)}
    # 168 tensors and 54.5 M parameters: the layers of the original's code, and what its file holds.
    assert len(shapes) == 168
    assert count(shapes) == 54_515_587
    converted = FAMILY.convert(Source("maskgit-vqgan-imagenet-f16-256.bin", {"": meta(shapes)}))
    with torch.device("meta"):
        model = VQModelHF(converted.config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count(shapes)
    assert {name: weight.shape for name, weight in converted.weights.items()} == {
        name: weight.shape for name, weight in model.state_dict().items()
    }
    assert converted.left_over == []
    assert converted.config.image_size == 256
    assert model.token_shape == (16, 16)
    assert model.codebook_size == 1024


def test_pixel_values_are_in_minus_one_to_one_all_the_same():
    # The original takes and gives [0, 1]; its input for our pixel values is (pixel_values + 1) / 2.
    source, _ = golden("maskgit_vqgan")
    model = FAMILY.convert(source).model("maskgit_vqgan")
    pixel_values = torch.linspace(-1, 1, 3 * 8 * 8).view(1, 3, 8, 8)
    with torch.no_grad():
        features = model.encoder((pixel_values + 1) / 2)
        torch.testing.assert_close(model.encode_latents(pixel_values), model.to_latents(features))
        vectors = model.encode(pixel_values).quantized
        torch.testing.assert_close(model.decode_quantized(vectors), 2 * model.decoder(vectors) - 1)
