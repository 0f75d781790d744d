"""SimVQ's tokenizers: Open-MAGVIT2's first network and a frozen codebook under a learned linear map.

Addressing Representation Collapse in Vector Quantized Models with One Linear Layer. Zhu, Li, Xin, Xu.
arXiv:2411.02038
A checkpoint of Lightning with the weights and moving averages of them; the frozen codebook has none.
"""

from ..quantizers import SimVQConfig
from .averages import chosen_weights
from .base import Converted, Family, Published, Source, need, rename, setting
from .magvit2_layout import DROPPED, magvit2_config, magvit2_rules, trained_size


def _convert(source: Source, *, image_size: int | None = None, weights: str = "raw") -> Converted:
    chosen = chosen_weights(source, weights, frozen=("quantize.embedding.weight",))
    network = magvit2_config(chosen)
    codebook_size, codebook_dim = need(chosen, "quantize.embedding.weight", 2)
    renamed = rename(
        chosen,
        {
            **magvit2_rules(len(network.channel_multipliers)),
            r"quantize\.embedding\.weight": "quantizer.codebook",
            r"quantize\.embedding_proj\.(weight|bias)": r"quantizer.projection_\1",
        },
        drop=DROPPED,
    )
    beta = setting(source.settings, "beta", default=0.25)
    legacy = setting(source.settings, "legacy", default=False)  # beta on the loss that moves the entries
    config = SimVQConfig(
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        codebook_weight=beta if legacy else 1.0,
        commitment_weight=1.0 if legacy else beta,
        image_size=image_size or trained_size(source, network),
        network=network,
    )
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


FAMILY = Family(
    name="simvq",
    project="SimVQ (youngsheen/SimVQ)",
    convert=_convert,
    published=(
        Published(
            "youngsheen/SimVQ/vq_log/simvq_1k/epoch=49-step=250250.ckpt",
            "f8, 256 tokens of 1024, ImageNet 128",
            "at 128 pixels rFID 3.67, LPIPS 0.16, PSNR 22.34, SSIM 0.708, usage 100 % (SimVQ README)",
        ),
        Published(
            "youngsheen/SimVQ/vq_log/simvq_262k/epoch=49-step=250250.ckpt",
            "f8, 256 tokens of 262144, ImageNet 128",
            "at 128 pixels rFID 1.99, LPIPS 0.11, PSNR 24.68, SSIM 0.803, usage 100 % (SimVQ README)",
        ),
    ),
    options=("weights",),
)
