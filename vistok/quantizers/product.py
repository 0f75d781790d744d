"""Several codebooks side by side: the channels are shared out, and each part is quantized on its own.

Product Quantization for Nearest Neighbor Search. Jégou, Douze, Schmid. TPAMI 2011.
With one shared codebook it is the multi-head quantization of OptVQ. arXiv:2412.15195
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..configuration import VisualTokenizerConfig
from .base import Quantizer, QuantizerOutput


class SeveralCodebooks(Quantizer):
    """What product and residual quantization share: children, token layout and the mean of the losses.

    Losses are means over the codebooks, so that a weight means the same for one codebook and for many. A
    shared codebook is one child. The children own the state and reset it themselves.

    Args:
        build: Makes one quantizer; called once for a shared codebook, else once for each.
        num_codebooks: Number of codebooks.
        shared_codebook: Whether they are one and the same.

    Raises:
        ValueError: An argument is out of range, or the quantizers have no tokens.
    """

    def __init__(self, build: Callable[[], Quantizer], num_codebooks: int, shared_codebook: bool = False):
        super().__init__()
        VisualTokenizerConfig.check(num_codebooks=num_codebooks, shared_codebook=shared_codebook)
        self.num_codebooks = num_codebooks
        self.shared_codebook = shared_codebook
        self.quantizers = nn.ModuleList(build() for _ in range(1 if shared_codebook else num_codebooks))
        for place, quantizer in enumerate(self.quantizers):
            quantizer.stream = place
        child = self.quantizers[0]
        if not child.codebook_size:
            raise ValueError(f"Expected quantizers with tokens, but {type(child).__name__} has no tokens")
        self.codebook_size = child.codebook_size
        self.codebook_dim = child.codebook_dim
        self.latent_dim = child.latent_dim
        self.quantized_dim = child.quantized_dim
        self.batch_statistics = child.batch_statistics

    def quantizer(self, place: int) -> Quantizer:
        """The quantizer of codebook number `place`."""
        return self.quantizers[0 if self.shared_codebook else place]

    def token_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """See `Quantizer`."""
        return (self.num_codebooks, *grid)

    def lookup(self, tokens: Tensor, num_codebooks: int | None = None) -> Tensor:
        """The vectors that tokens stand for, of all codebooks or of the first ones.

        Args:
            tokens: int `(B, K, *grid)` in `[0, codebook_size)`.
            num_codebooks: How many codebooks to take; the tokens may then be those of these codebooks alone.

        Returns:
            float32 `(B, quantized_dim, *grid)`: of the first residual stages a coarser vector; of a product,
            zeros in the channels of the other codebooks.

        Raises:
            ValueError: As `Quantizer.lookup`, and for `num_codebooks` that are not from 1 to K.
        """
        if num_codebooks is None:
            return super().lookup(tokens)
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(
                f"num_codebooks must be from 1 to {self.num_codebooks} here, got {num_codebooks}"
            )
        if tokens.ndim > 1 and tokens.shape[1] == self.num_codebooks:
            tokens = tokens[:, :num_codebooks]
        self._check_tokens(tokens, num_codebooks)
        with torch.autocast(tokens.device.type, enabled=False):
            return self.entries(tokens.long())

    def freeze_codebook(self) -> None:
        """See `Quantizer`."""
        super().freeze_codebook()
        for quantizer in self.quantizers:
            quantizer.freeze_codebook()

    def set_step(self, step: int) -> None:
        """See `Quantizer`."""
        super().set_step(step)
        for quantizer in self.quantizers:
            quantizer.set_step(step)

    def discard_statistics(self) -> None:
        """See `Quantizer`."""
        for quantizer in self.quantizers:
            quantizer.discard_statistics()

    def mean_losses(self, outputs: list[QuantizerOutput]) -> dict[str, Tensor]:
        """The mean over the codebooks of each named loss."""
        return {name: sum(out.losses[name] for out in outputs) / len(outputs) for name in outputs[0].losses}

    def _check_tokens(self, tokens: Tensor, num_codebooks: int | None = None) -> None:
        expected = num_codebooks or self.num_codebooks
        if tokens.ndim < 2 or tokens.shape[1] != expected:
            raise ValueError(f"Expected tokens of shape (B, {expected}, *grid), got {tuple(tokens.shape)}")
        super()._check_tokens(tokens)


def call(quantizer: Quantizer, latents: Tensor, mask: Tensor | None) -> QuantizerOutput:
    """A quantizer's forward, with the mask where there is one: somebody's own forward may know of none."""
    return quantizer(latents) if mask is None else quantizer(latents, mask)


class Product(SeveralCodebooks):
    """Product quantization: codebook k quantizes the k-th part of the channels.

    Args:
        build: Makes one quantizer; called once for a shared codebook, else once for each.
        num_codebooks: Number of codebooks.
        shared_codebook: Whether they are one and the same.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from vistok.quantizers import FSQ, Product
        >>> tuple(Product(lambda: FSQ(levels=[8, 8]), num_codebooks=3)(torch.randn(2, 6, 4, 4)).tokens.shape)
        (2, 3, 4, 4)
    """

    def __init__(self, build: Callable[[], Quantizer], num_codebooks: int, shared_codebook: bool = False):
        super().__init__(build, num_codebooks, shared_codebook)
        self.latent_dim *= num_codebooks
        self.quantized_dim *= num_codebooks

    def quantize(self, latents: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """See `Quantizer`."""
        if self.shared_codebook:  # the parts of all places are one batch, for statistics of the batch too
            if mask is not None:
                mask = mask.unsqueeze(1).expand(-1, self.num_codebooks, *mask.shape[1:]).flatten(0, 1)
            out = call(self.quantizers[0], self._fold(latents), mask)
            return QuantizerOutput(self._unfold(out.quantized), self._unfold(out.tokens), out.losses)
        parts = latents.chunk(self.num_codebooks, dim=1)
        outputs = [
            call(quantizer, part, mask) for quantizer, part in zip(self.quantizers, parts, strict=True)
        ]
        return QuantizerOutput(
            torch.cat([out.quantized for out in outputs], dim=1),
            torch.stack([out.tokens for out in outputs], dim=1),
            self.mean_losses(outputs),
        )

    def assign(self, latents: Tensor) -> Tensor:
        """See `Quantizer`."""
        return self._each_tokens(latents, "encode")

    def index(self, quantized: Tensor) -> Tensor:
        """See `Quantizer`."""
        self._check_channels(quantized, self.quantized_dim)
        return self._each_tokens(quantized, "index")

    def other_assignments(self, latents: Tensor) -> dict[str, Tensor]:
        """See `Quantizer`; a shared codebook assigns the parts of all places at once."""
        self._check_latents(latents)
        if self.shared_codebook:
            found = self.quantizers[0].other_assignments(self._fold(latents))
            return {name: self._unfold(tokens) for name, tokens in found.items()}
        parts = zip(self.quantizers, latents.chunk(self.num_codebooks, dim=1), strict=True)
        found = [quantizer.other_assignments(part) for quantizer, part in parts]
        return {name: torch.stack([one[name] for one in found], dim=1) for name in found[0]}

    def entries(self, tokens: Tensor) -> Tensor:
        """See `Quantizer`."""
        known = tokens.shape[1]
        if self.shared_codebook:
            vectors = self._unfold(self.quantizers[0].lookup(tokens.flatten(0, 1)), known)
        else:
            vectors = torch.cat([self.quantizer(place).lookup(tokens[:, place]) for place in range(known)], 1)
        if known == self.num_codebooks:
            return vectors
        unknown = vectors.new_zeros(len(vectors), self.quantized_dim - vectors.shape[1], *vectors.shape[2:])
        return torch.cat([vectors, unknown], dim=1)

    def _each_tokens(self, values: Tensor, method: str) -> Tensor:
        if self.shared_codebook:
            return self._unfold(getattr(self.quantizers[0], method)(self._fold(values)))
        parts = values.chunk(self.num_codebooks, dim=1)
        tokens = [
            getattr(quantizer, method)(part) for quantizer, part in zip(self.quantizers, parts, strict=True)
        ]
        return torch.stack(tokens, dim=1)

    def _fold(self, values: Tensor) -> Tensor:
        return values.unflatten(1, (self.num_codebooks, -1)).flatten(0, 1)

    def _unfold(self, values: Tensor, num_codebooks: int | None = None) -> Tensor:
        """`(B * K, ...)` of the folded batch to `(B, K, *grid)` tokens or `(B, K * D, *grid)` vectors."""
        apart = values.unflatten(0, (-1, num_codebooks or self.num_codebooks))
        return apart.flatten(1, 2) if values.is_floating_point() else apart
