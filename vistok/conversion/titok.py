"""TiTok (github.com/bytedance/1d-tokenizer): 1-D tokens, with the decoder of MaskGIT-VQGAN or without."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..configuration import VisualTokenizerConfig
from ..networks import TiTokConfig
from ..quantizers import ContinuousConfig, VQConfig
from .base import MOST_LEVELS, Converted, Family, Published, Source, need, numbered, rename, setting
from .maskgit_layout import decoder_rules


def recognises(settings: dict[str, Any]) -> bool:
    """Whether a `config.json` is that of a TiTok folder on the Hub."""
    model = settings.get("model")
    tokenizer = model.get("vq_model") if isinstance(model, dict) else None
    return isinstance(tokenizer, dict) and {"num_latent_tokens", "vit_enc_model_size"} <= tokenizer.keys()


def _convert(source: Source, *, image_size: int | None = None) -> Converted:
    weights = source.weights("")
    network = _network(weights)
    if image_size not in (None, network.image_size):
        raise ValueError(
            f"image_size {image_size} is not {network.image_size}, the one that its positions are learned for"
        )
    config = _config(weights, source.settings, network)
    if isinstance(config, ContinuousConfig):  # the rows of the means come first, those of the variances go
        conv_out = [name for name in weights if name.startswith("encoder.conv_out.")]
        weights |= {name: weights[name][: config.latent_dim] for name in conv_out}
    renamed = rename(weights, _rules(weights, network), drop=(r"quantize\.embed_prob",))
    reshaped = {name: _reshaped(name, weight) for name, weight in renamed.weights.items()}
    return Converted(config, reshaped, renamed.dropped, renamed.left_over)


def _network(weights: Mapping[str, Tensor]) -> TiTokConfig:
    hidden_size, _, patch_size, _ = need(weights, "encoder.patch_embed.weight", 4)
    rows = math.isqrt(need(weights, "encoder.positional_embedding", 2)[0] - 1)
    sizes = {
        "num_latent_tokens": need(weights, "latent_tokens", 2)[0],
        "image_size": rows * patch_size,
        "patch_size": patch_size,
        "hidden_size": hidden_size,
        "num_layers": numbered(weights, r"encoder\.transformer\.(\d+)\."),
        "decoder_hidden_size": need(weights, "decoder.decoder_embed.weight", 2)[0],
        "decoder_num_layers": numbered(weights, r"decoder\.transformer\.(\d+)\."),
    }
    if "decoder.ffn.2.weight" not in weights:
        return TiTokConfig(**sizes)
    if "pixel_quantize.embedding.weight" not in weights:
        raise ValueError(
            "It is of the first stage, whose decoder predicts tokens of MaskGIT-VQGAN and no pixels: convert "
            "a checkpoint of the second stage, or add quantize.* and decoder.* of "
            "maskgit-vqgan-imagenet-f16-256.bin to it as pixel_quantize.* and pixel_decoder.*"
        )
    entries, channels = need(weights, "pixel_quantize.embedding.weight", 2)
    widths = [
        need(weights, f"pixel_decoder.up.{level}.block.0.norm2.weight", 1)[0]
        for level in range(numbered(weights, r"pixel_decoder\.up\.(\d+)\.", most=MOST_LEVELS))
    ]
    pixel_hidden_channels = math.gcd(*widths)
    return TiTokConfig(
        **sizes,
        legacy=True,
        pixel_codebook_size=entries,
        pixel_codebook_dim=channels,
        pixel_hidden_channels=pixel_hidden_channels,
        pixel_channel_multipliers=[width // pixel_hidden_channels for width in widths],
        pixel_num_res_blocks=numbered(weights, r"pixel_decoder\.up\.0\.block\.(\d+)\."),
    )


def _config(
    weights: Mapping[str, Tensor], settings: dict[str, Any], network: TiTokConfig
) -> VisualTokenizerConfig:
    common = {
        "image_size": network.image_size,
        "image_mean": (0.0, 0.0, 0.0),  # pictures in [0, 1]
        "image_std": (1.0, 1.0, 1.0),
        "network": network,
    }
    if "quantize.embedding.weight" not in weights:
        return ContinuousConfig(latent_dim=need(weights, "decoder.decoder_embed.weight", 2)[1], **common)
    codebook_size, codebook_dim = need(weights, "quantize.embedding.weight", 2)
    return VQConfig(
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        # No shape tells: of the published models, the legacy ones normalize and the others do not.
        normalize=setting(settings, "use_l2_norm", default=network.legacy),
        commitment_weight=setting(settings, "commitment_cost", default=0.25),
        **common,
    )


def _rules(weights: Mapping[str, Tensor], network: TiTokConfig) -> dict[str, str]:
    rules = {
        "latent_tokens": "encoder.latent_tokens",
        r"quantize\.embedding\.weight": "quantizer.codebook",
        r"encoder\.patch_embed\.(weight|bias)": r"encoder.patch_embed.\1",
        r"encoder\.conv_out\.(weight|bias)": r"to_latents.\1",
        r"decoder\.decoder_embed\.(weight|bias)": r"from_quantized.\1",
        r"decoder\.mask_token": "decoder.mask_token",
        r"(encoder|decoder)\.class_embedding": r"\1.transformer.class_token",
        r"(encoder|decoder)\.positional_embedding": r"\1.transformer.positions",
        r"(encoder|decoder)\.latent_token_positional_embedding": r"\1.transformer.latent_positions",
        r"(encoder|decoder)\.ln_pre\.(weight|bias)": r"\1.transformer.norm_in.\2",
        r"(encoder|decoder)\.ln_post\.(weight|bias)": r"\1.transformer.norm_out.\2",
    }
    for theirs, ours in {
        r"attn\.in_proj_": "qkv.",
        r"attn\.out_proj\.": "out.",
        r"mlp\.c_fc\.": "up.",
        r"mlp\.c_proj\.": "down.",
        r"ln_1\.": "norm1.",
        r"ln_2\.": "norm2.",
    }.items():
        layer = rf"(encoder|decoder)\.transformer\.(\d+)\.{theirs}(weight|bias)"
        rules[layer] = rf"\1.transformer.layers.\2.{ours}\3"
    if not network.legacy:
        return rules | {
            r"decoder\.ffn\.0\.(weight|bias)": r"decoder.to_pixels.\1",
            r"decoder\.conv_out\.(weight|bias)": r"decoder.smooth.\1",
        }
    levels = len(network.pixel_channel_multipliers)
    return {
        **rules,
        r"decoder\.ffn\.([02])\.(weight|bias)": r"decoder.to_logits.\1.\2",
        r"pixel_quantize\.embedding\.weight": "decoder.pixel_codebook",
        **decoder_rules(weights, levels, "pixel_decoder", "decoder.pixel_decoder"),
    }


def _reshaped(name: str, weight: Tensor) -> Tensor:
    """A weight without the project's axes of length 1, and with vistok's."""
    if name.endswith(("class_token", "mask_token")):
        return weight.flatten()
    if name in ("to_latents.weight", "from_quantized.weight"):
        return weight.flatten(1).unsqueeze(2)
    if name.startswith(("decoder.to_logits.", "decoder.to_pixels.")):
        return weight.flatten(min(1, weight.ndim - 1))
    return weight


_HUB = "yucornetto/tokenizer_titok_{}_imagenet"
_AS_IT_IS = "ImageNet 256; from_pretrained loads it as it is"

FAMILY = Family(
    name="titok",
    project="bytedance/1d-tokenizer",
    convert=_convert,
    recognises=recognises,
    published=tuple(
        Published(_HUB.format(name), f"{what}, {_AS_IT_IS}", f"rFID {rfid}, its README")
        for name, what, rfid in (
            ("l32", "TiTok-L-32: 32 tokens of 4,096", 2.21),
            ("b64", "TiTok-B-64: 64 tokens of 4,096", 1.70),
            ("s128", "TiTok-S-128: 128 tokens of 4,096", 1.71),
            ("bl64_vq8k", "TiTok-BL-64: 64 tokens of 8,192", 2.06),
            ("bl128_vq8k", "TiTok-BL-128: 128 tokens of 8,192", 1.49),
            ("sl256_vq8k", "TiTok-SL-256: 256 tokens of 8,192", 1.03),
            ("ll32_vae_c16", "TiTok-LL-32 VAE: 32 places of 16 channels, no tokens", 1.61),
            ("bl64_vae_c16", "TiTok-BL-64 VAE: 64 places of 16 channels, no tokens", 1.25),
            ("bl128_vae_c16", "TiTok-BL-128 VAE: 128 places of 16 channels, no tokens", 0.84),
        )
    ),
)
