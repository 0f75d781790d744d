"""GumbelVQ: the encoder says how likely each entry is, and training samples one with a gradient.

Categorical Reparameterization with Gumbel-Softmax. Jang, Gu, Poole. arXiv:1611.01144
As in the discrete VAE of Zero-Shot Text-to-Image Generation. Ramesh et al. arXiv:2102.12092
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from ..configuration import VisualTokenizerConfig, number
from .base import Quantizer, QuantizerOutput, straight_through
from .checks import at_least_float32, check_finite
from .codebook import as_grid, as_rows, as_tokens
from .distributed import mean_count
from .search import nearest


class GumbelVQConfig(VisualTokenizerConfig):
    """The settings of a tokenizer with Gumbel-softmax sampling.

    Args:
        codebook_size: Number of entries, and of channels of the latents: one logit for each.
        codebook_dim: Channels of an entry.
        kl_weight: Weight of the Kullback-Leibler divergence from the uniform distribution over the entries.
        temperature: Of the softmax at step 0.
        final_temperature: Of the softmax from step `anneal_steps` on; between, half a cosine.
        anneal_steps: Optimizer steps over which the temperature falls.
        straight_through: Whether the quantized vector in training is one entry, with the gradient of the soft
            mixture, or that mixture itself. Evaluation always takes the likeliest entry.

    Example:
        >>> from vistok import GumbelVQConfig
        >>> GumbelVQConfig(codebook_size=8192, codebook_dim=256, temperature=1.0).final_temperature
        0.0625
    """

    model_type = "vistok_gumbel_vq"

    codebook_size: int = number(1024, at_least=1, below=2**16)
    codebook_dim: int = number(8, at_least=1, below=2**16)
    kl_weight: float | int = number(5e-4, at_least=0)
    temperature: float | int = number(1.0, above=0)
    final_temperature: float | int = number(1 / 16, above=0)
    anneal_steps: int = number(150_000, at_least=1)
    straight_through: bool = True


class GumbelVQ(Quantizer):
    """Sampling of entries by Gumbel-softmax; its latents are the logits of the entries.

    In training the token is the argmax of `(logits + noise) / temperature`, and the gradient that of the
    softmax. The temperature falls with `set_step`. Evaluation adds no noise. The divergence is a mean over
    places of `sum p log(p K)`, of the logits without noise and temperature.

    Args:
        codebook_size: Number of entries, and of channels of the latents.
        codebook_dim: Channels of an entry.
        kl_weight: Weight of the divergence from the uniform distribution.
        temperature: Of the softmax at step 0.
        final_temperature: Of the softmax from step `anneal_steps` on.
        anneal_steps: Optimizer steps over which the temperature falls.
        straight_through: Whether the quantized vector in training is one entry.

    Attributes:
        codebook: float32 `(codebook_size, codebook_dim)`.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import GumbelVQ
        >>> quantizer = GumbelVQ(codebook_size=16, codebook_dim=4, anneal_steps=100)
        >>> tuple(quantizer(torch.randn(2, 16, 8, 8)).quantized.shape)
        (2, 4, 8, 8)
        >>> quantizer.set_step(50)
        >>> quantizer.current_temperature
        0.53125
    """

    config_class = GumbelVQConfig
    learns_through_quantized = True
    reads_logits = True

    def __init__(
        self,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        kl_weight: float = 5e-4,
        temperature: float = 1.0,
        final_temperature: float = 1 / 16,
        anneal_steps: int = 150_000,
        straight_through: bool = True,
    ):
        super().__init__()
        GumbelVQConfig.check(
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            kl_weight=kl_weight,
            temperature=temperature,
            final_temperature=final_temperature,
            anneal_steps=anneal_steps,
            straight_through=straight_through,
        )
        self.codebook_size = self.latent_dim = codebook_size
        self.codebook_dim = self.quantized_dim = codebook_dim
        self.kl_weight = kl_weight
        self.temperature = temperature
        self.final_temperature = final_temperature
        self.anneal_steps = anneal_steps
        self.straight_through = straight_through
        self.codebook = nn.Parameter(torch.empty(codebook_size, codebook_dim, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the entries from N(0, 1), as `torch.nn.Embedding` does."""
        init.normal_(self.codebook)

    @property
    def current_temperature(self) -> float:
        """The temperature at the step that `set_step` told."""
        done = min(1.0, self.samples.step / self.anneal_steps)
        share = (1 + math.cos(math.pi * done)) / 2
        return self.final_temperature + share * (self.temperature - self.final_temperature)

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        table = self.codebook.to(latents.dtype)
        if not self.training and not (torch.is_grad_enabled() and latents.requires_grad):
            tokens = self.assign(latents)
            return QuantizerOutput(as_grid(table.index_select(0, tokens.flatten()), latents), tokens)
        logits = latents + self.noise(latents) if self.training else latents
        soft = as_rows((logits / self.current_temperature).softmax(1))
        tokens = as_rows(logits).detach().nan_to_num(nan=0.0).argmax(1)
        weights = soft
        if self.straight_through or not self.training:
            weights = straight_through(soft, F.one_hot(tokens, self.codebook_size).to(soft.dtype))
        losses = {}
        if self.training and self.kl_weight:
            losses["kl"] = self.kl_weight * self._divergence(latents, mask)
        return QuantizerOutput(as_grid(weights @ table, latents), as_tokens(tokens, latents), losses)

    def noise(self, logits: Tensor) -> Tensor:
        """Gumbel noise of the logits' shape: each picture of a step draws its own, on however many ranks.

        Args:
            logits: float `(B, codebook_size, *grid)`.
        """
        noise = torch.empty_like(logits, memory_format=torch.contiguous_format)
        for sample, draw in zip(noise, self.samples.next(logits, f"gumbel {self.stream}"), strict=True):
            sample.exponential_(generator=draw)
        # log(Exponential(1)) of a zero would be infinite.
        return noise.clamp_(min=torch.finfo(noise.dtype).tiny).log_().neg_()

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        return latents.nan_to_num(nan=0.0).argmax(1)

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        chosen = self.codebook.index_select(0, tokens.flatten())
        return chosen.view(*tokens.shape, self.codebook_dim).movedim(-1, 1)

    def index(self, quantized: Tensor) -> Tensor:
        """The nearest entries of vectors. See `Quantizer.index`.

        Args:
            quantized: float `(B, codebook_dim, *grid)`.
        """
        self._check_channels(quantized, self.quantized_dim)
        check_finite(quantized)
        rows = as_rows(at_least_float32(quantized.detach()))
        return as_tokens(nearest(rows, self.codebook.to(rows.dtype)), quantized)

    def _divergence(self, logits: Tensor, mask: Tensor | None) -> Tensor:
        log_p = logits.log_softmax(1)
        divergence = (log_p.exp() * (log_p + math.log(self.codebook_size))).sum(1).flatten()
        if mask is not None:
            divergence = divergence.masked_fill(~mask.flatten(), 0)
        return divergence.sum() / mean_count(mask, len(divergence), divergence.device)
