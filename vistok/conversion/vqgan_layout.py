"""The layout of taming-transformers' VQGAN, which most projects of the field inherited."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..networks import VQGANConfig
from .base import need
from .residual_layout import attention_levels, level_sizes

_BLOCK = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "shortcut"}
# Without the projections to and from the quantizer, which the families name differently.
PROJECTIONS = {
    r"quant_conv\.(weight|bias)": r"to_latents.\1",
    r"post_quant_conv\.(weight|bias)": r"from_quantized.\1",
}
LOSSES = (r"loss\..*",)


def vqgan_config(weights: Mapping[str, Tensor]) -> VQGANConfig:
    """The network that weights of this layout are of, read off their names and shapes.

    Raises:
        ValueError: They are not of this layout.
    """
    kernel_size = need(weights, "quant_conv.weight", 4)[-1] if "quant_conv.weight" in weights else 1
    return VQGANConfig(
        **level_sizes(weights),
        attention_levels=attention_levels(weights),
        z_channels=need(weights, "encoder.conv_out.weight", 4)[0],
        projection_kernel_size=kernel_size,
    )


def vqgan_rules(levels: int) -> dict[str, str]:
    """The rules of `rename` from this layout to vistok's; `fused` joins queries, keys and values before.

    Args:
        levels: Number of resolutions. The layout counts the decoder's from the finest, vistok's from the
            coarsest.
    """
    rules = {
        r"(encoder|decoder)\.(conv_in|norm_out|conv_out)\.(weight|bias)": r"\1.\2.\3",
        r"(encoder|decoder)\.mid\.attn_1\.(norm|qkv)\.(weight|bias)": r"\1.middle.1.\2.\3",
        r"(encoder|decoder)\.mid\.attn_1\.proj_out\.(weight|bias)": r"\1.middle.1.out.\2",
    }
    for theirs, ours in (("block_1", 0), ("block_2", 2)):
        for name, new in _BLOCK.items():
            rules[rf"(encoder|decoder)\.mid\.{theirs}\.{name}\.(weight|bias)"] = rf"\1.middle.{ours}.{new}.\2"
    for level in range(levels):
        coarse = levels - 1 - level
        for side, theirs, ours in (
            ("encoder", f"down.{level}", level),
            ("decoder", f"up.{level}", coarse),
        ):
            start = re.escape(f"{side}.{theirs}.")
            for name, new in _BLOCK.items():
                rules[rf"{start}block\.(\d+)\.{name}\.(weight|bias)"] = (
                    rf"{side}.levels.{ours}.blocks.\1.{new}.\2"
                )
            rules[rf"{start}attn\.(\d+)\.(norm|qkv)\.(weight|bias)"] = (
                rf"{side}.levels.{ours}.attentions.\1.\2.\3"
            )
            rules[rf"{start}attn\.(\d+)\.proj_out\.(weight|bias)"] = (
                rf"{side}.levels.{ours}.attentions.\1.out.\2"
            )
        rules[rf"encoder\.down\.{level}\.downsample\.conv\.(weight|bias)"] = (
            rf"encoder.downsamples.{level}.conv.\1"
        )
        rules[rf"decoder\.up\.{level}\.upsample\.conv\.(weight|bias)"] = (
            rf"decoder.upsamples.{coarse}.conv.\1"
        )
    return rules


def fused(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with `q`, `k` and `v` of each attention joined to one `qkv`."""
    joined = dict(weights)
    for name in weights:
        match = re.fullmatch(r"(.*)\.q\.(weight|bias)", name)
        if match is None:
            continue
        parts = [f"{match[1]}.{part}.{match[2]}" for part in "qkv"]
        if all(part in weights for part in parts):
            joined[f"{match[1]}.qkv.{match[2]}"] = torch.cat([joined.pop(part) for part in parts])
    return joined
