"""Open-MAGVIT2's tokenizers: lookup-free quantization of 14 or 18 bits in a checkpoint of Lightning.

Open-MAGVIT2: An Open-Source Project Toward Democratizing Auto-Regressive Visual Generation. Luo et al.
arXiv:2409.04410
A file has the weights and moving averages of them. The project's evaluation takes the weights, its generators
were trained on the tokens of the averages.
"""

from ..quantizers import LFQConfig
from .averages import chosen_weights
from .base import Converted, Family, Published, Source, need, rename, setting
from .magvit2_layout import DROPPED, magvit2_config, magvit2_rules, trained_size


def _convert(source: Source, *, image_size: int | None = None, weights: str = "raw") -> Converted:
    chosen = chosen_weights(source, weights)
    network = magvit2_config(chosen)
    renamed = rename(chosen, magvit2_rules(len(network.channel_multipliers)), drop=DROPPED)
    config = LFQConfig(
        num_bits=need(chosen, "encoder.conv_out.weight", 4)[0],
        bit_order="lsb",
        entropy_weight=setting(source.settings, "codebook_weight", default=0.1),
        commitment_weight=setting(source.settings, "commit_weight", default=0.25),
        entropy_temperature=0.01,
        image_size=image_size or trained_size(source, network),
        network=network,
    )
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


def _published(name: str, file: str, what: str, figures: str) -> Published:
    return Published(f"TencentARC/Open-MAGVIT2-Tokenizer-{name}/{file}.ckpt", what, figures)


FAMILY = Family(
    name="open_magvit2",
    project="Open-MAGVIT2 (TencentARC/SEED-Voken)",
    convert=_convert,
    published=(
        _published(
            "256-resolution",
            "imagenet_256_L",
            "f16, 256 tokens of 262144, ImageNet 256",
            "rFID 1.17, PSNR 21.90, usage 100 % (SEED-Voken docs)",
        ),
        _published(
            "128-resolution",
            "imagenet_128_L",
            "f8, 256 tokens of 262144, ImageNet 128",
            "at 128 pixels rFID 1.18, PSNR 25.08; at 256 pixels (1024 tokens) 0.34, 26.19 (SEED-Voken docs)",
        ),
        _published(
            "16384-Pretrain",
            "pretrain256_16384",
            "f16, 256 tokens of 16384, 100 M pictures of the web at 256",
            "on ImageNet rFID 2.55, PSNR 22.21, SSIM 0.62 (SEED-Voken docs)",
        ),
        _published(
            "262144-Pretrain",
            "pretrain256_262144",
            "f16, 256 tokens of 262144, 100 M pictures of the web at 256",
            "on ImageNet rFID 1.67, PSNR 22.70, SSIM 0.64 (SEED-Voken docs)",
        ),
    ),
    options=("weights",),
)
