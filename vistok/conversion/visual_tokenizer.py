"""visual-tokenizer-pytorch (github.com/xyfJASON): SimpleCNN or VQGAN's network, most quantizers."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..configuration import NetworkConfig, VisualTokenizerConfig
from ..networks import SimpleCNNConfig, VQGANConfig
from ..quantizers import EMAVQConfig, FSQConfig, IBQConfig, LFQConfig, SimVQConfig, VQConfig
from .base import (
    MOST_LAYERS,
    MOST_LEVELS,
    Converted,
    Family,
    OptionError,
    Published,
    Source,
    need,
    numbered,
    rename,
    setting,
)
from .residual_layout import multiple
from .vqgan_layout import fused

_ATTENTION_EPS = 1e-5  # its attention leaves torch's default; all other norms have 1e-6
_PROJECTIONS = {
    r"enc2code\.(weight|bias)": r"to_latents.\1",
    r"code2dec\.(weight|bias)": r"from_quantized.\1",
}
_SIMPLE_CNN = {
    r"encoder\.downblocks\.4\.(weight|bias)": r"encoder.conv.\1",
    r"encoder\.downblocks\.0\.(weight|bias)": r"encoder.downs.0.\1",
    r"encoder\.downblocks\.2\.(weight|bias)": r"encoder.downs.1.\1",
    r"decoder\.upblocks\.1\.(weight|bias)": r"decoder.conv.\1",
    r"decoder\.upblocks\.3\.(weight|bias)": r"decoder.ups.0.\1",
    r"decoder\.upblocks\.5\.(weight|bias)": r"decoder.ups.1.\1",
    r"(encoder|decoder)\.resblocks\.(\d+)\.blocks\.1\.weight": r"\1.blocks.\2.conv1.weight",
    r"(encoder|decoder)\.resblocks\.(\d+)\.blocks\.3\.weight": r"\1.blocks.\2.conv2.weight",
}
_BLOCK = {
    "block.0": "norm1",
    "block.2": "conv1",
    "block.3": "norm2",
    "block.6": "conv2",
    "shortcut": "shortcut",
}
_ATTENTION = {"norm": "norm", "qkv": "qkv", "proj": "out"}
_QUANTIZER = {
    r"quantizer\.codebook\.weight": "quantizer.codebook",
    r"quantizer\.ema_sumz": "quantizer.sums",
    r"quantizer\.ema_sumn": "quantizer.counts",
    r"quantizer\.codebook_proj\.(weight|bias)": r"quantizer.projection_\1",
}
# Buffers and tables that follow from the levels.
_CONSTANTS = (r"quantizer\.(levels|_levels|basis|_basis|implicit_codebook)",)


def _convert(
    source: Source, *, image_size: int | None = None, levels: Sequence[int] | None = None
) -> Converted:
    weights = fused(source.weights("model", "state_dict", ""))
    if "encoder.downblocks.0.weight" in weights:
        network: NetworkConfig = SimpleCNNConfig(
            hidden_channels=need(weights, "encoder.downblocks.0.weight", 4)[0],
            num_res_blocks=numbered(weights, r"encoder\.resblocks\.(\d+)\."),
        )
        rules = _SIMPLE_CNN
    else:
        network = _vqgan(weights)
        rules = _vqgan_rules(weights)
    config = _quantizer(weights, source.settings, levels)(
        image_size=image_size or setting(source.settings, "img_size", default=_default_size(network)),
        network=network,
    )
    renamed = rename(weights, {**rules, **_PROJECTIONS, **_QUANTIZER}, drop=_CONSTANTS)
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


def _default_size(network: NetworkConfig) -> int:
    return 64 if isinstance(network, SimpleCNNConfig) else 256


def _quantizer(
    weights: Mapping[str, Tensor], settings: Mapping[str, Any], levels: Sequence[int] | None
) -> Callable[..., VisualTokenizerConfig]:
    """The configuration of the quantizer in the file, as a function of image size and network."""
    quantizer = setting(settings, "quantizer", default={}) or {}
    if not isinstance(quantizer, dict):
        raise ValueError(f"its settings say of the quantizer only {quantizer!r}, no target and params")
    parameters = quantizer.get("params") or {}
    latent_dim = need(weights, "enc2code.weight", 4)[0]
    target = (quantizer.get("target") or "").rsplit(".", 1)[-1]
    commitment = {"commitment_weight": setting(settings, "coef_commit", default=0.25)}
    codebook_weight = setting(settings, "coef_vq", default=1.0)
    if levels is not None and ("quantizer.codebook.weight" in weights or target == "LookupFreeQuantizer"):
        raise OptionError(f"--levels {' '.join(map(str, levels))} are of FSQ, and its quantizer is another")
    if "quantizer.codebook.weight" not in weights:
        levels = levels or parameters.get("levels")
        if target == "LookupFreeQuantizer":
            entropy = _entropy(settings, parameters, used=True)
            return lambda **common: LFQConfig(
                num_bits=latent_dim, bit_order="lsb", **commitment, **entropy, **common
            )
        if levels is None:
            raise ValueError(
                "The file has no codebook and does not say the levels of FSQ: give the project's config.yaml "
                f"by --config, or --levels, one number for each of the {latent_dim} channels"
            )
        if len(levels) != latent_dim:
            raise ValueError(
                f"The file has {latent_dim} channels, the levels {' '.join(map(str, levels))} are not as many"
            )
        return lambda **common: FSQConfig(levels=list(levels), bound="atanh", **common)
    size, dim = need(weights, "quantizer.codebook.weight", 2)
    table = {"codebook_size": size, "codebook_dim": dim, **commitment}
    normalize = parameters.get("l2_norm", False)
    if "quantizer.ema_sumz" in weights:
        decay = parameters.get("ema_decay", 0.99)
        return lambda **common: EMAVQConfig(**table, normalize=normalize, decay=decay, epsilon=0.0, **common)
    table["codebook_weight"] = codebook_weight
    if "quantizer.codebook_proj.weight" in weights:
        return lambda **common: SimVQConfig(**table, **common)
    table |= _entropy(settings, parameters, used=False)
    if target == "IndexBackpropagationQuantizer":  # its loss of the codebook is two errors, one to both sides
        return lambda **common: IBQConfig(
            **table, normalize=False, double_quantization_weight=codebook_weight, **common
        )
    return lambda **common: VQConfig(**table, normalize=normalize, normalize_losses=False, **common)


def _entropy(settings: Mapping[str, Any], parameters: Mapping[str, Any], used: bool) -> dict[str, Any]:
    """Weight and temperature of the entropy loss; `used` is the default of the quantizer's class.

    Of the project's two training programs the one with a `coef_vq` leaves that loss out.
    """
    default = 0.1 if setting(settings, "coef_vq") is None else 0.0
    weight = setting(settings, "coef_entropy", default=default)
    return {
        "entropy_weight": weight if parameters.get("use_entropy_reg", used) else 0.0,
        "entropy_temperature": parameters.get("entropy_reg_temp", 0.01),
    }


def _vqgan(weights: Mapping[str, Tensor]) -> VQGANConfig:
    hidden_channels = need(weights, "encoder.conv_in.weight", 4)[0]
    layers = _layers(weights, "encoder.down_blocks")
    widths = []
    for level, kinds in enumerate(layers):
        last = max((place for place, kind in kinds.items() if kind == "blocks"), default=0)
        widths.append(need(weights, f"encoder.down_blocks.{level}.{last}.block.6.weight", 4)[0])
    return VQGANConfig(
        hidden_channels=hidden_channels,
        channel_multipliers=[multiple(width, hidden_channels) for width in widths],
        num_res_blocks=sum(kind == "blocks" for kind in layers[0].values()) if layers else 0,
        attention_levels=[level for level, kinds in enumerate(layers) if "attentions" in kinds.values()],
        z_channels=need(weights, "encoder.out_block.2.weight", 4)[0],
        attention_norm_eps=_ATTENTION_EPS,
    )


def _vqgan_rules(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Rules for a layout that numbers blocks, attentions and resamplings of a level in one sequence."""
    parts = r"\.(weight|bias)"
    rules = {
        rf"(encoder|decoder)\.conv_in{parts}": r"\1.conv_in.\2",
        rf"decoder\.in_block{parts}": r"decoder.conv_in.\1",
        rf"encoder\.out_block\.0{parts}": r"encoder.norm_out.\1",
        rf"encoder\.out_block\.2{parts}": r"encoder.conv_out.\1",
        rf"decoder\.conv_out\.0{parts}": r"decoder.norm_out.\1",
        rf"decoder\.conv_out\.2{parts}": r"decoder.conv_out.\1",
    }
    for theirs, ours in _BLOCK.items():
        rules[rf"(encoder|decoder)\.bottleneck_block\.(0|2)\.{re.escape(theirs)}{parts}"] = (
            rf"\1.middle.\2.{ours}.\3"
        )
    for theirs, ours in _ATTENTION.items():
        rules[rf"(encoder|decoder)\.bottleneck_block\.1\.{theirs}{parts}"] = rf"\1.middle.1.{ours}.\2"
    for side, levels, resampling in (
        ("encoder", "down_blocks", "downsamples"),
        ("decoder", "up_blocks", "upsamples"),
    ):
        for level, kinds in enumerate(_layers(weights, f"{side}.{levels}")):
            counts = {"blocks": 0, "attentions": 0}
            for place, kind in kinds.items():
                at = re.escape(f"{side}.{levels}.{level}.{place}.")
                if kind == "resampling":
                    rules[rf"{at}conv{parts}"] = rf"{side}.{resampling}.{level}.conv.\1"
                    continue
                for theirs, ours in (_BLOCK if kind == "blocks" else _ATTENTION).items():
                    rules[f"{at}{re.escape(theirs)}{parts}"] = (
                        rf"{side}.levels.{level}.{kind}.{counts[kind]}.{ours}.\1"
                    )
                counts[kind] += 1
    return rules


def _layers(weights: Mapping[str, Tensor], levels: str) -> list[dict[int, str]]:
    """What the layers of each level are, by their number; `levels` is the name of the list of levels."""
    signs = {"block.0.weight": "blocks", "qkv.weight": "attentions", "conv.weight": "resampling"}
    start = re.escape(levels)
    count = numbered(weights, rf"{start}\.(\d+)\.", most=MOST_LEVELS)
    found: list[dict[int, str]] = [{} for _ in range(count)]
    pattern = re.compile(rf"{start}\.(\d+)\.(\d+)\.({'|'.join(map(re.escape, signs))})")
    for name in weights:
        if match := pattern.fullmatch(name):
            found[int(match[1])][int(match[2])] = signs[match[3]]
    if (most := max(map(len, found), default=0)) > MOST_LAYERS:
        raise ValueError(f"A level of {levels} has {most:,} layers, more than any tokenizer")
    return [dict(sorted(layers.items())) for layers in found]


FAMILY = Family(
    name="visual_tokenizer",
    project="xyfJASON/visual-tokenizer-pytorch",
    convert=_convert,
    options=("levels",),
    published=(
        Published(
            "model.pt",
            "SimpleCNN f4 or VQGAN f16 with VQ, EMA, FSQ, LFQ, SimVQ or IBQ, as you trained it",
            "VQGAN f16: rFID 2.107, PSNR 20.72 (LlamaGen's recipe); 5.82, 19.91 (taming's); its docs",
        ),
    ),
)
