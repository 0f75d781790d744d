"""One entry of a codebook: its vector, and the entries beside it, by whichever quantizer."""

import torch
from torch import Tensor

from ..quantizers import Quantizer
from .tokenizers import Tokenizer

MOST_COMPARED = 2**18  # entries of a table that are all compared; a larger one is searched around the entry
STEPS = [2.0**power for power in range(-14, 4)]  # each is twice the last: none jumps over a neighbour


@torch.inference_mode()
def entry(tokenizer: Tokenizer, codebook: int, token: int) -> list[float]:
    """The vector that a token of a codebook stands for."""
    return _Codebook(tokenizer, codebook).vectors(torch.tensor([token]))[0].tolist()


@torch.inference_mode()
def neighbours(tokenizer: Tokenizer, codebook: int, token: int, count: int = 8) -> list[int]:
    """The tokens whose entries stand beside that of a token, the nearest first.

    Where channels are rounded one by one these are its neighbours in their grid: a step up or down in each
    channel. In a table of vectors they are the nearest ones.

    Args:
        tokenizer: Which tokenizer.
        codebook: Of several codebooks, which one, from 0.
        token: In `[0, codebook_size)`.
        count: How many at most.
    """
    entries = _Codebook(tokenizer, codebook)
    vector = entries.vectors(torch.tensor([token]))
    candidates = entries.all_tokens() if entries.is_table else entries.around(vector[0], token)
    candidates = candidates[candidates != token]
    distances = (entries.vectors(candidates) - vector).square().sum(1)
    return candidates[distances.argsort(stable=True)[:count]].tolist()


class _Codebook:
    """The entries of one codebook of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, codebook: int):
        quantizer = tokenizer.model.quantizer
        several = tokenizer.num_codebooks > 1
        self.quantizer: Quantizer = quantizer.quantizer(codebook) if several else quantizer
        self.device = tokenizer.model.device
        self.is_table = hasattr(self.quantizer, "vectors") and self.quantizer.codebook_size <= MOST_COMPARED

    def all_tokens(self) -> Tensor:
        return torch.arange(self.quantizer.codebook_size)

    def vectors(self, tokens: Tensor) -> Tensor:
        """Vectors `(N, D)` of tokens `(N,)`."""
        # From the table where there is one: to `lookup`, one token of a sequence of scales means nothing.
        if hasattr(self.quantizer, "vectors"):
            return self.quantizer.vectors(tokens.to(self.device)).cpu()
        return self.quantizer.lookup(tokens[None].to(self.device))[0].t().cpu()

    def around(self, vector: Tensor, token: int) -> Tensor:
        """The tokens that one meets first from a vector along each channel, up and down."""
        directions = torch.cat([torch.eye(len(vector)), -torch.eye(len(vector))])
        points = vector + directions[:, None] * torch.tensor(STEPS)[:, None]  # (2D, steps, D)
        rows = points.flatten(0, 1).to(self.device)
        tokens = self.quantizer.index(rows.t()[None])[0].view(len(directions), -1).cpu()
        other = tokens != token
        first = other.long().argmax(1, keepdim=True)
        return tokens.gather(1, first)[other.any(1)].flatten().unique()
