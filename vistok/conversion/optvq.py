"""OptVQ (github.com/zbr17/OptVQ): VQGAN's network, heads that share one projected codebook."""

from typing import Any

import torch
from torch import Tensor

from ..quantizers import OptVQConfig, VQConfig
from .base import Converted, Family, Published, Source, need, rename, setting
from .vqgan_layout import LOSSES, PROJECTIONS, fused, vqgan_config, vqgan_rules

_MOST_CHANNELS = 2**12


def recognises(settings: dict[str, Any]) -> bool:
    """Whether a `config.json` is that of an OptVQ folder on the Hub."""
    return "model_type" not in settings and {"encoder", "decoder", "quantize"} <= settings.keys()


def _convert(source: Source, *, image_size: int | None = None) -> Converted:
    weights = fused(source.weights("model", ""))
    network = vqgan_config(weights)
    size, dim = need(weights, "quantize.embedding.weight", 2)
    connected = any(name.startswith(("quant_conv.", "post_quant_conv.")) for name in weights)
    if not connected and setting(source.settings, "use_connector", default=False) is False:
        weights |= _identities(network.z_channels)
    latent_dim = need(weights, "quant_conv.weight", 4)[0]
    if latent_dim % dim:
        raise ValueError(f"{latent_dim} channels of latents are no multiple of the {dim} of an entry")
    heads = latent_dim // dim
    settings = source.settings.get("quantize") or source.settings
    if (told := setting(settings, "num_head", default=heads)) != heads:
        raise ValueError(f"its settings say num_head {told}, its weights are of {heads} heads")
    projection = "quantize.proj.weight" in weights
    transports = source.settings.get("quantize_type", "optvq") == "optvq" and not _names_plain_vq(
        source.settings
    )
    common = {
        "codebook_size": size,
        "codebook_dim": dim,
        "codebook_weight": setting(settings, "beta", default=0.25),  # the project's beta stands there
        "commitment_weight": 1.0,
        "num_codebooks": heads,
        "shared_codebook": heads > 1,
        "image_size": image_size or setting(source.settings, "resolution", default=256),
        "network": network,
    }
    if transports:
        normalization = setting(settings, "normalize_mode", default="all")
        config = OptVQConfig(
            sinkhorn_iterations=setting(settings, "n_iters", default=5),
            sinkhorn_epsilon=setting(settings, "epsilon", default=10.0),
            cost_normalization="none" if normalization in (None, "null") else normalization,
            loss=setting(settings, "loss_q_type", default="l2"),
            projection=projection,
            **common,
        )
    elif projection:  # plain VQ through a projection: OptVQ's layers without its assignment
        config = OptVQConfig(
            train_assignment="nearest", loss=setting(settings, "loss_q_type", default="l2"), **common
        )
    else:
        config = VQConfig(**common)
    inner = "quantizer.quantizers.0" if heads > 1 else "quantizer"
    rules = {
        **vqgan_rules(len(network.channel_multipliers)),
        **PROJECTIONS,
        r"quantize\.embedding\.weight": f"{inner}.codebook",
        r"quantize\.proj\.(weight|bias)": rf"{inner}.projection_\1",
    }
    renamed = rename(weights, rules, drop=LOSSES)
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


def _identities(channels: int) -> dict[str, Tensor]:
    """The projections of a model that has none."""
    if channels > _MOST_CHANNELS:
        raise ValueError(f"{channels} channels of latents are more than any tokenizer has")
    eye, zeros = torch.eye(channels)[:, :, None, None], torch.zeros(channels)
    names = ("quant_conv", "post_quant_conv")
    return {f"{name}.{part}": value for name in names for part, value in (("weight", eye), ("bias", zeros))}


def _names_plain_vq(settings: dict[str, Any]) -> bool:
    quantize = setting(settings, "quantize", default={})
    target = quantize.get("target", "") if isinstance(quantize, dict) else ""
    return target.rsplit(".", 1)[-1] == "VectorQuantizer"


FAMILY = Family(
    name="optvq",
    project="zbr17/OptVQ",
    convert=_convert,
    recognises=recognises,
    published=(
        Published(
            "BorelTHU/optvq-16x16x4",
            "f16, 4 heads of 16,384 entries, ImageNet; from_pretrained loads it as it is",
            "rFID 1.00, PSNR 26.59 (of luma), SSIM 0.717, LPIPS 0.076, its README",
        ),
        Published(
            "BorelTHU/optvq-16x16x8",
            "f16, 8 heads of 16,384 entries, ImageNet; from_pretrained loads it as it is",
            "rFID 0.91, PSNR 27.57 (of luma), SSIM 0.729, LPIPS 0.066, its README",
        ),
    ),
)
