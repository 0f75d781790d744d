"""From a configuration to its quantizer, with one codebook or several."""

from ..configuration import VisualTokenizerConfig
from .base import QUANTIZERS, Quantizer
from .product import Product
from .residual import Residual


def build_quantizer(config: VisualTokenizerConfig) -> Quantizer:
    """The quantizer that a tokenizer's configuration describes.

    Args:
        config: The configuration of a registered quantizer.

    Raises:
        ValueError: No quantizer is registered for the configuration's class.

    Example:
        >>> from vistok import VQConfig
        >>> from vistok.quantizers import build_quantizer
        >>> type(build_quantizer(VQConfig(num_codebooks=4, codebook_layout="residual"))).__name__
        'Residual'
    """
    quantizer_class = QUANTIZERS.get(type(config))
    if quantizer_class is None:
        raise ValueError(
            f"No quantizer is registered for {type(config).__name__}; import the package that defines it. "
            f"Known: {', '.join(sorted(known.__name__ for known in QUANTIZERS))}"
        )

    def build() -> Quantizer:
        return quantizer_class(**config.own_values())

    if config.num_codebooks == 1:
        return build()
    if config.codebook_layout == "product":
        return Product(build, config.num_codebooks, config.shared_codebook)
    return Residual(build, config.num_codebooks, config.shared_codebook, config.quantizer_dropout)
