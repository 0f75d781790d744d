"""Where a token stands: between the array of tokens, the grid that is drawn and the pixels of the picture."""

import math
from dataclasses import dataclass

import numpy as np

from .tokenizers import Tokenizer


@dataclass(frozen=True)
class TokenMap:
    """The tokens of one picture and where each of them stands.

    A grid `(h, w)` is drawn as it is. A sequence `(n,)` is drawn row by row in a near-square block, and none
    of its tokens has a place in the picture.

    Attributes:
        tokens: int64 `(K, *grid)`, with one codebook too.
        columns: Tokens in a row of the drawing.
        factor: Pixels of height or width per token; None where tokens have no place in the picture.
        scales: Sides of the square grids that a sequence consists of, one after another; empty where it is
            no such sequence.
    """

    tokens: np.ndarray
    columns: int
    factor: int | None
    scales: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer, tokens: np.ndarray) -> "TokenMap":
        """The map of tokens `(*token_shape)`."""
        maps = tokens if tokenizer.num_codebooks > 1 else tokens[None]
        if maps.ndim == 3:
            return cls(maps, maps.shape[2], tokenizer.model.downsample_factor)
        scales = tuple(getattr(tokenizer.model.config, "scales", ()))
        return cls(maps, math.ceil(math.sqrt(maps.shape[1])), None, scales)

    @property
    def places(self) -> int:
        """How many places the grid has."""
        return self.tokens[0].size

    @property
    def rows(self) -> int:
        """Rows of the drawing."""
        return math.ceil(self.places / self.columns)

    def place(self, row: int, column: int) -> int:
        """The number of a place, row by row; one outside becomes the nearest."""
        row, column = min(max(row, 0), self.rows - 1), min(max(column, 0), self.columns - 1)
        return min(row * self.columns + column, self.places - 1)

    def row_and_column(self, place: int) -> tuple[int, int]:
        """Row and column of a place, from 0."""
        return divmod(place, self.columns)

    def scale(self, place: int) -> tuple[int, int, int] | None:
        """Side of the scale of a place, and row and column in it, from 0; None without scales."""
        for side in self.scales:
            if place < side**2:
                return side, *divmod(place, side)
            place -= side**2
        return None

    def token(self, codebook: int, place: int) -> int:
        """The token of a codebook at a place."""
        return int(self.tokens[codebook].flat[place])

    def same(self, codebook: int, place: int) -> np.ndarray:
        """Where this codebook has the same token, bool `(rows, columns)`, the place itself included."""
        same = np.zeros(self.rows * self.columns, dtype=bool)
        same[: self.places] = self.tokens[codebook].ravel() == self.token(codebook, place)
        return same.reshape(self.rows, self.columns)

    def replaced(self, codebook: int, place: int, token: int, everywhere: bool = False) -> np.ndarray:
        """The tokens `(K, *grid)` with another one at a place, or wherever the same token stands."""
        tokens = self.tokens.copy()
        one = tokens[codebook]
        if everywhere:
            one[one == self.token(codebook, place)] = token
        else:
            one.flat[place] = token
        return tokens
