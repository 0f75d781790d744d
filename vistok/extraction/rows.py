"""Rows of a shard, and what becomes of a picture before the network: a hash, and pixels or why not."""

import hashlib
from collections.abc import Iterator
from itertools import islice

import numpy as np
from PIL import Image

from ..data import DatasetError, IndexedSource, Picture, Source
from ..image_decoding import UnreadableImageError
from ..messages import one_line
from .plan import Plan, Shard
from .shards import STATUSES, TokenRow
from .views import Views

ROW_MASK = 2**32 - 1  # of a streamed row's number in `vistok.data`: its place in its file


class RowReader:
    """Reads the undecoded rows of shards; those that follow each other in a file need one look at it."""

    def __init__(self, source: Source):
        self._source = source
        self._file: int | None = None
        self._next = 0
        self._rows: Iterator[Picture] = iter(())

    def read(self, shard: Shard) -> Iterator[Picture]:
        """Yield the rows of a shard; `row` is the number in its input file.

        Raises:
            DatasetError: The file cannot be read, or has fewer rows than planned.
        """
        if isinstance(self._source, IndexedSource):
            yield from (self._source.read(row) for row in range(shard.start, shard.stop))
            return
        if self._file != shard.file or self._next > shard.start:
            self._file, self._next, self._rows = shard.file, 0, self._source.read_shard(shard.file)
        for _ in islice(self._rows, shard.start - self._next):
            self._next += 1
        wanted = None if shard.stop is None else shard.stop - self._next
        for picture in islice(self._rows, wanted):
            self._next += 1
            yield picture._replace(row=picture.row & ROW_MASK)
        if shard.stop is not None and self._next != shard.stop:
            raise DatasetError(
                f"{self._source.files[shard.file] if self._source.files else shard.name} ends after "
                f"{self._next} rows, the plan says {shard.stop} at least: fetch it again"
            )


def decode_row(picture: Picture, views: Views) -> tuple[TokenRow, np.ndarray | str]:
    """A row and its pixels, uint8 `(V, H, W, 3)`, or one sentence why there are none."""
    digest = None
    status = 0
    try:
        picture = picture.fetch()
        digest = _digest(picture.image)
        pixels: np.ndarray | str = views(picture.decode())
    except UnreadableImageError as error:
        status = STATUSES.index(error.reason)
        pixels = one_line(error)
    row = TokenRow(picture.row, picture.key, digest, picture.label, picture.columns, status)
    return row, pixels


def refuse(plan: Plan, shard: Shard, row: TokenRow, reason: str) -> DatasetError:
    """The error that stops an extraction at a picture."""
    name = f" ({row.key})" if row.key else ""
    return DatasetError(
        f"{plan.where(shard, row.row)}{name} of dataset {plan.values['dataset']['name']!r} cannot be read: "
        f"{reason}; --on_error skip keeps its place without tokens"
    )


def _digest(image: bytes | Image.Image | None) -> bytes | None:
    if image is None:
        return None
    if isinstance(image, Image.Image):  # a picture that never was a file: its pixels
        image = f"{image.mode} {image.size} ".encode() + image.tobytes()
    return hashlib.sha256(image).digest()
