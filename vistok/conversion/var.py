"""VAR (github.com/FoundationVision/VAR): its VQ-VAE, VQGAN's network with token maps of several scales."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..quantizers import MultiScaleVQConfig
from .base import Converted, Family, Published, Source, need, rename, setting
from .vqgan_layout import PROJECTIONS, vqgan_config, vqgan_rules

# The project's, by their last side: one file of weights serves pictures of 256, 512 and 1024 pixels.
_SCALES = {
    16: [1, 2, 3, 4, 5, 6, 8, 10, 13, 16],
    32: [1, 2, 3, 4, 6, 9, 13, 18, 24, 32],
    64: [1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64],
}
_HITS = "quantize.ema_vocab_hit_SV"  # how often each scale took each entry, in training


def _convert(
    source: Source, *, image_size: int | None = None, scales: Sequence[int] | None = None
) -> Converted:
    weights = source.weights("")
    network = vqgan_config(weights)
    factor = 2 ** (len(network.channel_multipliers) - 1)
    scales = list(scales or setting(source.settings, "v_patch_nums", "patch_nums", default=()))
    if not scales:
        scales = _published_scales(weights, image_size, factor)
    elif image_size not in (None, scales[-1] * factor):
        raise ValueError(
            f"Scales that end at {scales[-1]} are for pictures of {scales[-1] * factor} pixels, "
            f"--image_size is {image_size}"
        )
    size, dim = need(weights, "quantize.embedding.weight", 2)
    weights, num_phis = _stacked(weights)
    config = MultiScaleVQConfig(
        scales=scales,
        codebook_size=size,
        codebook_dim=dim,
        normalize=setting(source.settings, "using_znorm", default=False),
        num_phis=max(1, num_phis),
        phi_ratio=abs(setting(source.settings, "quant_resi", default=0.5)) if num_phis else 0.0,
        commitment_weight=setting(source.settings, "beta", default=0.25),
        image_size=scales[-1] * factor,
        network=network,
    )
    rules = {
        **vqgan_rules(len(network.channel_multipliers)),
        **PROJECTIONS,
        r"quantize\.embedding\.weight": "quantizer.codebook",
        r"phi\.weight": "quantizer.phi_kernels",
        r"phi\.bias": "quantizer.phi_biases",
    }
    renamed = rename(weights, rules, drop=[re.escape(_HITS)])
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


def _published_scales(weights: Mapping[str, Tensor], image_size: int | None, factor: int) -> list[int]:
    """The project's own, for the size asked for; the weights tell only how many there were in training."""
    if image_size is not None:
        if image_size in [side * factor for side in _SCALES]:
            return _SCALES[image_size // factor]
        raise ValueError(f"The project has no scales for pictures of {image_size} pixels: say --scales")
    count = need(weights, _HITS, 2)[0] if _HITS in weights else 10
    for scales in _SCALES.values():
        if len(scales) == count:
            return scales
    raise ValueError(f"The file says {count} scales but not their side lengths: say --scales, coarse to fine")


def _stacked(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """The weights with all convolutions phi in one tensor, and how many there are.

    Of their names, `qresi` is one shared by all scales, `qresi_ls.k` are several, a bare `k` one a scale.
    """
    pattern = re.compile(r"quantize\.quant_resi\.(?:qresi|(?:qresi_ls\.)?(\d+))\.(weight|bias)")
    found = {(match[2], int(match[1] or 0)): name for name in weights if (match := pattern.fullmatch(name))}
    count = len(found) // 2
    complete = found.keys() == {(part, place) for part in ("weight", "bias") for place in range(count)}
    shapes = {(part, weights[name].shape) for (part, _), name in found.items()}
    if not complete or len(shapes) > 2:
        return dict(weights), count  # they will be listed as left over
    rest = {name: weight for name, weight in weights.items() if name not in found.values()}
    for part in ("weight", "bias") if count else ():
        rest[f"phi.{part}"] = torch.stack([weights[found[part, place]] for place in range(count)])
    return rest, count


FAMILY = Family(
    name="var",
    project="FoundationVision/VAR",
    convert=_convert,
    needs_settings=False,
    options=("scales",),
    published=(
        Published(
            "FoundationVision/var/vae_ch160v4096z32.pth",
            "f16, 680 tokens in 10 scales, 4,096 entries of 32 channels, OpenImages",
            "rFID about 0.9 at 256 px, its repository's issue 85; others measured 2.70",
        ),
        Published(
            "FoundationVision/var/vae_ch160v4096z32.pth",
            "the same for pictures of 512 px: 2,240 tokens in 10 scales",
            options="--image_size 512",
        ),
    ),
)
