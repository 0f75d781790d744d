"""MaskGIT-VQGAN, as open-muse ported it from JAX and TiTok publishes it: a bare dictionary of weights."""

from ..quantizers import VQConfig
from .base import Converted, Family, Published, Source, need, rename
from .maskgit_layout import decoder_rules, encoder_rules, maskgit_config


def _convert(source: Source, *, image_size: int | None = None) -> Converted:
    weights = source.weights("")
    network = maskgit_config(weights)
    levels = len(network.channel_multipliers)
    codebook_size, codebook_dim = need(weights, "quantize.embedding.weight", 2)
    renamed = rename(
        weights,
        {
            **encoder_rules(levels),
            **decoder_rules(weights, levels),
            r"quantize\.embedding\.weight": "quantizer.codebook",
        },
    )
    config = VQConfig(
        codebook_size=codebook_size,
        codebook_dim=codebook_dim,
        codebook_weight=0.25,  # the project's commitment cost is on the loss that moves the codebook
        commitment_weight=1.0,
        image_size=image_size or 16 * 2 ** (levels - 1),
        image_mean=(0.0, 0.0, 0.0),  # pictures in [0, 1]
        image_std=(1.0, 1.0, 1.0),
        network=network,
    )
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


FAMILY = Family(
    name="maskgit_vqgan",
    project="MaskGIT-VQGAN (google-research/maskgit), ported by open-muse",
    convert=_convert,
    needs_settings=False,
    published=(
        Published(
            "fun-research/TiTok/maskgit-vqgan-imagenet-f16-256.bin",
            "f16, 256 tokens of 1024, ImageNet 256",
            "rFID 2.28 (TiTok README); 1.96, PSNR 18.6, SSIM 0.47 (MaskBit README)",
        ),
    ),
)
