"""TiTok: parameter counts, 1-D tokens of one size of picture, both ways to pixels.

Numbers of the original are in `tests/conversion/test_titok.py`.
"""

import copy

import pytest
import torch
from torch import Tensor

from vistok import ContinuousConfig, TiTokConfig, VQConfig, VQModelHF

WIDTHS = {"small": (512, 8), "base": (768, 12), "large": (1024, 24)}
# Counted on the project's own layers. Name: encoder, decoder, latent tokens, parameters.
LEGACY = {
    "S-128": ("small", "small", 128, 83_674_639),
    "B-64": ("base", "base", 64, 204_814_095),
    "L-32": ("large", "large", 32, 641_054_735),
}
LATER = {
    "BL-64": ("base", "large", 64, 390_016_148),
    "BL-128": ("base", "large", 128, 390_179_988),
    "SL-256": ("small", "large", 256, 330_260_884),
}
over_both = pytest.mark.parametrize("legacy", [False, True], ids=["single stage", "legacy"])


def network(encoder: str, decoder: str, num_latent_tokens: int, legacy: bool) -> TiTokConfig:
    (hidden_size, num_layers), (decoder_hidden_size, decoder_num_layers) = WIDTHS[encoder], WIDTHS[decoder]
    return TiTokConfig(
        num_latent_tokens=num_latent_tokens,
        hidden_size=hidden_size,
        num_layers=num_layers,
        decoder_hidden_size=decoder_hidden_size,
        decoder_num_layers=decoder_num_layers,
        legacy=legacy,
    )


def small(legacy: bool = False, **fields) -> TiTokConfig:
    sizes = {
        "num_latent_tokens": 6,
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 128,
        "num_layers": 2,
        "decoder_hidden_size": 64,
        "decoder_num_layers": 1,
        "pixel_codebook_size": 20,
        "pixel_codebook_dim": 12,
        "pixel_hidden_channels": 32,
        "pixel_channel_multipliers": [1, 1, 2, 1],
        "pixel_num_res_blocks": 1,
    }
    return TiTokConfig(**sizes | fields, legacy=legacy)


def tokenizer(legacy: bool) -> VQModelHF:
    torch.manual_seed(0)
    return VQModelHF(VQConfig(image_size=32, normalize=True, network=small(legacy))).eval()


def pictures(size: int = 32) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", [*LEGACY, *LATER])
def test_parameter_counts_are_the_originals(name: str):
    *sizes, count = (LEGACY | LATER)[name]
    config = (
        VQConfig(codebook_size=4096, codebook_dim=12, network=network(*sizes, legacy=True))
        if name in LEGACY
        else VQConfig(codebook_size=8192, codebook_dim=64, network=network(*sizes, legacy=False))
    )
    with torch.device("meta"):
        model = VQModelHF(config)
    assert model.token_shape == (sizes[2],)
    assert sum(p.numel() for p in model.parameters()) == count


@over_both
def test_tokens_are_a_sequence(legacy: bool):
    model = tokenizer(legacy)
    out = model(pictures())
    assert model.token_shape == (6,)
    assert out.tokens.shape == model.get_image_tokens(pictures()).shape == (2, 6)
    assert out.quantized.shape == (2, 8, 6)
    assert out.reconstruction.shape == (2, 3, 32, 32)
    torch.testing.assert_close(model.decode(out.tokens), out.reconstruction)
    torch.testing.assert_close(model.decode_image_tokens(out.tokens), out.reconstruction)


def test_each_token_sees_the_whole_picture():
    encoder = tokenizer(legacy=False).encoder
    changed = pictures()
    changed[:, :, -1, -1] += 1
    assert (encoder(changed) != encoder(pictures())).any(dim=1).all()


def test_other_sizes_are_refused():
    model = tokenizer(legacy=False)
    for height, width in ((64, 64), (32, 64), (24, 32)):
        with pytest.raises(ValueError, match=f"pictures of exactly 32 x 32, got {height} x {width}"):
            model.encode(torch.zeros(1, 3, height, width))
    with pytest.raises(ValueError, match="image_size 256 does not fit the network: .* exactly 32 x 32"):
        VQModelHF(VQConfig(network=small()))
    with pytest.raises(ValueError, match="Expected 6 latent tokens a picture, got 5"):
        model.decode(torch.zeros(1, 5, dtype=torch.long))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 60}, "image_size 60 must be a multiple of patch_size 8"),
        ({"hidden_size": 96}, "hidden_size 96 must be a multiple of 64"),
        ({"decoder_hidden_size": 65}, "decoder_hidden_size 65 must be a multiple of 64"),
        ({"pixel_channel_multipliers": [1, 1, 2]}, r"patch_size 8 must be 4: .*_multipliers \[1, 1, 2\]"),
        ({"pixel_hidden_channels": 48}, "pixel_hidden_channels 48 .* multiples of 32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        small(legacy=True, **fields)


@over_both
def test_gradients_reach_every_weight_and_checkpointing_keeps_them(legacy: bool):
    torch.manual_seed(0)
    plain = VQModelHF(ContinuousConfig(image_size=32, network=small(legacy))).train()
    checkpointed = copy.deepcopy(plain)
    enable = getattr(
        checkpointed, "activation_checkpointing_enable", checkpointed.gradient_checkpointing_enable
    )
    enable()
    for model in (plain, checkpointed):
        (model(pictures()).reconstruction - pictures()).square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert one.grad.any(), name
        assert torch.equal(one.grad, other.grad), name


@over_both
@torch.no_grad()
def test_compiles_without_a_break(legacy: bool):
    model = tokenizer(legacy)
    encode = torch.compile(model.encode, fullgraph=True, backend="aot_eager")
    decode = torch.compile(model.decode, fullgraph=True, backend="aot_eager")
    tokens = model.encode(pictures()).tokens
    assert torch.equal(encode(pictures()).tokens, tokens)
    torch.testing.assert_close(decode(tokens), model.decode(tokens))


@over_both
@torch.no_grad()
def test_bfloat16_is_near_float32(legacy: bool):
    model = tokenizer(legacy)
    tokens = model.encode(pictures()).tokens
    latents, picture = model.encode_latents(pictures()), model.decode(tokens)
    model = model.bfloat16()
    assert model.decode(tokens).dtype == torch.bfloat16
    assert (model.encode_latents(pictures()) - latents).abs().mean() < 0.02 * latents.abs().mean()
    assert (model.decode(tokens) - picture).abs().mean() < 0.05 * picture.abs().mean()


@over_both
def test_saved_and_loaded_is_the_same(legacy: bool, tmp_path):
    model = tokenizer(legacy)
    model.save_pretrained(tmp_path)
    loaded = VQModelHF.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(pictures()).reconstruction, model(pictures()).reconstruction)


@over_both
def test_built_on_the_meta_device_everything_gets_a_value(legacy: bool):
    with torch.device("meta"):
        model = VQModelHF(VQConfig(image_size=32, network=small(legacy)))
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    model.apply(model._init_weights)
    assert model(pictures()).reconstruction.isfinite().all()
