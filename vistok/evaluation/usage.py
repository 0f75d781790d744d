"""Which entries of a codebook are used, and how evenly: counted over a whole split and over all ranks."""

import math

import torch
from torch import Tensor

from .ranks import in_row_order, joined, summed

_MOST_COUNTED = 2**24  # entries counted in a table (128 MB); a larger codebook keeps the tokens it has seen
QUEUE = 65536  # tokens: the window of visual-tokenizer-pytorch and LlamaGen
# How often an entry is used, over how often all would be if they were used alike: the upper bounds of the
# groups of entries of a histogram. Those never used come before the first, the rest after the last.
HISTOGRAM_BOUNDS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


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
                self._add(place, *part.unique(return_counts=True))

    def _add(self, place: int, tokens: Tensor, counts: Tensor) -> None:
        seen = self._seen[place]
        for token, count in zip(tokens.tolist(), counts.tolist(), strict=True):
            seen[token] = seen.get(token, 0) + count

    def add_other_ranks(self) -> None:
        """Adds what all other ranks have counted; every rank must call it, once."""
        self._tables = [summed(table) for table in self._tables]
        for place, seen in enumerate(self._seen):
            tokens = joined(torch.tensor(list(seen), dtype=torch.int64))
            counts = joined(torch.tensor(list(seen.values()), dtype=torch.int64))
            self._seen[place] = {}
            self._add(place, tokens, counts)

    def compute(self) -> dict[str, float]:
        """The share of entries used, the perplexity (means over the codebooks) and the entries never used."""
        each = self.each_codebook()
        return {
            "codebook_usage": sum(one["usage"] for one in each) / self.num_codebooks,
            "codebook_perplexity": sum(one["perplexity"] for one in each) / self.num_codebooks,
            "dead_entries": sum(one["dead_entries"] for one in each),
        }

    def each_codebook(self) -> list[dict]:
        """`entries`, `usage`, `perplexity`, `dead_entries` and `histogram` of each codebook.

        The histogram says which share of the entries is never used, and which shares are used at most 1/8 as
        often as if all were used alike, more than that and at most 1/4, and so on by `HISTOGRAM_BOUNDS`.
        """
        counts = self._tables or [torch.tensor(list(seen.values()), dtype=torch.int64) for seen in self._seen]
        return [self._describe(count[count > 0]) for count in counts]

    def _describe(self, counts: Tensor) -> dict:
        share = counts.double() / counts.sum().clamp(min=1)
        dead = self.codebook_size - len(counts)
        groups = torch.bucketize(
            share * self.codebook_size, torch.tensor(HISTOGRAM_BOUNDS, dtype=torch.float64)
        )
        entries = [dead, *torch.bincount(groups, minlength=len(HISTOGRAM_BOUNDS) + 1).tolist()]
        return {
            "entries": self.codebook_size,
            "usage": len(counts) / self.codebook_size,
            "perplexity": math.exp(-torch.special.xlogy(share, share).sum()),
            "dead_entries": dead,
            "histogram": [number / self.codebook_size for number in entries],
        }


class RecentUsage:
    """The share of entries among the last 65,536 tokens of a split, a figure of other projects' tables.

    visual-tokenizer-pytorch and LlamaGen report it as their usage. It is at most 65,536 / `codebook_size`,
    and depends on which pictures come last.

    Args:
        codebook_size: Entries of one codebook.
        num_codebooks: Number of codebooks; each has its own last tokens, and the result is their mean.

    Example:
        >>> import torch
        >>> recent = RecentUsage(codebook_size=4)
        >>> recent.update(torch.tensor([0, 1]), torch.tensor([[0, 1], [1, 0]]))
        >>> recent.compute()
        0.5
    """

    def __init__(self, codebook_size: int, num_codebooks: int = 1):
        self.codebook_size = codebook_size
        self.num_codebooks = num_codebooks
        self._rows: list[Tensor] = []
        self._tokens: list[Tensor] = []

    def update(self, rows: Tensor, tokens: Tensor) -> None:
        """Takes the tokens of further pictures.

        Args:
            rows: int64 `(B,)`, rising from call to call.
            tokens: int64 `(B, *grid)`, or `(B, K, *grid)` with K codebooks.
        """
        self._rows.append(rows.cpu())
        self._tokens.append(tokens.reshape(len(tokens), self.num_codebooks, -1).cpu())
        needed = -(-QUEUE // self._tokens[0].shape[2])  # pictures
        while sum(map(len, self._rows[1:])) >= needed:
            del self._rows[0], self._tokens[0]

    def compute(self) -> float:
        """The share of entries, over all ranks; every rank must call it."""
        none = torch.zeros(0, dtype=torch.int64)
        own = torch.cat(self._tokens) if self._tokens else none.view(0, self.num_codebooks, 0)
        length = int(joined(torch.tensor([own.shape[2]])).max())  # a rank without pictures does not know it
        own = own if len(own) else none.view(0, self.num_codebooks, length)
        _, tokens = in_row_order(torch.cat(self._rows) if self._rows else none, own)
        last = tokens.transpose(0, 1).flatten(1)[:, -QUEUE:]
        used = sum(len(part.unique()) for part in last)
        return used / (self.codebook_size * self.num_codebooks)


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
