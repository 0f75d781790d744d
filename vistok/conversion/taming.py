"""taming-transformers (github.com/CompVis/taming-transformers): VQGAN with VQ or Gumbel-softmax."""

import torch
from torch import Tensor

from ..configuration import VisualTokenizerConfig
from ..quantizers import GumbelVQConfig, VQConfig
from .base import Converted, Family, Published, Source, need, rename, setting, target_of
from .vqgan_layout import LOSSES, PROJECTIONS, fused, vqgan_config, vqgan_rules

_MOST_PRODUCTS = 2**26  # weights of the convolution to the logits; the published one has 2**21


def _convert(source: Source, *, image_size: int | None = None) -> Converted:
    target = target_of(source.settings)
    if "IBQ" in target or "optvq" in target:
        raise ValueError(
            f"its settings are those of {target}, which has the same layout: is it of another family?"
        )
    weights = fused(source.weights("state_dict", "model", ""))
    network = vqgan_config(weights)
    common = {
        "image_size": image_size or setting(source.settings, "resolution", default=256),
        "network": network,
    }
    if "quantize.proj.weight" in weights:
        config = _gumbel(weights, source, common)
        weights = _with_logits(weights)
    else:
        config = _vq(weights, source, common)
    rules = {
        **vqgan_rules(len(network.channel_multipliers)),
        **PROJECTIONS,
        r"quantize\.(?:embedding|embed)\.weight": "quantizer.codebook",
    }
    renamed = rename(weights, rules, drop=LOSSES)
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


def _vq(weights: dict[str, Tensor], source: Source, common: dict) -> VisualTokenizerConfig:
    size, dim = need(weights, "quantize.embedding.weight", 2)
    beta = setting(source.settings, "beta", default=0.25)
    return VQConfig(
        codebook_size=size,
        codebook_dim=dim,
        codebook_weight=beta,  # the project's default puts its beta there
        commitment_weight=1.0,
        **common,
    )


def _gumbel(weights: dict[str, Tensor], source: Source, common: dict) -> VisualTokenizerConfig:
    size, dim = need(weights, "quantize.embed.weight", 2)
    settings = source.settings
    lowest = setting(settings, "lr_min", default=1e-6)
    return GumbelVQConfig(
        codebook_size=size,
        codebook_dim=dim,
        kl_weight=setting(settings, "kl_weight", default=1e-8),
        temperature=setting(settings, "lr_max", "temp_init", default=1.0),
        final_temperature=lowest,
        anneal_steps=setting(settings, "max_decay_steps", default=1_000_001),
        **common,
    )


def _with_logits(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The two 1x1 convolutions before the softmax, features to latents to logits, as one."""
    weights = dict(weights)
    inner, outer = (weights.pop(f"{name}.weight").double() for name in ("quant_conv", "quantize.proj"))
    shift, offset = (weights.pop(f"{name}.bias").double() for name in ("quant_conv", "quantize.proj"))
    if outer.shape[0] * inner.shape[1] > _MOST_PRODUCTS:
        raise ValueError(
            f"{outer.shape[0]} logits of {inner.shape[1]} channels are more than any tokenizer has"
        )
    if inner.shape[2:] != (1, 1) or outer.shape[2:] != (1, 1) or outer.shape[1] != inner.shape[0]:
        raise ValueError(
            f"quant_conv {tuple(inner.shape)} and quantize.proj {tuple(outer.shape)} are no 1x1 convolutions "
            "one after the other"
        )
    product = outer[:, :, 0, 0] @ inner[:, :, 0, 0]
    weights["quant_conv.weight"] = product.float()[:, :, None, None]
    weights["quant_conv.bias"] = torch.addmv(offset, outer[:, :, 0, 0], shift).float()
    return weights


FAMILY = Family(
    name="taming",
    project="CompVis/taming-transformers",
    convert=_convert,
    published=(
        Published(
            "vqgan_imagenet_f16_1024/last.ckpt",
            "VQGAN f16, 1,024 entries, ImageNet; a download of the project, with model.yaml",
            "rFID 7.94 (validation), 10.54 (training split), its README",
        ),
        Published(
            "vqgan_imagenet_f16_16384/last.ckpt",
            "VQGAN f16, 16,384 entries, ImageNet; a download of the project, with model.yaml",
            "rFID 4.98 (validation), 7.41 (training split), its README",
        ),
        Published(
            "vqgan_gumbel_f8/last.ckpt",
            "VQGAN f8, Gumbel-softmax, 8,192 entries, OpenImages; a download of the project, with model.yaml",
            "rFID 1.49, its README",
        ),
    ),
)
