"""MaskBit's tokenizers: the VQGAN+ network with lookup-free quantization, or with a codebook.

MaskBit: Embedding-free Image Generation via Bit Tokens. Weber et al. arXiv:2409.16211
The files are bare dictionaries of weights; the settings are in the project's yaml files.
"""

from ..configuration import VisualTokenizerConfig
from ..quantizers import LFQConfig, VQConfig
from .base import Converted, Family, Published, Source, need, rename, setting
from .maskgit_layout import decoder_rules, encoder_rules, maskgit_config

CODEBOOK = "quantize.embedding.weight"


def _convert(source: Source, *, image_size: int | None = None) -> Converted:
    weights = source.weights("")
    network = maskgit_config(weights)
    levels = len(network.channel_multipliers)
    renamed = rename(
        weights,
        {
            **encoder_rules(levels),
            **decoder_rules(weights, levels),
            r"quantize\.embedding\.weight": "quantizer.codebook",
        },
        drop=(r"quantize\.(bits_to_indices|codebook)",),  # the powers of two, and all corners of the cube
    )
    common = {
        "commitment_weight": setting(source.settings, "commitment_cost", default=0.25),
        "entropy_temperature": setting(source.settings, "entropy_loss_temperature", default=0.01),
        "image_size": image_size or setting(source.settings, "resolution", default=16 * 2 ** (levels - 1)),
        "image_mean": (0.0, 0.0, 0.0),  # pictures in [0, 1]
        "image_std": (1.0, 1.0, 1.0),
        "network": network,
    }
    if CODEBOOK in weights:
        codebook_size, codebook_dim = need(weights, CODEBOOK, 2)
        config: VisualTokenizerConfig = VQConfig(
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            normalize=setting(source.settings, "use_l2_normalisation", default=False),
            entropy_weight=setting(source.settings, "entropy_loss_weight", default=0.0),
            **common,
        )
    else:
        config = LFQConfig(
            num_bits=need(weights, "encoder.conv_out.weight", 4)[0],
            bit_order="lsb",
            entropy_weight=setting(source.settings, "entropy_loss_weight", default=0.02),
            diversity_gamma=setting(source.settings, "entropy_gamma", default=1.0),
            **common,
        )
    return Converted(config, renamed.weights, renamed.dropped, renamed.left_over)


def _published(bits: int, rfid: str, psnr: str, ssim: str) -> Published:
    return Published(
        f"markweber/maskbit_tokenizer_{bits}bit/maskbit_tokenizer_{bits}bit.bin",
        f"LFQ f16, 256 tokens of {2**bits}, ImageNet 256",
        f"rFID {rfid}, PSNR {psnr}, SSIM {ssim} (MaskBit README)",
    )


FAMILY = Family(
    name="maskbit",
    project="MaskBit and VQGAN+ (markweberdev/maskbit)",
    convert=_convert,
    published=(
        _published(10, "1.76", "20.8", "0.53"),
        _published(12, "1.52", "21.2", "0.55"),
        _published(14, "1.37", "21.5", "0.56"),
        _published(16, "1.29", "21.8", "0.58"),
        _published(18, "1.16", "22.0", "0.59"),
        Published(
            "markweber/vqgan_plus_12bit/vqgan_plus_12bit.bin",
            "VQ f16, 256 tokens of 4096, ImageNet 256",
            "rFID 1.39, PSNR 21.0, SSIM 0.55 (MaskBit README)",
        ),
        Published(
            "markweber/maskgit_tokenizer/maskgit_tokenizer.bin",
            "MaskGIT-VQGAN in MaskBit's layout: VQ f16, 256 tokens of 1024, ImageNet 256",
            "rFID 1.96, PSNR 18.6, SSIM 0.47 (MaskBit README)",
        ),
    ),
)
