"""LlamaGen (github.com/FoundationVision/LlamaGen): VQGAN's network, other names, normalized codebook."""

from collections.abc import Mapping

from torch import Tensor

from ..networks import VQGANConfig
from ..quantizers import VQConfig
from .averages import check_choice
from .base import Converted, Family, OptionError, Published, Source, need, rename, setting
from .residual_layout import attention_levels, level_sizes
from .vqgan_layout import PROJECTIONS, fused


def _convert(source: Source, *, image_size: int | None = None, weights: str = "raw") -> Converted:
    check_choice(weights)
    groups = ("ema",) if weights == "ema" else ("model", "state_dict", "")
    if weights == "ema" and "ema" not in source.groups:
        raise OptionError("It has no averaged weights ('ema'): take --weights raw")
    state = fused(source.weights(*groups))
    network = _network(state)
    size, dim = need(state, "quantize.embedding.weight", 2)
    config = VQConfig(
        codebook_size=size,
        codebook_dim=dim,
        normalize=setting(source.settings, "codebook_l2_norm", default=True),
        codebook_weight=1.0,  # the project's argument of this name is read by none of its losses
        commitment_weight=setting(source.settings, "commit_loss_beta", default=0.25),
        entropy_weight=setting(source.settings, "entropy_loss_ratio", default=0.0),
        entropy_temperature=0.01,
        image_size=image_size or setting(source.settings, "image_size", default=256),
        network=network,
    )
    rules = {**_rules(len(network.channel_multipliers)), **PROJECTIONS}
    rules[r"quantize\.embedding\.weight"] = "quantizer.codebook"
    renamed = rename(state, rules, drop=[r"quantize\.codebook_used"])
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


def _network(weights: Mapping[str, Tensor]) -> VQGANConfig:
    levels = "encoder.conv_blocks"
    return VQGANConfig(
        **level_sizes(weights, levels, block="res"),
        attention_levels=attention_levels(weights, levels),
        z_channels=need(weights, "encoder.conv_out.weight", 4)[0],
        projection_kernel_size=need(weights, "quant_conv.weight", 4)[-1],
    )


def _rules(levels: int) -> dict[str, str]:
    block, parts = r"(norm1|conv1|norm2|conv2)\.(weight|bias)", r"\.(weight|bias)"
    side, level = (
        "(encoder|decoder)",
        rf"(encoder|decoder)\.conv_blocks\.({'|'.join(map(str, range(levels)))})",
    )
    return {
        rf"{side}\.(conv_in|norm_out|conv_out){parts}": r"\1.\2.\3",
        rf"{side}\.mid\.(0|2)\.{block}": r"\1.middle.\2.\3.\4",
        rf"{side}\.mid\.1\.(norm|qkv){parts}": r"\1.middle.1.\2.\3",
        rf"{side}\.mid\.1\.proj_out{parts}": r"\1.middle.1.out.\2",
        rf"{level}\.res\.(\d+)\.{block}": r"\1.levels.\2.blocks.\3.\4.\5",
        rf"{level}\.res\.(\d+)\.nin_shortcut{parts}": r"\1.levels.\2.blocks.\3.shortcut.\4",
        rf"{level}\.attn\.(\d+)\.(norm|qkv){parts}": r"\1.levels.\2.attentions.\3.\4.\5",
        rf"{level}\.attn\.(\d+)\.proj_out{parts}": r"\1.levels.\2.attentions.\3.out.\4",
        rf"encoder\.conv_blocks\.(\d+)\.downsample\.conv{parts}": r"encoder.downsamples.\1.conv.\2",
        rf"decoder\.conv_blocks\.(\d+)\.upsample\.conv{parts}": r"decoder.upsamples.\1.conv.\2",
    }


FAMILY = Family(
    name="llamagen",
    project="FoundationVision/LlamaGen",
    convert=_convert,
    needs_settings=False,
    options=("weights",),
    published=(
        Published(
            "FoundationVision/LlamaGen/vq_ds16_c2i.pt",
            "VQ-16: f16, 16,384 entries of 8 channels, ImageNet",
            "rFID 2.19 at 256 px, 0.94 at 384 px, its README",
        ),
        Published(
            "FoundationVision/LlamaGen/vq_ds8_c2i.pt",
            "VQ-8: f8, 16,384 entries of 8 channels, ImageNet",
            "rFID 0.59 at 256 px, its README",
        ),
        Published(
            "peizesun/llamagen_t2i/vq_ds16_t2i.pt",
            "VQ-16 for text to image: f16, 16,384 entries of 8 channels",
        ),
    ),
)
