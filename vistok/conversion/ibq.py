"""IBQ of SEED-Voken (github.com/TencentARC/SEED-Voken): VQGAN's network with index backpropagation."""

from ..quantizers import IBQConfig
from .averages import chosen_weights
from .base import Converted, Family, Published, Source, need, rename, setting, target_of
from .vqgan_layout import LOSSES, PROJECTIONS, fused, vqgan_config, vqgan_rules


def _convert(source: Source, *, image_size: int | None = None, weights: str = "raw") -> Converted:
    target = target_of(source.settings)
    if target and "IBQ" not in target:
        raise ValueError(
            f"its settings are those of {target}, which has the same layout: is it of another family?"
        )
    state = fused(chosen_weights(source, weights))
    network = vqgan_config(state)
    size, dim = need(state, "quantize.embedding.weight", 2)
    settings = source.settings
    entropy = setting(settings, "use_entropy_loss", default=True)
    config = IBQConfig(
        codebook_size=size,
        codebook_dim=dim,
        normalize=setting(settings, "l2_normalize", default=False),
        codebook_weight=setting(settings, "beta", default=0.25),
        commitment_weight=1.0,
        entropy_weight=setting(settings, "entropy_loss_weight", default=0.05) if entropy else 0.0,
        entropy_temperature=setting(settings, "entropy_temperature", default=0.01),
        image_size=image_size or setting(settings, "resolution", default=256),
        network=network,
    )
    rules = {
        **vqgan_rules(len(network.channel_multipliers)),
        **PROJECTIONS,
        r"quantize\.embedding\.weight": "quantizer.codebook",
    }
    renamed = rename(state, rules, drop=[*LOSSES, r"model_ema\..*"])
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


FAMILY = Family(
    name="ibq",
    project="TencentARC/SEED-Voken",
    convert=_convert,
    options=("weights",),
    published=tuple(
        Published(
            f"TencentARC/IBQ-Tokenizer-{size}/imagenet256_{size}.ckpt",
            f"f16, {entries} entries, ImageNet",
            figures,
        )
        for size, entries, figures in (
            ("1024", "1,024", "rFID 2.24, LPIPS 0.2580, usage 99 %, its documentation"),
            ("8192", "8,192", "rFID 1.87, LPIPS 0.2437, usage 98 %, its documentation"),
            ("16384", "16,384", "rFID 1.37, LPIPS 0.2235, usage 96 %, its documentation"),
            ("262144", "262,144", "rFID 1.00, LPIPS 0.2030, usage 84 %, its documentation"),
        )
    )
    + (
        Published(
            "TencentARC/IBQ-Tokenizer-16384-Pretrain/IBQ_pretrain_16384.ckpt",
            "f16, 16,384 entries, for text to image",
            "rFID 2.06, PSNR 22.01, SSIM 0.61, its documentation",
        ),
    ),
)
