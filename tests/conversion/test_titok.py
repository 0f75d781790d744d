"""TiTok's checkpoints: the two-stage layout against the original's numbers, and the others made of it."""

import pytest
import torch
from torch import Tensor

from tests.conversion.golden_cases import assert_as_expected, close, golden
from vistok import ContinuousConfig, VQConfig, VQModelHF
from vistok.conversion.base import Source
from vistok.conversion.titok import FAMILY, recognises

CASE = "titok_legacy_finetuned_decoder"


def weights() -> dict[str, Tensor]:
    return golden(CASE)[0].groups[""]


def source(weights: dict[str, Tensor], settings: dict | None = None) -> Source:
    return Source("file", {"": weights}, settings or {})


def single_stage() -> dict[str, Tensor]:
    """The layout of the later models: pixels from the decoder, which is wider than the encoder."""
    generator = torch.Generator().manual_seed(0)
    kept = {name: weight for name, weight in weights().items() if not name.startswith(("pixel_", "decoder."))}
    shapes = {
        "decoder_embed.weight": (128, 12),
        "decoder_embed.bias": (128,),
        "class_embedding": (1, 128),
        "positional_embedding": (10, 128),
        "mask_token": (1, 1, 128),
        "latent_token_positional_embedding": (16, 128),
        "ffn.0.weight": (3 * 16 * 16, 128, 1, 1),
        "ffn.0.bias": (3 * 16 * 16,),
        "conv_out.weight": (3, 3, 3, 3),
        "conv_out.bias": (3,),
        "transformer.0.attn.in_proj_weight": (384, 128),
        "transformer.0.attn.in_proj_bias": (384,),
        "transformer.0.attn.out_proj.weight": (128, 128),
        "transformer.0.mlp.c_fc.weight": (512, 128),
        "transformer.0.mlp.c_fc.bias": (512,),
        "transformer.0.mlp.c_proj.weight": (128, 512),
    }
    for name in ("ln_pre", "ln_post", "transformer.0.ln_1", "transformer.0.ln_2"):
        shapes |= {f"{name}.weight": (128,), f"{name}.bias": (128,)}
    for name in ("attn.out_proj", "mlp.c_proj"):
        shapes[f"transformer.0.{name}.bias"] = (128,)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return kept | {f"decoder.{name}": weight / 8 for name, weight in drawn.items()}


def test_a_converted_model_is_the_original(tmp_path):
    checkpoint, expected = golden(CASE)
    conversion = FAMILY.convert(checkpoint)
    model = conversion.model(CASE)
    assert conversion.dropped == conversion.left_over == []
    assert model.token_shape == (16,)
    assert_as_expected(model, expected["square"])
    model.save_pretrained(tmp_path)
    again = VQModelHF.from_pretrained(tmp_path).eval()
    assert again.config == model.config
    assert_as_expected(again, expected["square"])


def test_without_the_projects_settings_it_is_the_same():
    checkpoint, expected = golden(CASE)
    model = FAMILY.convert(source(checkpoint.groups[""])).model(CASE)
    assert_as_expected(model, expected["square"])


def test_settings_that_no_shape_tells():
    settings = {"model": {"vq_model": {"use_l2_norm": False, "commitment_cost": 1.5}}}
    config = FAMILY.convert(source(weights(), settings)).config
    assert not config.normalize
    assert config.commitment_weight == 1.5


@torch.no_grad()
def test_a_single_stage_model_gives_the_pixels_of_its_patches(tmp_path):
    theirs = single_stage()
    theirs["quantize.embed_prob"] = torch.zeros(96)  # a statistic of their training
    conversion = FAMILY.convert(source(theirs))
    assert conversion.dropped == ["quantize.embed_prob"]
    config = conversion.config
    assert type(config) is VQConfig
    assert not config.normalize
    assert (config.network.hidden_size, config.network.decoder_hidden_size) == (64, 128)
    assert (config.network.num_layers, config.network.decoder_num_layers) == (2, 1)
    model = conversion.model("file")
    legacy = FAMILY.convert(golden(CASE)[0]).model(CASE)
    pixel_values = torch.rand(2, 3, 48, 48) * 2 - 1
    # The same encoder, but for the order in which its tokens are read.
    features, reshaped = model.encoder(pixel_values), legacy.encoder(pixel_values)
    assert torch.equal(features.transpose(1, 2).reshape(2, 64, 16), reshaped)
    # Each patch's pixels lie row by row, the colours of a pixel adjacent; the picture is in [0, 1].
    model.decoder.to_pixels.weight.zero_()
    model.decoder.smooth.weight.copy_(torch.eye(3)[:, :, None, None] * torch.eye(3)[1].outer(torch.eye(3)[1]))
    model.decoder.smooth.bias.zero_()
    patch = theirs["decoder.ffn.0.bias"].view(16, 16, 3).permute(2, 0, 1)
    picture = model.decode(torch.zeros(1, 16, dtype=torch.long))
    close(picture[0] / 2 + 0.5, patch.repeat(1, 3, 3), "picture")
    model.save_pretrained(tmp_path)
    again = VQModelHF.from_pretrained(tmp_path).eval()
    assert torch.equal(again.encode(pixel_values).tokens, model.encode(pixel_values).tokens)


@torch.no_grad()
def test_of_a_model_without_codebook_the_means_are_the_latents():
    theirs = single_stage()
    del theirs["quantize.embedding.weight"]
    pixel_values = torch.rand(1, 3, 48, 48) * 2 - 1
    means = FAMILY.convert(source(theirs)).model("file").encode_latents(pixel_values)
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias"):
        theirs[name] = torch.cat((theirs[name], torch.ones_like(theirs[name])))
    conversion = FAMILY.convert(source(theirs))
    assert conversion.config.latent_dim == 12
    assert type(conversion.config) is ContinuousConfig
    model = conversion.model("file")
    assert torch.equal(model.encode_latents(pixel_values), means)
    assert model(pixel_values).reconstruction.shape == (1, 3, 48, 48)


def test_what_does_not_fit_is_refused():
    theirs = weights()
    del theirs["latent_tokens"]
    with pytest.raises(ValueError, match="no weight 'latent_tokens': is it of another family"):
        FAMILY.convert(source(theirs))
    theirs = weights()
    theirs["quantize.embedding.weight"] = theirs["quantize.embedding.weight"][:, :-1]
    theirs["encoder.surprise"] = theirs.pop("decoder.mask_token")
    with pytest.raises(
        ValueError,
        match=r"missing: decoder.mask_token; left over: encoder.surprise; of another shape: .*to_latents",
    ):
        FAMILY.convert(source(theirs)).model("file")
    with pytest.raises(ValueError, match="image_size 64 is not 48"):
        FAMILY.convert(source(weights()), image_size=64)


def test_the_first_stage_has_no_pixels_until_those_of_maskgit_are_added():
    theirs = {name: weight for name, weight in weights().items() if not name.startswith("pixel_")}
    with pytest.raises(
        ValueError, match=r"first stage, .* add quantize\.\* and decoder\.\* of maskgit-vqgan"
    ):
        FAMILY.convert(source(theirs))
    theirs |= {name: weight for name, weight in weights().items() if name.startswith("pixel_")}
    FAMILY.convert(source(theirs)).model("file")


def test_recognises_its_folders():
    assert recognises(golden(CASE)[0].settings)
    for other in ({}, {"model_type": "vistok_vq"}, {"model": "vq_model"}, {"model": {"vq_model": {}}}):
        assert not recognises(other)
