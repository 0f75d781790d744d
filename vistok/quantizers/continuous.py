"""No quantization: the latents pass as they are, the baseline that every quantizer is measured against."""

from torch import Tensor

from ..configuration import VisualTokenizerConfig, number
from .base import Quantizer, QuantizerOutput

_NO_TOKENS = (
    "A continuous tokenizer has no tokens: use encode_latents and decode_quantized, or another quantizer"
)


class ContinuousConfig(VisualTokenizerConfig):
    """The settings of an autoencoder whose latents are not quantized.

    Args:
        latent_dim: Channels of the latents.

    Example:
        >>> from vistok import ContinuousConfig
        >>> ContinuousConfig(latent_dim=4).latent_dim
        4
    """

    model_type = "vistok_continuous"

    latent_dim: int = number(8, at_least=1, below=2**16)

    def validate_single_codebook(self):
        """There is no codebook to have several of."""
        if self.num_codebooks != 1:
            raise ValueError(f"num_codebooks must be 1 without quantization, got {self.num_codebooks}")


class Continuous(Quantizer):
    """The identity, under the contract of a quantizer. Its tokens are None; what needs tokens raises.

    Args:
        latent_dim: Channels of the latents.

    Raises:
        ValueError: `latent_dim` is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import Continuous
        >>> Continuous(latent_dim=4)(torch.ones(1, 4, 2, 2)).tokens is None
        True
    """

    config_class = ContinuousConfig

    def __init__(self, latent_dim: int = 8):
        super().__init__()
        ContinuousConfig.check(latent_dim=latent_dim)
        self.codebook_size = 0
        self.codebook_dim = self.latent_dim = self.quantized_dim = latent_dim

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        return QuantizerOutput(quantized=latents)

    def evaluate(self, latents: Tensor) -> QuantizerOutput:
        """The latents themselves, without tokens."""
        return self(latents)

    def encode(self, latents: Tensor) -> Tensor:
        """Raises `ValueError`: there are no tokens."""
        raise ValueError(_NO_TOKENS)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Raises `ValueError`: there are no tokens."""
        raise ValueError(_NO_TOKENS)

    def token_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Raises `ValueError`: there are no tokens."""
        raise ValueError(_NO_TOKENS)
