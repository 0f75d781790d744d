"""Measures of reconstructions, one number a picture, and of codebooks. Pictures are float in [0, 1]."""

import math

import torch
from torch import Tensor

_MOST_COUNTED = 2**24  # entries counted in a table (128 MB); a larger codebook keeps the tokens it has seen


def psnr(pictures: Tensor, references: Tensor) -> Tensor:
    """The peak signal-to-noise ratio in dB of each picture, over all its pixels and channels.

    Args:
        pictures: float `(B, C, H, W)` in [0, 1].
        references: The same.

    Returns:
        float64 `(B,)`; infinite where two pictures are equal.
    """
    error = (pictures.double() - references.double()).square().flatten(1).mean(1)
    return -10 * torch.log10(error)


def ssim(pictures: Tensor, references: Tensor) -> Tensor:
    """The structural similarity of each picture, by an 11x11 Gaussian window (sigma 1.5) within it.

    Image Quality Assessment: From Error Visibility to Structural Similarity. Wang, Bovik, Sheikh,
    Simoncelli. TIP 2004.

    Args:
        pictures: float `(B, C, H, W)` in [0, 1], at least 11 pixels high and wide.
        references: The same.

    Returns:
        float64 `(B,)`, the mean over channels and places.

    Raises:
        ValueError: The pictures are smaller than the window.
    """
    if min(pictures.shape[-2:]) < 11:
        raise ValueError(f"SSIM needs pictures of at least 11 x 11 pixels, got {tuple(pictures.shape[-2:])}")
    # float64: the variances are small differences of means, which float32 gets wrong on smooth pictures. The
    # sum of squares and the product are all that the formula needs of the second moments: four blurs instead
    # of five.
    a, b = pictures.double(), references.double()
    mean_a, mean_b = _blur(a), _blur(b)
    product = mean_a * mean_b
    squares = mean_a.square() + mean_b.square()
    variances = _blur(a.square() + b.square()) - squares
    covariance = _blur(a * b) - product
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity.flatten(1).mean(1)


def _blur(x: Tensor) -> Tensor:
    window = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    window = [weight / sum(window) for weight in window]
    for dim in (
        -2,
        -1,
    ):  # separable and symmetric: sums of shifted pictures are faster than a convolution on a CPU
        size = x.shape[dim] - 10
        blurred = x.narrow(dim, 5, size) * window[5]
        for i in range(5):
            blurred.add_(x.narrow(dim, i, size) + x.narrow(dim, 10 - i, size), alpha=window[i])
        x = blurred
    return x


class CodebookUsage:
    """Which entries the tokens of a whole split use, and how evenly.

    Args:
        codebook_size: Entries of one codebook.
        num_codebooks: Number of codebooks.

    Example:
        >>> import torch
        >>> counts = CodebookUsage(codebook_size=4)
        >>> counts.update(torch.tensor([[0, 1], [1, 0]]))
        >>> counts.compute()
        {'codebook_usage': 0.5, 'codebook_perplexity': 2.0, 'dead_entries': 2}
    """

    def __init__(self, codebook_size: int, num_codebooks: int = 1):
        self.codebook_size = codebook_size
        self.num_codebooks = num_codebooks
        counted = codebook_size <= _MOST_COUNTED
        self._tables = [
            torch.zeros(codebook_size, dtype=torch.int64) for _ in range(num_codebooks) if counted
        ]
        self._seen: list[dict[int, int]] = [{} for _ in range(num_codebooks) if not counted]

    def update(self, tokens: Tensor, mask: Tensor | None = None) -> None:
        """Counts tokens.

        Args:
            tokens: int64 `(B, *grid)`, or `(B, K, *grid)` with K codebooks.
            mask: bool `(B, *grid)`, False at places of padding, which are not counted.

        Raises:
            ValueError: A token is out of range, or the tokens are not integers or have the wrong shape.
        """
        if tokens.is_floating_point() or tokens.dtype == torch.bool:
            raise ValueError(f"Expected integer tokens, got {tokens.dtype}")
        if self.num_codebooks > 1 and (tokens.ndim < 2 or tokens.shape[1] != self.num_codebooks):
            shape = tuple(tokens.shape)
            raise ValueError(f"Expected tokens of shape (B, {self.num_codebooks}, *grid), got {shape}")
        wrong = ((tokens < 0) | (tokens >= self.codebook_size)).nonzero()
        if len(wrong):
            position = wrong[0].tolist()
            raise ValueError(
                f"Expected tokens in [0, {self.codebook_size}), got {int(tokens[tuple(position)])} at "
                f"position {position}"
            )
        parts = [tokens] if self.num_codebooks == 1 else tokens.unbind(1)
        for place, part in enumerate(parts):
            part = part if mask is None else part[mask]
            if self._tables:
                self._tables[place] += torch.bincount(part.flatten().cpu(), minlength=self.codebook_size)
            else:
                for token, count in zip(*(x.tolist() for x in part.unique(return_counts=True)), strict=True):
                    self._seen[place][token] = self._seen[place].get(token, 0) + count

    def compute(self) -> dict[str, float]:
        """The share of entries used, the perplexity (means over the codebooks) and the entries never used."""
        counts = self._tables or [torch.tensor(list(seen.values()), dtype=torch.int64) for seen in self._seen]
        used = [int((count > 0).sum()) for count in counts]
        entropies = []
        for count in counts:
            share = count.double() / count.sum().clamp(min=1)
            entropies.append(float(-torch.special.xlogy(share, share).sum()))
        return {
            "codebook_usage": sum(used) / (self.codebook_size * self.num_codebooks),
            "codebook_perplexity": sum(math.exp(entropy) for entropy in entropies) / self.num_codebooks,
            "dead_entries": self.codebook_size * self.num_codebooks - sum(used),
        }


def usage(
    tokens: Tensor, codebook_size: int, num_codebooks: int = 1, mask: Tensor | None = None
) -> dict[str, float]:
    """How much of a codebook some tokens use, by whichever method they were made.

    Args:
        tokens: int64 `(B, *grid)`, or `(B, K, *grid)` with K codebooks.
        codebook_size: Entries of one codebook.
        num_codebooks: K.
        mask: bool `(B, *grid)`, False at places of padding, which are not counted.

    Returns:
        `codebook_usage`, `codebook_perplexity` and `dead_entries`, as `CodebookUsage.compute`.

    Example:
        >>> import torch
        >>> usage(torch.tensor([[3, 3, 1, 1]]), codebook_size=8)["codebook_perplexity"]
        2.0
    """
    counts = CodebookUsage(codebook_size, num_codebooks)
    counts.update(tokens, mask)
    return counts.compute()
