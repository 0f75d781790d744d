"""Pictures gathered into batches of one size and shape each, and their tokens handed back."""

import numpy as np

from .encoding import TokenEncoder
from .shards import TokenRow
from .views import Views


class Batches:
    """Gathers views into batches of one shape each, and puts the tokens into their rows.

    A picture that cannot be read keeps its places in the batch, empty, so that all others stay in theirs.
    Only where pictures have several shapes nobody knows which places those were.
    """

    def __init__(self, encoder: TokenEncoder, views: Views):
        self._encoder, self._views = encoder, views
        self._buffers: dict[tuple[int, int], np.ndarray] = {}
        self._waiting: dict[tuple[int, int], list[tuple[TokenRow, int]]] = {}

    def add(self, row: TokenRow, pixels: np.ndarray | None) -> None:
        """Takes a row and its views, uint8 `(V, H, W, 3)`, or None."""
        if pixels is None and self._views.buckets:
            return
        shape = (self._views.resolution,) * 2 if pixels is None else pixels.shape[1:3]
        if shape not in self._buffers:
            self._buffers[shape] = self._encoder.buffer(*shape)
        for view in range(len(self._views.names)):
            waiting = self._waiting.setdefault(shape, [])
            self._buffers[shape][len(waiting)] = 0 if pixels is None else pixels[view]
            waiting.append((row, view))
            if len(waiting) == self._encoder.batch_size:
                self._encode(shape)

    def flush(self) -> None:
        """Encodes what waits, in batches filled up to their size."""
        for shape in list(self._waiting):
            self._encode(shape)

    def _encode(self, shape: tuple[int, int]) -> None:
        waiting, buffer = self._waiting.pop(shape), self._buffers[shape]
        buffer[len(waiting) :] = 0
        tokens = self._encoder(buffer)
        for (row, view), values in zip(waiting, tokens, strict=False):  # the rest is filling
            if row.status:
                continue
            if row.tokens is None:
                row.tokens = np.empty((len(self._views.names), len(values)), values.dtype)
                row.grid = self._encoder.grid(*shape) if self._views.buckets else None
            row.tokens[view] = values
